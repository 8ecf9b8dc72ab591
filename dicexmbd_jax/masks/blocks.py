"""Large planes cut into windows whose results do not depend on the cut."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax import storage
from dicexmbd_jax.types import Labels

Shape = tuple[int, int]
Sides = Bool[np.ndarray, "4"]  # Above, below, left, right.


@dataclasses.dataclass(frozen=True)
class Window:
  """Rows top..bottom and columns left..right of a plane; the ends are out."""

  top: int
  bottom: int
  left: int
  right: int

  @property
  def slices(self) -> tuple[slice, slice]:
    """The window as an index of the plane."""
    return slice(self.top, self.bottom), slice(self.left, self.right)

  @property
  def shape(self) -> Shape:
    """Its rows and columns."""
    return self.bottom - self.top, self.right - self.left

  def expand(self, margin: int, shape: Shape) -> "Window":
    """Returns the window with a margin, cut at the edges of the plane."""
    return Window(
      max(self.top - margin, 0),
      min(self.bottom + margin, shape[0]),
      max(self.left - margin, 0),
      min(self.right + margin, shape[1]),
    )

  def intersect(self, other: "Window") -> "Window | None":
    """Returns what two windows share; None if that is nothing."""
    top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
    left, right = max(self.left, other.left), min(self.right, other.right)
    if top >= bottom or left >= right:
      return None
    return Window(top, bottom, left, right)

  def find_inside(self, outer: "Window") -> tuple[slice, slice]:
    """Returns the slices that cut this window out of a larger one."""
    return (
      slice(self.top - outer.top, self.bottom - outer.top),
      slice(self.left - outer.left, self.right - outer.left),
    )

  def list_open_sides(self, shape: Shape) -> Sides:
    """Tells whether the plane goes on above, below, left and right."""
    return np.array(
      [
        self.top > 0,
        self.bottom < shape[0],
        self.left > 0,
        self.right < shape[1],
      ]
    )


# Small blocks along the edge of a large one: its rows then still lie in the
# processor's cache, and its margin is an eighth of its pixels.
_NUM_TOGETHER = 2

# Of a set of the eight neighbours, one bit each, the first: -1 of none.
FIRST_BIT = np.array([(n & -n).bit_length() - 1 for n in range(256)], np.int8)

Solve = Callable[[Window, Sides, bool], Labels]


def cut_blocks(shape: Shape, block: int) -> Iterator[Window]:
  """Cuts a plane into square windows that do not overlap, in raster order."""
  for top in range(0, shape[0], block):
    bottom = min(top + block, shape[0])
    for left in range(0, shape[1], block):
      yield Window(top, bottom, left, min(left + block, shape[1]))


def solve_blocks(
  shape: Shape,
  block: int,
  solve: Solve,
) -> Labels:
  """Labels a plane block by block, each in a window with a margin.

  A pixel's label may depend on what lies far away. `solve` says so: it marks
  with a negative label what could still be decided from outside its window.
  The first blocks are large, so that little is solved twice. Those that have
  such pixels are solved again in small ones with twice the margin; where that
  does not do, in blocks of twice the size, then again twice, in the end on the
  whole plane. So the result is that of the whole plane, and what needs all of
  it (a constant map) is solved a few times, not once for each block.

  Args:
    shape: of the plane.
    block: edge of the small blocks; the first margin is an eighth of it.
    solve: from a window, its open sides (Window.list_open_sides) and whether
      a smaller one did not do, to labels.

  Returns:
    The labels, none negative.
  """
  labels = storage.allocate(shape, np.int32)
  margin = max(block // 8, 1)
  for core in cut_blocks(shape, _NUM_TOGETHER * block):
    labels[core.slices] = _solve_core(shape, core, margin, solve, False)
  while labels.size and labels.min() < 0:
    margin *= 2
    for core in cut_blocks(shape, block):
      found = labels[core.slices]
      if found.min() < 0:
        solved = _solve_core(shape, core, margin, solve, True)
        np.copyto(found, solved, where=found < 0)
    block *= 2
  return labels


def _solve_core(
  shape: Shape,
  core: Window,
  margin: int,
  solve: Solve,
  is_retry: bool,
) -> Labels:
  window = core.expand(margin, shape)
  solved = solve(window, window.list_open_sides(shape), is_retry)
  return solved[core.find_inside(window)]


def list_outer(is_open: Sides) -> list[tuple[Any, ...]]:
  """Returns the indices of a window's rows and columns on its open sides."""
  sides = np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]
  return list(itertools.compress(sides, is_open))
