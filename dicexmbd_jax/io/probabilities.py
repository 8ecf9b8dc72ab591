"""Reads probability maps, of this project or of Ilastik and its like."""

import re
from collections.abc import Sequence

import numpy as np

from dicexmbd_jax import storage
from dicexmbd_jax.io import hdf5, listing, pictures, tiff
from dicexmbd_jax.io.source import open_source
from dicexmbd_jax.types import Grid, ImageSource, Probabilities

# Below these, what is read as probability is none: 1 is the sum of three maps.
_MIN_MEAN_SUM = 0.3
_MIN_HIGHEST = 0.02
_MAX_SPREAD = 0.02  # Of sums that are one number, but for rounding.
_MAX_SUM_ERROR = 0.05  # As in train/records.py: mean |sum of the maps - 1|.

CLASSES = ("nucleus", "membrane", "background")
_SPELLINGS = {
  "nucleus": ("nuclear", "nuclei"),
  "membrane": ("cytoplasm", "membranecytoplasm", "cytoplasmmembrane"),
  "background": ("bg",),
  "other": (),
}


def list_maps(
  pattern: str,
) -> tuple[list[ImageSource], list[listing.Failure]]:
  """Lists maps: what `predict` lists, and HDF5 files.

  Raises:
    ValueError: nothing is there.
  """
  return pictures.list_with_images(pattern, hdf5.SUFFIXES)


def parse_classes(text: str | None) -> tuple[str, ...]:
  """Reads the order of the maps in a file, as background,nucleus,membrane.

  `other` stands for a map that is none of the three and is left out. Without a
  text the order is that of CLASSES.

  Raises:
    ValueError: an unknown class, one of them twice, or no nucleus or membrane.
  """
  if not text:
    return CLASSES
  classes = tuple(_parse_class(word, text) for word in text.split(","))
  named = [name for name in classes if name != "other"]
  has_both = {"nucleus", "membrane"} <= set(named)
  if len(set(named)) < len(named) or not has_both:
    raise ValueError(
      f"--classes: found {text}, expected nucleus, membrane and background (or "
      "other), each once"
    )
  return classes


def _parse_class(word: str, text: str) -> str:
  plain = re.sub(r"[\s_/\-]", "", word).lower()
  for name, others in _SPELLINGS.items():
    if plain == name or plain in others:
      return name
  raise ValueError(
    f"--classes: found {word.strip()!r} in {text}, expected "
    f"{', '.join(_SPELLINGS)}"
  )


def read_probabilities(
  source: ImageSource, classes: Sequence[str] = CLASSES
) -> np.ndarray:
  """Reads two or three maps: TIFF, YXS or CYX, compressed or not, or HDF5.

  Args:
    source: the file, or a member of a zip archive. Axes of an HDF5 file are
      those of its `axistags`.
    classes: what the maps are, in the file's order, as of parse_classes. In
      the order of CLASSES the last may be missing.

  Returns:
    (y, x, c) in the file's dtype, native byte order: nucleus,
    membrane/cytoplasm and, where c is 3, background.

  Raises:
    ValueError: missing, truncated or broken file, or another number of maps.
      One line: file, found, expected.
  """
  counts = (2, 3) if tuple(classes) == CLASSES else (len(classes),)
  shown = source.path / source.member if source.member else source.path
  with open_source(source.path, source.member) as path:
    try:
      is_hdf5 = shown.suffix.lower() in hdf5.SUFFIXES
      pixels = (hdf5 if is_hdf5 else tiff).read_pixels(path)
    except ValueError as error:
      message = str(error).replace(str(path), str(shown))
      raise ValueError(message) from error
  pixels = _order_maps(pixels, counts)
  if pixels.shape[2] not in counts:
    raise ValueError(
      f"{shown}: found {pixels.shape[2]} planes of {pixels.shape[:2]}, "
      f"expected {' or '.join(map(str, counts))} maps: {', '.join(classes)}"
    )
  chosen = [classes.index(name) for name in CLASSES if name in classes]
  chosen = chosen[: pixels.shape[2]]
  return _lay_together(pixels, chosen)


def read_three_maps(source: ImageSource) -> Probabilities:
  """Reads three probability maps as probabilities, and refuses what are none.

  Integers are shares of their type's largest value, as Ilastik exports them;
  floats are probabilities.

  Args:
    source: TIFF or HDF5, see read_probabilities.

  Returns:
    Float32 (y, x, 3) in 0..1: nucleus, membrane/cytoplasm, background.

  Raises:
    ValueError: a file that cannot be read, another number of maps, values
      beyond 0..1 or not finite, or maps that do not sum to 1.
  """
  maps = read_probabilities(source)
  shown = source.path
  if maps.shape[2] != 3:
    raise ValueError(
      f"{shown}: found {maps.shape[2]} maps, expected 3: nucleus, membrane, "
      "background"
    )
  if maps.dtype.kind in "ui":
    maps = maps.astype(np.float32) / np.float32(np.iinfo(maps.dtype).max)
  maps = maps.astype(np.float32)
  low, high = maps.min(), maps.max()
  if not (low >= 0 and high <= 1 + 1e-4):  # NaN fails, too.
    raise ValueError(
      f"{shown}: found values from {low:g} to {high:g}, expected probabilities "
      "of 0 to 1 (as floats; integers up to their type's largest)"
    )
  error = float(np.abs(maps.sum(axis=2) - 1).mean())
  if error > _MAX_SUM_ERROR:
    raise ValueError(
      f"{shown}: found maps that miss a sum of 1 by {error:.2f} on average, "
      "expected three probabilities per pixel (wrong axes, or not such maps?)"
    )
  return np.minimum(maps, 1)


