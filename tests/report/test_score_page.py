"""The page and figures of an evaluation, with any number of methods."""

import html.parser
import io

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib import colors

from dicexmbd_jax.report import cell_figures, score_figures, score_page, style
from dicexmbd_jax.scores import summary

NAN = float("nan")


def make_scores(i):
  names = (*score_figures.PIXEL_SCORES, *score_figures.CELL_SCORES)
  events = [key for key, _ in score_page.EVENT_SCORES]
  return {
    **dict.fromkeys(names, 0.9 - 0.05 * i),
    **dict.fromkeys(events, 20 + i),
    **{
      f"{kind}_iou_{t:.2f}": 1 - t for kind in ("f1", "ap") for t in (0.5, 0.6)
    },
    "tp_iou_0.50": 15 + i,
    "iou_mean": NAN if i == 0 else 0.8,
    "oversplit": 0.1,
    "merge": 0.05 * i,
    "pq": 0.7,
    "aji": 0.6,
  }


def make_report(num_methods, num_images, **changes):
  rng = np.random.default_rng(0)
  methods = [f"method {i}" for i in range(num_methods)]
  tables = {
    name: {f"ROI{j}": make_scores((i + j) % 4) for j in range(num_images)}
    for i, name in enumerate(methods)
  }
  rows = [
    {"method": name, "image": stem, **values}
    for name, images in tables.items()
    for stem, values in images.items()
  ]
  values = rng.choice([NAN, -1, -0.8, -0.4, 0.3, 1], (40, 50))
  report = {
    "summary": summary.summarise_methods(tables),
    "images": pd.DataFrame(rows),
    "ious": {name: rng.random(30) for name in methods},
    "example": cell_figures.Example(
      "ROI0",
      dict.fromkeys(methods, values.astype(np.float32)),
      rng.random((40, 50)) < 0.1,
    ),
    "profiles": {name: rng.random(20) for name in methods},
    "markers": pd.DataFrame(
      [
        {"method": n, "image": "ROI0", "marker": f"CD{k}", "pearson": 0.1 * k}
        for n in methods
        for k in range(9)
      ]
    ),
    "failures": [],
    "details": {"Reference": "folder"},
  }
  return score_page.ScoreReport(**{**report, **changes})


class Checker(html.parser.HTMLParser):
  """Counts tags and knows those still open."""

  def __init__(self, page):
    super().__init__()
    self.open, self.counts, self.texts = [], {}, []
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.counts[tag] = self.counts.get(tag, 0) + 1
    if tag not in ("meta", "img", "br"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data.strip())


@pytest.mark.parametrize(
  ("num_methods", "num_images"),
  [
    (1, 1),
    (1, 3),
    (2, 3),
    (4, 2),
    pytest.param(9, 70, marks=pytest.mark.slow),
  ],
)
def test_figures_are_drawn_for_any_number_of_methods(num_methods, num_images):
  report = make_report(num_methods, num_images)
  figures = score_page.draw_figures(report)
  expected = set(score_page.CAPTIONS)
  if num_methods == 1:
    expected.remove("differences")
  assert set(figures) == expected
  for name in ("scores", "heat_map", "example"):
    picture = PIL.Image.open(
      io.BytesIO(score_page.render_figure(figures[name], "png"))
    )
    pixels = np.asarray(picture.convert("L"))
    assert pixels.min() < 100 < 250 < pixels.max()


def test_figures_repeat_to_the_byte():
  report = make_report(2, 3)
  for kind in ("png", "pdf"):
    one, other = (
      score_page.render_figure(score_page.draw_figures(report)["scores"], kind)
      for _ in range(2)
    )
    assert one == other


def test_a_method_looks_the_same_in_every_figure():
  whole = make_report(2, 2)
  second = whole.markers[whole.markers["method"] == "method 1"]
  report = make_report(
    2, 2, markers=second, profiles={"method 1": np.array([0.5, 0.6])},
    ious={"method 1": np.array([0.5, 0.6])},
  )  # fmt: skip
  figures = score_page.draw_figures(report)
  wanted = colors.to_rgb(style.pick_color(1))
  for name, index in (("markers", -1), ("profiles", 1)):
    box = figures[name].axes[0].patches[index]
    assert box.get_facecolor()[:3] == wanted, name
  [line] = figures["ious"].axes[0].lines
  assert colors.to_rgb(line.get_color()) == wanted
  labels = [text.get_text() for text in figures["markers"].legends[0].texts]
  assert labels == ["method 0", "method 1"]


