"""Builds the sdist, and from it the wheel, as they go to PyPI, and checks them.

usage: python launch/release.py URL [FOLDER]   (FOLDER: default dist)

URL is where the project is published, as https://github.com/OWNER/dicexmbd_jax;
only a release knows it. PyPI shows README.md alone, so its links to other files
are made to lead there, to the tag of this version; the package's metadata name
the place, too. The checkout stays as it is. Needs the extra `dev`. Then:
python -m twine upload FOLDER/*
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from dicexmbd_jax import __version__  # noqa: E402

# What the archives are made of.
PARTS = ("pyproject.toml", "README.md", "LICENSE")
PAGES = {
  "Repository": "",
  "Documentation": "/tree/{tag}/docs",
  "Changelog": "/blob/{tag}/CHANGELOG.md",
  "Issues": "/issues",
}


def main(url: str, folder: str = "dist") -> None:
  """Builds and checks both archives; prints where they are.

  Raises:
    ValueError: no URL, a link of the README to no file.
    subprocess.CalledProcessError: no archive can be made, or it is not fit.
  """
  url, tag = url.rstrip("/"), f"v{__version__}"
  if not re.match(r"https://[^/]+/.", url):
    raise ValueError(f"found {url}, expected the project's https://...")
  with tempfile.TemporaryDirectory() as name:
    copy = pathlib.Path(name) / "dicexmbd_jax"
    copy_parts(copy)
    edit(copy / "README.md", lambda text: make_links_absolute(text, url, tag))
    edit(copy / "pyproject.toml", lambda text: add_pages(text, url, tag))
    run("build", f"--outdir={folder}", str(copy))
  made = sorted(pathlib.Path(folder).glob(f"dicexmbd_jax-{__version__}*"))
  run("twine", "check", "--strict", *map(str, made))
  print(*made, sep="\n")


def copy_parts(folder: pathlib.Path) -> None:
  """Copies what the archives are made of, so that no build is left here."""
  shutil.copytree(
    *(ROOT / "dicexmbd_jax", folder / "dicexmbd_jax"),
    ignore=shutil.ignore_patterns("__pycache__"),
  )
  for name in PARTS:
    shutil.copy(ROOT / name, folder)


def edit(path: pathlib.Path, change) -> None:
  """Changes a file's text."""
  path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def make_links_absolute(text: str, url: str, tag: str) -> str:
  """Makes the links of a Markdown text lead to a host, as GitHub has it.

  Args:
    text: its links are relative to the project's folder, or absolute.
    url: the project's address.
    tag: which version.

  Raises:
    ValueError: a link to no file.
  """

  def lengthen(match: re.Match) -> str:
    path = match[1]
    if not (ROOT / path).exists():
      raise ValueError(f"README.md: found a link to {path}, which is no file")
    kind = "raw" if path.endswith(".png") else "blob"
    return f"]({url}/{kind}/{tag}/{path}"

  return re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)", lengthen, text)


def add_pages(text: str, url: str, tag: str) -> str:
  """Adds the project's addresses to the text of pyproject.toml."""
  mark = "[project.urls]\n"
  lines = [f'{name} = "{url}{page}"\n' for name, page in PAGES.items()]
  return text.replace(mark, mark + "".join(lines).format(tag=tag))


def run(*words: str) -> None:
  """Runs a Python module; what it prints is shown."""
  subprocess.run([sys.executable, "-m", *words], check=True)


if __name__ == "__main__":
  try:
    main(*sys.argv[1:])
  except (TypeError, ValueError) as error:
    print(f"release.py: {error}", __doc__.splitlines()[2], file=sys.stderr)
    sys.exit(2)
  except subprocess.CalledProcessError as error:
    sys.exit(error.returncode)
