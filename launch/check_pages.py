"""Checks HTML pages with axe in headless Chromium: can all people use them?

usage: python launch/check_pages.py PAGE.html ... [--pictures=FOLDER]

Each page is looked at 380 and 1280 px wide, light and dark. Prints what axe
finds and whether a page is wider than the window; --pictures keeps what was
seen as PNG, and in print as PDF. Exit code 1: something was found.

Needs Chromium or Chrome on the PATH (or CHROMIUM=its path) and
`pip install axe-playwright-python`, which brings axe and the browser's remote
control.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

WIDTHS_PX = (380, 1280)
LOOKS = ("light", "dark")


def find_browser() -> str | None:
  """Returns the path of Chromium or Chrome; None where there is none."""
  named = os.environ.get("CHROMIUM")
  usual = ("chromium", "chromium-browser", "google-chrome", "chrome")
  names = (named,) if named else usual
  return next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def start_browser() -> Iterator[Any]:
  """Gives a playwright browser, headless."""
  from playwright.sync_api import sync_playwright

  with sync_playwright() as remote:
    # Without its sandbox Chromium runs as root and in containers, too; the
    # pages are our own.
    browser = remote.chromium.launch(
      executable_path=find_browser(), args=["--no-sandbox"]
    )
    yield browser
    browser.close()


@contextlib.contextmanager
def open_page(
  browser: Any, path: pathlib.Path, width_px: int, look: str = "light"
) -> Iterator[Any]:
  """Gives a playwright page that shows a file."""
  context = browser.new_context(
    viewport={"width": width_px, "height": 900},
    color_scheme=look,
    reduced_motion="reduce",
    # The pages allow no script but their own, and axe is one.
    bypass_csp=True,
  )
  page = context.new_page()
  page.goto(path.resolve().as_uri())
  yield page
  context.close()


def find_faults(page: Any) -> list[str]:
  """Returns what axe finds, one line per place, and what sticks out."""
  from axe_playwright_python.sync_playwright import Axe

  faults = [
    f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html'][:120]}"
    for rule in Axe().run(page).response["violations"]
    for node in rule["nodes"]
  ]
  shown, wide = page.evaluate(
    "[document.documentElement.clientWidth,"
    " document.documentElement.scrollWidth]"
  )
  if wide > shown:
    faults.append(f"page: found {wide} px of width, expected {shown}")
  return faults


def keep_pictures(page: Any, stem: pathlib.Path):
  """Writes the page as it is seen, and as it is printed."""
  page.screenshot(path=f"{stem}.png", full_page=True)
  page.pdf(path=f"{stem}.pdf", format="A4", prefer_css_page_size=True)


def main() -> int:
  """Checks the pages; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("pages", nargs="+", type=pathlib.Path)
  parser.add_argument("--pictures", type=pathlib.Path)
  request = parser.parse_args()
  for path in request.pages:
    if not path.is_file():
      parser.error(f"{path}: found no file, expected a page")
  if importlib.util.find_spec("axe_playwright_python") is None:
    parser.error("expected also: pip install axe-playwright-python")
  if find_browser() is None:
    parser.error("found no Chromium on the PATH, expected one, or CHROMIUM=it")
  if request.pictures:
    request.pictures.mkdir(parents=True, exist_ok=True)
  num_faults = 0
  with start_browser() as browser:
    for number, path in enumerate(request.pages, 1):
      for width_px in WIDTHS_PX:
        for look in LOOKS:
          with open_page(browser, path, width_px, look) as page:
            faults = find_faults(page)
            if request.pictures:
              name = f"{number}_{path.stem}_{width_px}_{look}"
              keep_pictures(page, request.pictures / name)
          print(f"{path}: {width_px} px, {look}: {len(faults)} faults")
          print("".join(f"  {fault}\n" for fault in faults), end="")
          num_faults += len(faults)
  return int(num_faults > 0)


if __name__ == "__main__":
  sys.exit(main())