def test_captions_say_which_images_are_shown():
  few = score_page.render_page(
    make_report(1, 2), {"heat_map": b"", "example": b""}
  )
  assert "Image: ROI0, of median F1." in few
  assert "with the lowest mean cell F1" not in few
  many = score_page.render_page(make_report(1, 61), {"heat_map": b""})
  assert "The 60 of 61 images with the lowest mean cell F1." in many


def test_without_data_there_are_no_figures():
  report = make_report(1, 1, images=pd.DataFrame())
  assert score_page.draw_figures(report) == {}
  report = make_report(
    2,
    2,
    ious={"method 0": np.zeros(0)},
    example=None,
    profiles={"method 0": np.array([NAN])},
    markers=None,
  )
  figures = score_page.draw_figures(report)
  assert not {"ious", "example", "profiles", "markers"} & set(figures)


def test_page_is_well_formed_and_says_what_is_known():
  report = make_report(2, 3, failures=["a<b.tiff: found <script>, expected"])
  figures = dict.fromkeys(score_page.CAPTIONS, b"png")
  page = score_page.render_page(report, figures)
  found = Checker(page)
  assert found.open == []
  assert found.counts["img"] == len(score_page.CAPTIONS)
  assert "script" not in found.counts
  assert any("a<b.tiff: found <script>" in text for text in found.texts)
  assert "method 0: 3 images, method 1: 3 images" in found.texts
  mean = report.summary["methods"]["method 0"]["cell_f1"]
  assert f"{mean:.3f}" in found.texts
  assert "nan" not in page.lower().replace("nan-", "")


def test_the_best_value_is_marked_also_where_less_is_better():
  report = make_report(2, 1)
  rows = {row["name"]: row for row in score_page._list_rows(report.summary)}
  assert [c["is_best"] for c in rows["cell_f1"]["cells"]] == [True, False]
  assert [c["is_best"] for c in rows["merge"]["cells"]] == [True, False]
  assert [c["is_best"] for c in rows["pq"]["cells"]] == [True, True]
  assert [c["value"] for c in rows["iou_mean"]["cells"]] == ["–", "0.800"]


def test_page_without_any_result():
  report = make_report(
    1, 1, images=pd.DataFrame(), summary=summary.summarise_methods({"a": {}})
  )
  found = Checker(score_page.render_page(report, {}))
  assert "img" not in found.counts


def test_density_is_that_of_the_values():
  grid = np.linspace(0, 1, 201)
  values = np.random.default_rng(0).beta(8, 3, 20_000)
  density = cell_figures.estimate_density(values, grid)
  assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
  mean = np.trapezoid(density * grid, grid)
  assert mean == pytest.approx(values.mean(), abs=0.01)
  # At the ends nothing is lost: the kernel is mirrored.
  ends = cell_figures.estimate_density(np.array([0.0, 1.0]), grid)
  assert ends.sum() * grid[1] == pytest.approx(1)


def test_colours_of_matches():
  values = np.float32([[NAN, 0.2, 0.9], [-0.4, -0.8, -1]])
  outlines = np.zeros((2, 3), bool)
  pixels = cell_figures.color_matches(values, outlines)
  assert pixels[0, 0].tolist() == [1, 1, 1]
  assert pixels[0, 1].sum() > pixels[0, 2].sum()
  for x, color in enumerate(
    (cell_figures.MERGED, cell_figures.SPLIT, cell_figures.OTHER)
  ):
    np.testing.assert_allclose(pixels[1, x], colors.to_rgb(color))
  outlined = cell_figures.color_matches(values, ~outlines)
  assert (outlined != pixels).any(axis=-1).all()


def test_methods_differ_without_colour():
  marks = [
    (style.pick_color(i), style.pick_hatch(i), style.pick_marker(i))
    for i in range(20)
  ]
  assert len(set(marks)) == 20
  assert len({style.pick_hatch(i) for i in range(7)}) == 7
  assert len({style.pick_marker(i) for i in range(7)}) == 7


def test_colours_of_methods_differ_in_grey():
  # Neighbours in the palette stand side by side in the bars.
  grey = [np.dot(colors.to_rgb(c), [0.3, 0.59, 0.11]) for c in style.COLORS]
  assert abs(np.diff(grey[:2])) > 0.2


@pytest.mark.parametrize(
  ("text", "expected"),
  [("short", "short"), ("a_very_long_name_7", "a_ver…ame_7")],
)
def test_long_names_keep_both_ends(text, expected):
  assert style.shorten(text, 11) == expected
