"""Puts an acquisition's pixels, a list with coordinates, in their places."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64

from dicexmbd_jax import storage
from dicexmbd_jax.types import Stack

_FARTHEST = 1 << 24  # Beyond it, float32 cannot tell neighbours apart.


@dataclasses.dataclass(frozen=True)
class Places:
  """Where the pixels of a list lie; each place is taken at most once.

  Attributes:
    index: of each pixel, row * width + column.
    shape: height and width of the image.
    gap: row and column of the first place without a pixel; None if all are
      taken.
  """

  index: Int64[np.ndarray, " n"]
  shape: tuple[int, int]
  gap: tuple[int, int] | None

  @property
  def num_missing(self) -> int:
    """How many places have no pixel."""
    return math.prod(self.shape) - len(self.index)

  def fill(self, pieces: Iterable[np.ndarray], num_channels: int) -> Stack:
    """Makes the image of a list of pixels; gaps are zero.

    A channel's pixels lie side by side. A large image lies in a file.

    Args:
      pieces: of the list, (channel, pixel), in its order.
      num_channels: of each piece.
    """
    planes = storage.allocate(
      (num_channels, math.prod(self.shape)), np.float32, storage.STACK_BYTES
    )
    start = 0
    for piece in pieces:
      index = self.index[start : start + piece.shape[1]]
      start += len(index)
      for plane, counts in zip(planes, piece, strict=True):
        plane[index] = counts
    return np.moveaxis(planes.reshape(num_channels, *self.shape), 0, -1)


def find_places(
  x: np.ndarray,
  y: np.ndarray,
  shown: pathlib.Path,
  shape: tuple[int, int] | None = None,
) -> Places:
  """Checks the coordinates of a list of pixels, one or more, strip by strip.

  Args:
    x: of each pixel.
    y: of each pixel.
    shown: the file's name in messages.
    shape: height and width of the image; None for the smallest that holds all.

  Raises:
    ValueError: coordinates that are no whole numbers from 0, that lie outside
      the shape, or that come twice.
  """
  parts = list(storage.cut_strips(x.shape, 16))
  for part in parts:
    is_bad = ~(_is_index(x[part]) & _is_index(y[part]))
    if is_bad.any():
      raise ValueError(
        f"{shown}: found a pixel at {_name(x[part], y[part], is_bad)}, "
        "expected whole numbers from 0"
      )
  height, width = shape or (int(y.max()) + 1, int(x.max()) + 1)
  for part in parts:
    is_bad = (y[part] >= height) | (x[part] >= width)
    if is_bad.any():
      raise ValueError(
        f"{shown}: found a pixel at {_name(x[part], y[part], is_bad)}, "
        f"expected x below {width} and y below {height}"
      )
  index = storage.allocate(x.shape, np.int64)
  for part in parts:
    index[part] = y[part].astype(np.int64) * width + x[part].astype(np.int64)
  order = _sort(index)
  for part in parts:
    these = order[part.start : part.stop + 1]
    is_bad = these[1:] == these[:-1]
    if is_bad.any():
      row, column = divmod(int(these[np.argmax(is_bad)]), width)
      raise ValueError(
        f"{shown}: found more than one pixel at x {column}, y {row}, expected "
        "one at each place"
      )
  return Places(index, (height, width), _find_gap(order, height, width))


def _is_index(values: np.ndarray) -> np.ndarray:
  with np.errstate(invalid="ignore"):  # NaN is not.
    is_inside = (values >= 0) & (values < _FARTHEST)
    return is_inside & (values == np.floor(values))


def _name(x: np.ndarray, y: np.ndarray, is_bad: np.ndarray) -> str:
  first = int(np.argmax(is_bad))
  return f"x {x[first]:g}, y {y[first]:g}"


def _sort(index: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
  """Returns places in order: themselves where they are, as in most files."""
  for part in storage.cut_strips(index.shape, 8):
    these = index[part.start : part.stop + 1]
    if (these[1:] < these[:-1]).any():
      break
  else:
    return index
  order = storage.allocate(index.shape, np.int64)
  order[...] = index
  order.sort()
  return order


def _find_gap(
  order: Int64[np.ndarray, " n"], height: int, width: int
) -> tuple[int, int] | None:
  """Finds the first place that sorted places leave out."""
  if len(order) == height * width:
    return None
  first = len(order)
  for part in storage.cut_strips(order.shape, 16):
    is_shifted = order[part] != np.arange(part.start, part.stop)
    if is_shifted.any():
      first = part.start + int(np.argmax(is_shifted))
      break
  return divmod(first, width)