def read_pixel_size(source: ImageSource) -> float | None:
  """Returns the edge of a map's pixels in um; None where nothing tells it."""
  if source.path.suffix.lower() in hdf5.SUFFIXES:
    return None
  with open_source(source.path, source.member) as path:
    return tiff.read_pixel_size(path)


def read_image_grid(
  source: ImageSource, shape: tuple[int, int]
) -> tuple[float, Grid, int] | None:
  """Reads which grid the image has that maps of this project were made from.

  Args:
    source: the maps.
    shape: their rows and columns.

  Returns:
    The edge of a map's pixel in um, the image's grid, and the maps' map_scale
    (see masks.settings); None where nothing tells them, as in other programs'
    files, or where they do not fit the maps.
  """
  with open_source(source.path, source.member) as path:
    if path.suffix.lower() in hdf5.SUFFIXES:
      return None
    notes = tiff.read_notes(path)
  try:
    rows, columns = (int(size) for size in notes["image_shape_px"])
    map_um = float(notes["map_pixel_size_um"])
    grid = Grid((rows, columns), float(notes["image_pixel_size_um"]))
    map_scale = int(notes.get("map_scale", 1))
  except (KeyError, TypeError, ValueError):
    return None
  if not 0 < min(map_um, grid.pixel_size_um, rows, columns) < np.inf:
    return None
  factor = grid.pixel_size_um / map_um
  fits = all(
    abs(size * factor - maps) < 1
    for size, maps in zip(grid.shape_px, shape, strict=True)
  )
  return (map_um, grid, max(map_scale, 1)) if fits else None


def check_scale(pixels: np.ndarray) -> None:
  """Raises a ValueError for whole numbers that are counts, not probabilities.

  The highest value of the dtype stands for 1. Of three maps each pixel's sum
  is about 1, and of two at least some pixel has some signal, unless there is
  none at all; counts of ions are far below both. Shares whose 1 is another
  number, as 100, are refused as well.
  """
  if pixels.dtype not in (np.uint8, np.uint16) or not pixels.any():
    return
  top = np.iinfo(pixels.dtype).max
  if pixels.shape[2] == 3:
    found = float(pixels.mean(dtype=np.float64)) * 3 / top
    what, low = "a mean sum of the three maps of", _MIN_MEAN_SUM
  else:
    found, what, low = float(pixels.max()) / top, "values up to", _MIN_HIGHEST
  if found < low:
    raise ValueError(
      f"found {what} {found:.2g} ({top} = 1), expected probabilities; "
      "these look like counts"
    )
  if pixels.shape[2] == 3 and found < 1 - _MAX_SUM_ERROR:
    _check_sums(pixels, found)


def _check_sums(pixels: np.ndarray, found: float) -> None:
  """Raises a ValueError where three maps have another number for 1, as 100.

  Their sum is the same everywhere then, which it is not where other classes
  were left out.
  """
  top = np.iinfo(pixels.dtype).max
  for part in storage.cut_strips(pixels.shape, 4):
    sums = pixels[part].sum(axis=2, dtype=np.float32) / top
    if np.abs(sums - found).max() > _MAX_SPREAD:
      return
  raise ValueError(
    f"found three maps that sum to {found:.2g} at every pixel ({top} = 1), "
    f"expected a sum of 1; is about {found * top:.0f} meant as 1?"
  )


def _lay_together(pixels: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
  """Returns the chosen maps as (y, x, c), contiguous, in native byte order."""
  is_all = list(chosen) == list(range(pixels.shape[2]))
  if is_all and pixels.dtype.isnative and pixels.flags.c_contiguous:
    return pixels
  shape = (*pixels.shape[:2], len(chosen))
  maps = storage.allocate(shape, pixels.dtype.newbyteorder("="))
  for part in storage.cut_strips(shape, 2 * pixels.itemsize):
    maps[part] = pixels[part][..., chosen]
  return maps


def _order_maps(pixels: np.ndarray, counts: Sequence[int]) -> np.ndarray:
  """Puts the maps last where a file without axes had them last: (y, x, 3).

  Such a file reads as y planes of x by 3 pixels.
  """
  if pixels.shape[2] not in counts and pixels.shape[1] in counts:
    return pixels.transpose(2, 0, 1)
  return pixels
