import dataclasses
import html.parser
import pathlib
import re
import time
import urllib.parse

import numpy as np
import pandas as pd
import pytest
from PIL import Image as pillow

from dicexmbd_jax.report import image_report, run_page
from dicexmbd_jax.types import ImageRecord, ImageSource, LoadedImage

VOID = {"meta", "img", "input", "br", "hr", "link"}
# Attributes that load something at once, which an anchor's href does not.
LOADING = {"src", "srcset", "data", "poster", "background", "xlink:href"}
ODD = "a \"b\" 'c' <script>alert(1)</script> & \u202e 日本 \x00\x1b \udcff %41"


class Page(html.parser.HTMLParser):
  """Collects tags, attributes and text; fails where tags do not nest."""

  def __init__(self, text):
    super().__init__()
    self.stack, self.tags, self.ids, self.text = [], [], [], []
    self.feed(text)
    self.close()
    assert self.stack == []

  def handle_starttag(self, tag, attrs):
    values = dict(attrs)
    self.tags.append((tag, values))
    if "id" in values:
      self.ids.append(values["id"])
    if tag not in VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    if "style" not in self.stack and "script" not in self.stack:
      self.text.append(data)

  def find(self, tag, **attrs):
    return [
      values
      for name, values in self.tags
      if name == tag and attrs.items() <= values.items()
    ]


def make_report(stem="ROI001", num_cells=50, num_markers=3, edge=100):
  rng = np.random.default_rng(num_cells)
  names = tuple(f"marker {i}" for i in range(num_markers))
  regions = {
    "area": rng.gamma(4, 15, num_cells),
    "centroid-0": rng.random(num_cells) * edge,
    "centroid-1": rng.random(num_cells) * edge,
  }
  counts = pd.DataFrame(rng.gamma(1, 5, (num_cells, num_markers)))
  record = ImageRecord(
    source=ImageSource(stem, pathlib.Path(f"img/{stem}.tiff")),
    loaded=LoadedImage(
      stack=np.zeros((edge, edge, 1), np.float32),
      names=names,
      nuclear=(),
      membrane=(),
      pixel_size_um=None,
      origin={"source_file": f"img/{stem}.tiff"},
    ),
    pixel_size_um=1.0,
    warnings=("channel 7 is constant",),
    tables={
      "regionprops": pd.DataFrame(regions),
      "intensities": counts.set_axis(names, axis=1),
    },
  )
  picture = rng.integers(0, 256, (2 * edge, 2 * edge, 3), np.uint8)
  seconds = {"read": 0.5, "segment": 1.25}
  return image_report.summarise_image(
    record, pillow.fromarray(picture), seconds
  )


def render(images, **run):
  text = run_page.render_report(images, run)
  page = Page(text)
  assert len(page.ids) == len(set(page.ids))
  for tag, values in page.tags:
    for source in (values[name] for name in LOADING & set(values)):
      assert tag == "img"
      assert source.startswith(("data:image/jpeg;base64,", "overlays/"))
  assert "url(" not in text
  assert "@import" not in text
  policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
  assert policy[0]["content"].startswith("default-src 'none';")
  assert not page.find("link")
  words = " ".join(page.text).split()
  assert not {"nan", "NaN", "None", "inf"} & set(words)
  return text, page


def test_page_has_everything_about_an_image():
  text, page = render([make_report()], title="My <run>", version="1.2.3")
  words = " ".join(" ".join(page.text).split())
  assert "My <run>" in words
  assert "dicexmbd_jax 1.2.3" in words
  assert "channel 7 is constant" in words
  assert "marker 2" in words
  assert "read 0.50 s, segment 1.25 s" in words
  assert "5,000" in words  # 50 cells on 0.01 mm2.
  assert page.find("a", href="overlays/ROI001.png")
  assert page.find("img", alt="Overlay of ROI001")
  assert not page.find("details")
  assert len(page.find("article", id="image-1")) == 1
  assert page.find("a", href="#image-1")
  assert "http://" not in text
  assert "https://" not in text


@pytest.mark.parametrize("factor", [0.95, 1.05, 1.25, 1.75])
def test_page_tells_the_magnification_that_was_chosen(factor):
  report = dataclasses.replace(make_report(), magnification=factor)
  assert f">{factor} times as large<" in run_page.render_report([report], {})


def test_page_shows_a_scale_bar_of_the_right_length():
  _, page = render([make_report(edge=100)])
  bars = page.find("span", **{"class": "scale"})
  assert [bar["style"] for bar in bars] == ["width:20.00%"]
  assert "20 µm" in page.text


@pytest.mark.parametrize(
  ("width_um", "bar"),
  [
    (0, None),
    (2.9, None),
    (3, (1, 100 / 3)),
    (60, (20, 100 / 3)),
    (500, (100, 20.0)),
    (1600, (500, 31.25)),
    (float("nan"), None),
  ],
)
def test_choose_bar(width_um, bar):
  assert run_page.choose_bar(width_um) == (
    bar if bar is None else pytest.approx(bar)
  )


