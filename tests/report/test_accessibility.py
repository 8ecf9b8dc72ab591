"""The pages in a browser: axe, keyboard, narrow windows, print."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from dicexmbd_jax.report import image_report, run_page, score_page, tune_page
from tests.report import test_run_page, test_score_page

pytest.importorskip("axe_playwright_python")
ROOT = pathlib.Path(__file__).resolve().parents[2]
LONG = "20240131_Breast_TMA_core_B7_s0_a3_ac_" * 4


def load_checks():
  path = ROOT / "launch" / "check_pages.py"
  spec = importlib.util.spec_from_file_location("check_pages", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


checks = load_checks()
pytestmark = [
  pytest.mark.skipif(not checks.find_browser(), reason="there is no Chromium"),
  pytest.mark.slow,
]


def make_images(num=3):
  return [
    *(test_run_page.make_report(f"ROI{i}") for i in range(num)),
    test_run_page.make_report(LONG, num_cells=9000),
    test_run_page.make_report("EMPTY", num_cells=0),
    image_report.ImageReport("BAD", "BAD.tiff", error="BAD.tiff: found 0"),
  ]


def render_scores():
  report = test_score_page.make_report(4, 12, failures=["a.tiff: found 0"])
  picture = tune_page.encode_png(np.zeros((9, 9, 3), np.uint8))
  data = tune_page.base64.b64decode(picture)
  return score_page.render_page(
    report, dict.fromkeys(score_page.CAPTIONS, data)
  )


def render_tune():
  scores = {
    "f1": 0.8, "f1_low": 0.7, "f1_high": 0.9, "splits": 0.1, "merges": 0.1,
    "count_error": 0.0, "num_found": 90, "num_labelled": 100,
  }  # fmt: skip
  return tune_page.render_tune_page(
    tune_page.TuneReport(
      verdict="better",
      is_better=False,
      scores={"before": scores, "after": scores},
      advice=["Label more."],
      history=[(0.0, 0.7), (60.0, 0.8)],
      details={"Images": LONG},
      pictures=[("ROI1", np.zeros((9, 9, 3), np.uint8))],
      what="cells",
    )
  )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pages")
  run = {"details": {"config.segment.max_growth_um": 2.0, "command": LONG}}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_page, "MAX_OPEN_IMAGES", 5)
    folded = run_page.render_report(make_images(), run)
  texts = {
    "run": run_page.render_report(make_images(), run),
    "folded": folded,
    "scores": render_scores(),
    "tune": render_tune(),
  }
  for name, text in texts.items():
    (folder / f"{name}.html").write_text(text)
  return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def browser():
  with checks.start_browser() as found:
    yield found


@pytest.mark.parametrize("name", ["run", "folded", "scores", "tune"])
def test_axe_finds_nothing(pages, browser, name):
  for width_px, look in zip(checks.WIDTHS_PX, checks.LOOKS, strict=True):
    with checks.open_page(browser, pages[name], width_px, look) as page:
      assert checks.find_faults(page) == []


def run_checks(*arguments):
  call = [sys.executable, checks.__file__, *map(str, arguments)]
  return subprocess.run(call, capture_output=True, text=True)


def test_the_script_tells_faults(tmp_path):
  path = tmp_path / "bad.html"
  path.write_text("<!DOCTYPE html><p>no title<p style='width:99rem'>too wide")
  done = run_checks(path, f"--pictures={tmp_path}")
  assert done.returncode == 1, done.stderr
  assert "document-title" in done.stdout
  assert "expected 380" in done.stdout
  assert len([*tmp_path.glob("*.pdf")]) == 4
  done = run_checks(tmp_path / "none.html")
  assert done.returncode == 2
  assert "none.html: found no file" in done.stderr


def test_number_of_cells_is_in_view_on_a_telephone(pages, browser):
  with checks.open_page(browser, pages["run"], 380) as page:
    for row in page.locator("#table tbody tr").all():
      box = row.locator("td").first.bounding_box()
      assert box["x"] + box["width"] <= 380


@pytest.mark.parametrize("name", ["run", "scores", "tune"])
def test_scroll_boxes_are_reached_and_moved_by_keyboard(pages, browser, name):
  with checks.open_page(browser, pages[name], 380) as page:
    boxes = page.locator(".scroll")
    reached = set()
    for _ in range(60):
      page.keyboard.press("Tab")
      label = page.evaluate(
        "document.activeElement.matches('.scroll[role=region]')"
        " ? document.activeElement.ariaLabel : null"
      )
      reached.add(label)
    assert len(reached - {None}) == boxes.count()
    box = boxes.first
    if name == "run":
      box.focus()
      page.keyboard.press("ArrowRight")
      page.wait_for_function("document.querySelector('.scroll').scrollLeft > 0")


def test_links_tell_where_they_lead(pages, browser):
  with checks.open_page(browser, pages["run"], 1280) as page:
    tree = page.locator("main").aria_snapshot()
  assert 'link "ROI1"' in tree
  assert 'link "Overlay of ROI1' in tree
  assert 'link "Full resolution of ROI1"' in tree
  assert "link:" not in tree


def test_print_has_no_empty_sections(pages, browser):
  for name, is_seen in (("run", True), ("folded", False)):
    with checks.open_page(browser, pages[name], 1280) as page:
      page.emulate_media(media="print")
      assert page.locator("#images").is_visible() == is_seen
      assert page.locator("#summary").is_visible()
  with checks.open_page(browser, pages["folded"], 1280) as page:
    page.locator("summary").nth(1).click()
    page.emulate_media(media="print")
    assert page.locator("#images").is_visible()
    assert page.locator("details.image:visible").count() == 1
