"""Puts an acquisition's pixels, a list with coordinates, in their places."""

import dataclasses
import pathlib

import numpy as np

from dicexmbd_jax.types import Stack

_FARTHEST = 1 << 24  # Beyond it, float32 cannot tell neighbours apart.


@dataclasses.dataclass(frozen=True)
class Places:
  """Where the pixels of a list lie; each place is taken at most once.

  Attributes:
    rows: of each pixel, from 0.
    columns: of each pixel, from 0.
    shape: height and width of the image.
    gap: row and column of the first place without a pixel; None if all are
      taken.
  """

  rows: np.ndarray
  columns: np.ndarray
  shape: tuple[int, int]
  gap: tuple[int, int] | None

  @property
  def num_missing(self) -> int:
    """How many places have no pixel."""
    return self.shape[0] * self.shape[1] - len(self.rows)

  def fill(self, counts: np.ndarray) -> Stack:
    """Makes the image of a (pixel, channel) table; gaps are zero."""
    stack = np.zeros((*self.shape, counts.shape[1]), np.float32)
    stack[self.rows, self.columns] = counts
    return stack


def find_places(
  x: np.ndarray,
  y: np.ndarray,
  shown: pathlib.Path,
  shape: tuple[int, int] | None = None,
) -> Places:
  """Checks the coordinates of a list of pixels, one or more.

  Args:
    x: of each pixel.
    y: of each pixel.
    shown: the file's name in messages.
    shape: height and width of the image; None for the smallest that holds all.

  Raises:
    ValueError: coordinates that are no whole numbers from 0, that lie outside
      the shape, or that come twice.
  """
  is_bad = ~(_is_index(x) & _is_index(y))
  if is_bad.any():
    raise ValueError(
      f"{shown}: found a pixel at {_name(x, y, is_bad)}, expected whole "
      "numbers from 0"
    )
  columns, rows = x.astype(np.int64), y.astype(np.int64)
  height, width = shape or (int(rows.max()) + 1, int(columns.max()) + 1)
  is_bad = (rows >= height) | (columns >= width)
  if is_bad.any():
    raise ValueError(
      f"{shown}: found a pixel at {_name(x, y, is_bad)}, expected x below "
      f"{width} and y below {height}"
    )
  order = np.sort(rows * width + columns)
  is_bad = order[1:] == order[:-1]
  if is_bad.any():
    row, column = divmod(int(order[np.argmax(is_bad)]), width)
    raise ValueError(
      f"{shown}: found more than one pixel at x {column}, y {row}, expected "
      "one at each place"
    )
  return Places(rows, columns, (height, width), _find_gap(order, height, width))


def _is_index(values: np.ndarray) -> np.ndarray:
  with np.errstate(invalid="ignore"):  # NaN is not.
    is_inside = (values >= 0) & (values < _FARTHEST)
    return is_inside & (values == np.floor(values))


def _name(x: np.ndarray, y: np.ndarray, is_bad: np.ndarray) -> str:
  first = int(np.argmax(is_bad))
  return f"x {x[first]:g}, y {y[first]:g}"


def _find_gap(
  order: np.ndarray, height: int, width: int
) -> tuple[int, int] | None:
  """Finds the first place that sorted places leave out."""
  if len(order) == height * width:
    return None
  is_shifted = order != np.arange(len(order))
  first = int(np.argmax(is_shifted)) if is_shifted.any() else len(order)
  return divmod(first, width)