def test_page_escapes_odd_names():
  good = dataclasses.replace(
    make_report(), stem=ODD, source=ODD, warnings=(ODD,)
  )
  marker = dataclasses.replace(good.markers[0], name=ODD)
  good = dataclasses.replace(good, markers=(marker, *good.markers[1:]))
  bad = image_report.ImageReport(ODD, ODD, error=ODD)
  text, page = render(
    [good, bad], title=ODD, model=ODD, details={ODD: ODD}, device=ODD
  )
  text.encode("utf-8")
  assert "<script>alert" not in text
  assert len(page.find("script")) == 1
  assert not re.search("[\x00-\x08\x0e-\x1f]", text)
  link = page.find("a", **{"class": "frame"})[0]["href"]
  name = urllib.parse.unquote_to_bytes(link).decode("utf-8", "surrogateescape")
  assert name == f"overlays/{ODD}.png"


def test_page_of_very_long_names_and_many_markers():
  long = "x" * 3000
  report = dataclasses.replace(make_report(num_markers=60), stem=long)
  _, page = render([report])
  assert len(page.find("svg", **{"class": "markers"})) == 2


def test_page_of_an_empty_run():
  _, page = render([])
  assert "This run had no images." in page.text
  assert not page.find("table")


def test_page_of_failures_only():
  images = [
    image_report.ImageReport(
      f"bad{i}", f"bad{i}.tiff", error=f"bad{i}: found {i}"
    )
    for i in range(3)
  ]
  _, page = render(images, seconds=0.0)
  assert "bad2: found 2" in page.text
  assert len(page.find("tr")) == 4
  assert not page.find("article")
  assert not page.find("a")


@pytest.mark.parametrize("num_cells", [0, 1])
def test_page_of_next_to_no_cells(num_cells):
  _, page = render([make_report(num_cells=num_cells)])
  is_said = "No cells were found in this image." in page.text
  assert is_said == (num_cells == 0)
  assert len(page.find("svg", **{"class": "areas"})) == num_cells


def test_page_of_an_image_without_pixels_or_markers():
  report = dataclasses.replace(
    make_report(num_cells=0, num_markers=0), shape=(0, 0), pictures={}
  )
  render([report])


def test_totals_and_pooled_distributions_leave_failures_out():
  images = [
    make_report("a", num_cells=10),
    make_report("b", num_cells=30),
    image_report.ImageReport("c", "c.tiff", error="c.tiff: unreadable"),
  ]
  _, page = render(images, seconds=75.0)
  words = " ".join(" ".join(page.text).split())
  assert "Images 3 Cells 40 Cells per mm² 2,000 Failed images 1" in words
  assert "Time 1 min 15 s" in words
  assert "All cells of 2 images" in words


def test_scores_are_shown_where_given():
  images = [make_report("a"), make_report("b")]
  scores = {"overall": {"F1 at IoU 0.5": 0.8612}, "f1": {"b": 0.75}}
  _, page = render(images, scores=scores)
  words = " ".join(" ".join(page.text).split())
  assert "F1 at IoU 0.5 0.861" in words
  assert words.count("0.750") == 2  # In the table and at the image.
  _, page = render(images, scores=None, details=None, seconds=None)
  assert not page.find("section", id="scores")
  assert "F1" not in page.text


def test_page_of_a_thousand_images_is_quick_and_bounded():
  report = make_report(num_cells=3000, num_markers=36, edge=500)
  images = [dataclasses.replace(report, stem=f"ROI{i}") for i in range(1000)]
  start = time.perf_counter()
  text = run_page.render_report(images, {})
  assert time.perf_counter() - start < 20
  assert len(text.encode()) < 1000 * 25_000
  page = Page(text)
  assert len(page.find("details")) == 1000
  large = [img for img in page.find("img") if img["alt"].startswith("Overlay")]
  assert {img["loading"] for img in large} == {"lazy"}
  assert large[7]["src"] == "overlays/ROI7.png"


def test_an_image_shown_in_full_stays_below_its_bound():
  report = make_report(num_cells=3000, num_markers=36, edge=500)
  one, two = (
    len(run_page.render_report([report] * n, {}).encode()) for n in (2, 3)
  )
  assert two - one < 280_000
  assert len(image_report.dump_report(report)) < 270_000
  assert len(run_page.render_report([], {}).encode()) < 20_000


@pytest.mark.parametrize(
  ("seconds", "written"),
  [
    (None, "–"),
    (float("nan"), "–"),
    (0, "0.00 s"),
    (9.994, "9.99 s"),
    (9.996, "10.0 s"),
    (59.94, "59.9 s"),
    (59.96, "1 min 00 s"),
    (3599.4, "59 min 59 s"),
    (3599.6, "1 h 00 min"),
    (7380, "2 h 03 min"),
  ],
)
def test_format_seconds(seconds, written):
  assert run_page.format_seconds(seconds) == written
