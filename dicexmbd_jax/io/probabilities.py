"""Reads probability maps, of this project or of Ilastik and its like."""

import numpy as np

from dicexmbd_jax.io import hdf5, tiff
from dicexmbd_jax.io.source import open_source
from dicexmbd_jax.types import ImageSource

# Below these, what is read as probability is none: 1 is the sum of three maps.
_MIN_MEAN_SUM = 0.3
_MIN_HIGHEST = 0.02


def read_probabilities(source: ImageSource) -> np.ndarray:
  """Reads two or three maps: TIFF, YXS or CYX, compressed or not, or HDF5.

  Args:
    source: the file, or a member of a zip archive. Axes of an HDF5 file are
      those of its `axistags`.

  Returns:
    (y, x, c) in the file's dtype, native byte order: nucleus,
    membrane/cytoplasm and, where c is 3, background.

  Raises:
    ValueError: missing, truncated or broken file, or another number of maps.
      One line: file, found, expected.
  """
  shown = source.path / source.member if source.member else source.path
  with open_source(source.path, source.member) as path:
    try:
      is_hdf5 = shown.suffix.lower() in hdf5.SUFFIXES
      pixels = (hdf5 if is_hdf5 else tiff).read_pixels(path)
    except ValueError as error:
      message = str(error).replace(str(path), str(shown))
      raise ValueError(message) from error
  pixels = _order_maps(pixels)
  if pixels.shape[2] not in (2, 3):
    raise ValueError(
      f"{shown}: found {pixels.shape[2]} planes of {pixels.shape[:2]}, "
      "expected 2 or 3 maps: nucleus, membrane, background"
    )
  native = pixels.dtype.newbyteorder("=")
  return np.ascontiguousarray(pixels, dtype=native)


def read_pixel_size(source: ImageSource) -> float | None:
  """Returns the edge of a map's pixels in um; None where nothing tells it."""
  with open_source(source.path, source.member) as path:
    return tiff.read_pixel_size(path)


def check_scale(pixels: np.ndarray) -> None:
  """Raises a ValueError for whole numbers that are counts, not probabilities.

  The highest value of the dtype stands for 1. Of three maps each pixel's sum
  is about 1, and of two at least some pixel has some signal, unless there is
  none at all; counts of ions are far below both.
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


def _order_maps(pixels: np.ndarray) -> np.ndarray:
  """Puts the maps last where a file without axes had them last: (y, x, 3).

  Such a file reads as y planes of x by 3 pixels.
  """
  if pixels.shape[2] not in (2, 3) and pixels.shape[1] in (2, 3):
    return pixels.transpose(2, 0, 1)
  return pixels
