"""Files that are one picture each and not among what `predict` lists."""

import pathlib
import zlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from dicexmbd_jax import memory
from dicexmbd_jax.io import folders, listing
from dicexmbd_jax.io.listing import natural_key
from dicexmbd_jax.types import ImageSource

PNG = (".png",)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_SHRINK = 1100  # Deflate reaches 1032.
# In memory at once; where colours of a palette are looked up, 40.
_VALUE_BYTES = {"I": 4, "F": 4, "P": 40}


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
    found = folders.match_pattern(path)
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


def list_images_or_png(
  pattern: str | pathlib.Path,
) -> tuple[list[ImageSource], list[listing.Failure]]:
  """Lists what listing.list_images lists; PNG where no such file is there.

  Of a folder of PNG subfolders are not looked at. PNG that are left out beside
  images are told.

  Raises:
    ValueError: nothing is there.
  """
  sources = list_pictures(pattern, PNG)
  try:
    found, failures = listing.list_images(pattern)
  except ValueError:
    if not sources:
      raise
    return sources, []
  places = [one.path.parent for one in found] + [
    one.parent for one, _ in failures
  ]
  folder = pathlib.Path(pattern).expanduser()
  if sources and folder.is_dir() and folder not in places:
    return sources, []
  if sources:
    logging.info("%s: %d .png left out beside images", pattern, len(sources))
  return found, failures


class _DepthError(ValueError):
  """More bits than Pillow reads; the line is clear already."""


def read_png(path: pathlib.Path) -> np.ndarray:
  """Reads the pixels of a PNG: (y, x), or (y, x, c) of colours.

  A palette of colours is looked up, unless two of its entries in use are equal:
  then their numbers count.

  Raises:
    ValueError: missing or broken file, or too large a picture.
  """
  import PIL.Image

  limit_px = PIL.Image.MAX_IMAGE_PIXELS
  try:
    data = path.read_bytes()
    _check_sums(data)
    PIL.Image.MAX_IMAGE_PIXELS = None  # Our own limit is in its place.
    if data[24] == 16 and data[25] != 0:  # IHDR: depth, and more than grey.
      raise _DepthError(
        f"{path}: found 16 bits of colour or alpha, expected 8, or grey alone"
      )
    with PIL.Image.open(path) as picture:
      width, height = picture.size
      num_values = width * height * len(picture.getbands())
      num_bytes = num_values * _VALUE_BYTES.get(picture.mode, 1)
      memory.check_size(path, f"{width} x {height} pixels", num_bytes)
      if num_values > 8 * _MAX_SHRINK * len(data):  # A bit each, at least.
        raise ValueError(f"{len(data)} bytes for {width} x {height} pixels")
      if picture.mode != "P":
        has_clear = "transparency" in picture.info  # One colour or shade.
        alike = {"L": "LA", "RGB": "RGBA"}.get(picture.mode)
        return np.asarray(picture.convert(alike) if has_clear else picture)
      pixels = np.asarray(picture)
      colours = np.asarray(
        picture.convert("RGBA" if "transparency" in picture.info else "RGB")
      )
  except (MemoryError, memory.TooLargeError, _DepthError):
    raise
  except Exception as error:  # Damage makes Pillow fail in any way.
    raise ValueError(
      f"{path}: found an unreadable PNG ({error}), expected a whole one"
    ) from error
  finally:
    PIL.Image.MAX_IMAGE_PIXELS = limit_px
  num_colours = len(np.unique(pack_colours(colours)))
  return colours if num_colours == len(np.unique(pixels)) else pixels


def read_numbers(path: pathlib.Path) -> np.ndarray | None:
  """Reads the numbers of the colours in a PNG's palette, (y, x).

  Args:
    path: a file that read_png has read.

  Returns:
    None where the picture has no palette.
  """
  import PIL.Image

  if path.suffix.lower() not in PNG:
    return None
  with PIL.Image.open(path) as picture:
    return np.asarray(picture) if picture.mode == "P" else None


def pack_colours(pixels: np.ndarray) -> np.ndarray:
  """Returns a number for each colour, uint64 (y, x); 0 for black, transparent.

  Args:
    pixels: (y, x, 2 to 4): grey or red, green, blue; alpha last.
  """
  shades = pixels[..., : 3 if pixels.shape[2] > 2 else 1].astype(np.uint64)
  packed = np.zeros(pixels.shape[:2], np.uint64)
  for k in range(shades.shape[2]):
    packed = packed << np.uint64(16) | shades[..., k]
  if pixels.shape[2] in (2, 4):
    packed[pixels[..., -1] == 0] = 0
  return packed


def _check_sums(data: bytes) -> None:
  """Checks the chunks' checksums: Pillow does not look at those of pixels.

  Raises:
    ValueError: a chunk is damaged or missing; it does not name the file.
  """
  at, name = len(_SIGNATURE), b""
  if not data.startswith(_SIGNATURE):
    raise ValueError("no PNG signature")
  while name != b"IEND":
    end = at + 8 + int.from_bytes(data[at : at + 4], "big")
    name = data[at + 4 : at + 8]
    found = zlib.crc32(data[at + 4 : end])
    if end + 4 > len(data) or found.to_bytes(4, "big") != data[end : end + 4]:
      raise ValueError(f"a damaged chunk at byte {at}")
    at = end + 4
