"""Reads masks, of this project or of others."""

import pathlib

import numpy as np

from dicexmbd_jax import memory, storage
from dicexmbd_jax.io import pictures, tiff
from dicexmbd_jax.types import Labels

_MAX_LABEL = 2**31 - 1
# Most colours of a mask cover more pixels than this, and of a photo fewer.
_MIN_AREA_PX = 4


def read_labels(path: str | pathlib.Path) -> Labels:
  """Reads a mask of objects from TIFF or PNG.

  Integers of any width and whole floats will do, as will leading or trailing
  axes of length one. Ids are kept as they are, gaps included. In a PNG of
  colours each colour is an object, numbered in the order of red, green, blue;
  black and what is transparent are background.

  Args:
    path: the file.

  Returns:
    The labels, int32 (y, x), 0 for background.

  Raises:
    ValueError: missing, unreadable or truncated file, more than two axes,
      values that are negative, broken, not whole or beyond 31 bits; a PNG of
      colours that has no background, or as many colours as a photo.
  """
  path = pathlib.Path(path)
  data = _squeeze(_read_pixels(path), path)
  # Of one byte each, perhaps, in the file.
  memory.check_size(path, f"{data.shape} labels", 4 * data.size)
  return make_labels(data, path)


def make_labels(data: np.ndarray, place: str | pathlib.Path) -> Labels:
  """Returns whole numbers of any dtype as int32.

  Args:
    data: (y, x).
    place: where they are from, for the message.

  Raises:
    ValueError: values that are negative, broken, not whole or beyond 31 bits.
  """
  with np.errstate(invalid="ignore"):
    is_whole = data.dtype.kind in "bui" or (
      data.dtype.kind == "f" and bool(np.all(data == np.rint(data)))
    )
  low, high = data.min(initial=0), data.max(initial=0)
  if not (is_whole and low >= 0 and high <= _MAX_LABEL):
    raise ValueError(
      f"{place}: found {data.dtype} pixels from {low} to {high}, expected "
      f"whole labels from 0 to {_MAX_LABEL}"
    )
  labels = storage.allocate(data.shape, np.int32)
  labels[...] = data
  return labels


def _read_pixels(path: pathlib.Path) -> np.ndarray:
  if path.suffix.lower() not in pictures.PNG:
    return tiff.read_pixels(path)
  pixels = pictures.read_png(path)
  is_colour = pixels.ndim == 3 and pixels.shape[2] in (2, 3, 4)
  return _number_colours(pixels, path) if is_colour else pixels


def _number_colours(pixels: np.ndarray, path: pathlib.Path) -> np.ndarray:
  """Numbers the colours of a picture; a grey one's are its labels already."""
  packed = pictures.pack_colours(pixels)
  shades = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
  if (shades == shades[..., :1]).all():
    return np.where(packed > 0, shades[..., 0], 0)
  values, numbers, areas = np.unique(
    packed, return_inverse=True, return_counts=True
  )
  if np.median(areas) < _MIN_AREA_PX:
    raise ValueError(
      f"{path}: found {len(values)} colours in {packed.size} pixels, expected "
      "one colour for each cell: a photo or an overlay is no mask"
    )
  if values[0] != 0:
    raise ValueError(
      f"{path}: found no black and no transparent pixel among {len(values)} "
      "colours, expected the background to be either"
    )
  return numbers.reshape(packed.shape)


def _squeeze(data: np.ndarray, path: pathlib.Path) -> np.ndarray:
  plane = data
  if data.ndim == 3 and data.shape[2] == 1:
    plane = data[..., 0]
  elif data.ndim == 3 and data.shape[1] == 1:
    # A mask has one plane: what reads as a stack one pixel wide was (y, x, 1).
    plane = data[:, 0].T
  if plane.ndim != 2:
    raise ValueError(
      f"{path}: found pixels of shape {data.shape}, expected one plane (y, x)"
    )
  return plane
