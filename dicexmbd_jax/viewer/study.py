"""Finds what a path offers to look at: images, and what was made of them."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterator, Mapping

from dicexmbd_jax.io import listing, metadata
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.types import ImageSource, Panel

Path = pathlib.Path

# Subfolders that hold results, here and (with a tag) in steinbock.
_RESULTS = ("masks*", "nuclei", "probabilities", "uncertainty")
_RAW = ("img", "raw")  # Where steinbock has the images.


@dataclasses.dataclass(frozen=True)
class Study:
  """Images and results under one path.

  Attributes:
    path: what was opened.
    images: by stem, in natural order; None where only results are there.
    results: the folder of masks, tables and corrections; None without any.
    panel: what the channels are; None where none was found.
    warnings: what cannot be shown, one line each.
    place: where the images are listed, as commands' --images has it; None where
      only results are there.
    pixel_size_um: of all images, as the run that made the results was told;
      None: as each file says.
  """

  path: Path
  images: Mapping[str, ImageSource | None]
  results: Path | None = None
  panel: Panel | None = None
  warnings: tuple[str, ...] = ()
  place: Path | str | None = None
  pixel_size_um: float | None = None


def find_study(path: str | Path) -> Study:
  """Finds the images and the results that a file or a folder offers.

  Args:
    path: an image file; or a folder: of images, of results (whose images are
      found where the run had them), or of a steinbock project.

  Raises:
    ValueError: neither images nor results are there; one line.
  """
  path = Path(path).expanduser().absolute()
  results = path if path.is_dir() and _list_results(path) else None
  place, panel_path = _find_images(path, results)
  lines: list[str] = []
  panel = _read_panel(panel_path, lines)
  images: dict[str, ImageSource | None] = {}
  if place is not None:
    sources, lost = listing.list_stacks(place, panel)
    images = {source.stem: source for source in sources}
    lines += [line for _, line in lost]
  else:
    lines.append(f"{path}: found no images, expected those of its masks in img")
  stems = _list_stems(results) if results else set()
  for stem in sorted(stems - set(images), key=listing.natural_key):
    images[stem] = None
  if not images:
    raise ValueError(lines[0] if lines else f"{path}: found no image")
  size_um = _read_pixel_size(results) if results else None
  return Study(path, images, results, panel, tuple(lines), place, size_um)


def _list_results(folder: Path) -> list[Path]:
  found = [one for kind in _RESULTS for one in sorted(folder.glob(kind))]
  return [one for one in found if one.is_dir()]


def _list_stems(folder: Path) -> set[str]:
  return {
    listing.get_stem(file)
    for results in _list_results(folder)
    for file in results.iterdir()
    if file.suffix.lower() in (".tif", ".tiff") and file.name[0] != "."
  }


def _find_images(
  path: Path, results: Path | None
) -> tuple[Path | str | None, Path | None]:
  """Returns where a path's images and their panel lie."""
  if not path.is_dir():
    return path, _find_panel(path.parent)
  for name in _RAW:
    if (path / name).is_dir():
      return path / name, _find_panel(path / name)
  if results is None:
    return path, _find_panel(path)
  return _read_call(results)


def _find_panel(folder: Path) -> Path | None:
  """Returns the panel.csv in a folder or the one that holds it."""
  for place in (folder, folder.parent):
    if (place / "panel.csv").is_file():
      return place / "panel.csv"
  return None


def _read_call(results: Path) -> tuple[str | None, Path | None]:
  """Returns --images and --panel of the run that made a folder, if they exist.

  They may be relative to where the run was started: a folder above the results,
  the nearest first, or the working folder, which may be another project's.
  """
  flags = dict(_split_flags(results / "run.json"))
  places = [*results.absolute().parents, Path.cwd()]
  found: dict[str, Path] = {}
  for name in ("images", "panel"):
    options = [place / flags[name] for place in places if name in flags]
    for option in options:
      if option.exists():
        found[name] = option
        break
  images = found.get("images")
  panel = found.get("panel") or _find_panel(results)
  return None if images is None else str(images), panel


def _read_pixel_size(results: Path) -> float | None:
  """Returns --pixel_size_um of the run that made a folder; None without it.

  Not from its command, since that of a merge does not repeat it.
  """
  record = results / "run.json"
  try:
    told = json.loads(record.read_text())["hashes"]["pixel_size_um"]
    size_um = float(told)
    metadata.check_pixel_size(str(record), size_um)
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return size_um


def _split_flags(record: Path) -> Iterator[tuple[str, str]]:
  """Yields names and values of the flags of a run's command."""
  try:
    command = json.loads(record.read_text())["command"]
    words = shlex.split(command)
  except (OSError, ValueError, KeyError, TypeError):
    return
  for word, following in zip(words, [*words[1:], ""], strict=True):
    name, has_value, value = word.lstrip("-").partition("=")
    if word.startswith("-"):
      yield name, value if has_value else following


def _read_panel(path: Path | None, lines: list[str]) -> Panel | None:
  if path is None:
    return None
  try:
    return read_panel(path)
  except (ValueError, OSError) as error:
    lines.append(str(error))
    return None
