"""The site of docs/ and the docstrings: builds, every link leads somewhere."""

import html.parser
import pathlib
import shutil
import subprocess
import sys
import urllib.parse

import pytest

import dicexmbd_jax as dx

for package in ("sphinx", "furo", "myst_nb"):
  pytest.importorskip(package)
pytestmark = pytest.mark.slow
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
# What a browser fetches to show a page, by tag; a link is followed by people.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}


class Page(html.parser.HTMLParser):
  """Collects ids, links, and what is loaded."""

  def __init__(self, path):
    super().__init__()
    self.ids, self.links, self.loaded = {""}, set(), set()
    self.feed(path.read_text())

  def handle_starttag(self, tag, attrs):
    values = dict(attrs)
    self.ids.add(values.get("id"))
    if tag == "a" and "href" in values:
      self.links.add(values["href"])
    if tag in LOADED:
      self.loaded.add(values.get(LOADED[tag]) or "")


def build(source, output):
  call = ["-b", "html", "-E", "-W", "--keep-going", "-q"]
  return subprocess.run(
    [sys.executable, "-m", "sphinx", *call, str(source), str(output)],
    capture_output=True,
    text=True,
    cwd=DOCS.parent,
  )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  folder = tmp_path_factory.mktemp("site")
  done = build(DOCS, folder)
  assert done.returncode == 0, done.stderr
  return {
    path.relative_to(folder).as_posix(): Page(path)
    for path in folder.rglob("*.html")
  }, folder


def test_every_page_is_there_and_reached(site):
  pages, _ = site
  wanted = {
    path.relative_to(DOCS).with_suffix(".html").as_posix()
    for kind in ("*.md", "*.ipynb")
    for path in DOCS.rglob(kind)
  }
  assert wanted <= set(pages)
  links = {link.partition("#")[0] for link in pages["index.html"].links}
  assert wanted - {"index.html"} <= links


def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site):
  pages, folder = site
  for name, page in pages.items():
    for link in page.links | page.loaded:
      target = urllib.parse.urlsplit(link)
      if target.scheme in ("http", "https"):
        assert link not in page.loaded, f"{name}: {link}"
      if target.scheme or not link:
        continue
      path = folder / name
      if target.path:
        path = path.parent / urllib.parse.unquote(target.path)
      assert path.is_file(), f"{name}: {link}"
      if path.suffix == ".html":
        found = pages[path.resolve().relative_to(folder).as_posix()].ids
        assert urllib.parse.unquote(target.fragment) in found, f"{name}: {link}"


def test_all_that_is_public_is_in_the_reference(site):
  pages, _ = site
  names = {f"dicexmbd_jax.{name}" for name in dx.__all__}
  assert names <= pages["reference.html"].ids
  assert "dicexmbd_jax.Segmenter.segment" in pages["reference.html"].ids


def test_broken_links_fail_the_build(tmp_path):
  shutil.copy(DOCS / "conf.py", tmp_path)
  text = "# Title\n\n[a](none.md) [b](#no-such-heading) ![c](none.png)\n"
  (tmp_path / "index.md").write_text(text)
  done = build(tmp_path, tmp_path / "out")
  assert done.returncode != 0
  for said in ("none.md", "no-such-heading", "none.png"):
    assert said in done.stderr
