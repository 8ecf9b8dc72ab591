"""Files that are one picture each and not among what `predict` lists."""

import glob
import pathlib
from collections.abc import Sequence

import numpy as np

from dicexmbd_jax.io import listing
from dicexmbd_jax.io.listing import natural_key
from dicexmbd_jax.types import ImageSource

PNG = (".png",)


def list_pictures(
  pattern: str | pathlib.Path, suffixes: Sequence[str]
) -> list[ImageSource]:
  """Lists the files of some types that a file, a folder or a glob stands for.

  Args:
    pattern: a file, a folder (without its subfolders), or a glob.
    suffixes: in lower case, as ".h5".

  Returns:
    One source per file, in natural order of their stems; none if there are no
    such files. Hidden files are left out.
  """
  path = pathlib.Path(pattern).expanduser()
  if path.is_dir():
    found = list(path.iterdir())
  elif path.is_file():
    found = [path]
  else:
    found = [pathlib.Path(one) for one in glob.glob(str(path), recursive=True)]
  sources = [
    ImageSource(one.stem, one)
    for one in sorted(found)
    if one.suffix.lower() in suffixes
    and one.is_file()
    and not one.name.startswith(".")
  ]
  return sorted(sources, key=lambda source: natural_key(source.stem))


def list_with_images(
  pattern: str | pathlib.Path, suffixes: Sequence[str]
) -> tuple[list[ImageSource], list[listing.Failure]]:
  """Lists what listing.list_images lists, and files of some types more.

  Of a folder that holds such files itself, subfolders count no more than where
  it holds images.

  Returns:
    As listing.list_images; files that share a stem are failures.

  Raises:
    ValueError: nothing is there.
  """
  sources = list_pictures(pattern, suffixes)
  try:
    found, failures = listing.list_images(pattern, suffixes)
  except ValueError:
    if not sources:
      raise
    found, failures = [], []
  folder = pathlib.Path(pattern).expanduser()
  if sources and folder.is_dir():
    found = [source for source in found if source.path.parent == folder]
    failures = [one for one in failures if folder == one[0].parent]
  both = listing.drop_duplicates([*found, *sources], failures)
  return sorted(both, key=lambda source: natural_key(source.stem)), failures


def read_png(path: pathlib.Path) -> np.ndarray:
  """Reads the pixels of a PNG: (y, x), or (y, x, c) of colours.

  Raises:
    ValueError: missing or broken file.
  """
  import PIL.Image

  try:
    with PIL.Image.open(path) as picture:
      return np.asarray(picture)
  except MemoryError:
    raise
  except Exception as error:  # Damage makes Pillow fail in any way.
    raise ValueError(
      f"{path}: found an unreadable PNG ({error}), expected a whole one"
    ) from error
