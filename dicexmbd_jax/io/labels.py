"""Reads masks, of this project or of others."""

import pathlib

import numpy as np

from dicexmbd_jax.io import pictures, tiff
from dicexmbd_jax.types import Labels

_MAX_LABEL = 2**31 - 1


def read_labels(path: str | pathlib.Path) -> Labels:
  """Reads a mask of objects from TIFF or PNG.

  Integers of any width and whole floats will do, as will leading or trailing
  axes of length one. Ids are kept as they are, gaps included.

  Args:
    path: the file.

  Returns:
    The labels, int32 (y, x), 0 for background.

  Raises:
    ValueError: missing, unreadable or truncated file, more than two axes,
      values that are negative, broken, not whole or beyond 31 bits.
  """
  path = pathlib.Path(path)
  data = _squeeze(_read_pixels(path), path)
  with np.errstate(invalid="ignore"):
    is_whole = data.dtype.kind in "bui" or bool(np.all(data == np.rint(data)))
  low, high = data.min(initial=0), data.max(initial=0)
  if not (is_whole and low >= 0 and high <= _MAX_LABEL):
    raise ValueError(
      f"{path}: found {data.dtype} pixels from {low} to {high}, expected whole "
      f"labels from 0 to {_MAX_LABEL}"
    )
  return np.ascontiguousarray(data, dtype=np.int32)


def _read_pixels(path: pathlib.Path) -> np.ndarray:
  is_png = path.suffix.lower() in pictures.PNG
  return pictures.read_png(path) if is_png else tiff.read_pixels(path)


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
