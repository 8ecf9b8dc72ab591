"""Watershed from markers: lowest first, then first in first out.

The order is that of scikit-image's watershed as CellProfiler 3 calls it.
Arrays are flat with a rim of one pixel: p = (y + 1) * (width + 2) + x + 1.
"""

import numpy as np
from jaxtyping import Bool, Int32, Int64
from scipy import ndimage

from dicexmbd_jax.masks.blocks import (
  FIRST_BIT,
  Sides,
  Window,
  list_outer,
  solve_blocks,
)
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.types import Labels

UNKNOWN = -1  # Label of what came, or may have come, in from outside.
_CLOSED = -2  # Label of what lies outside the mask, while flooding.
_DRY = 2**63 - 1  # Level of what no water reaches.


def spread_watershed(
  maps: WorkingMaps,
  seeds: Labels,
  mask: Bool[np.ndarray, "y x"],
  settings: Settings,
) -> Labels:
  """Floods the change of the foreground from the nuclei ("Watershed").

  Args:
    maps: the foreground; its change is the absolute Sobel filter along x, as
      CellProfiler takes it.
    seeds: 1..n.
    mask: where cells may be; seeds count as well.
    settings: block_px.

  Returns:
    Labels of the seeds; 0 where no seed reaches.
  """
  mask = mask | (seeds > 0)

  def flood(window: Window, is_open: Sides, is_retry: bool) -> Labels:
    del is_retry
    outer = window.expand(1, maps.shape)
    changes = np.abs(ndimage.sobel(maps.read_foreground(outer)))
    # Bit patterns of floats from 0 up are ordered as the floats are.
    levels = np.ascontiguousarray(changes[window.find_inside(outer)])
    return flood_markers(
      levels.view(np.int64),
      np.ascontiguousarray(seeds[window.slices]),
      np.ascontiguousarray(mask[window.slices]),
      is_open,
      True,
    )

  return solve_blocks(maps.shape, settings.block, flood)


def flood_markers(
  levels: Int64[np.ndarray, "y x"],
  markers: Labels,
  mask: Bool[np.ndarray, "y x"],
  is_open: Sides,
  has_order: bool,
) -> Labels:
  """Floods the mask from the markers.

  A pixel takes the label of the neighbour (of eight) that is flooded first.
  Pixels are flooded by level, equal ones in the order in which they were
  reached.

  Args:
    levels: int64 (y, x), at least 0; the lowest is flooded first.
    markers: int32 (y, x), 0 none.
    mask: bool (y, x); markers outside are ignored.
    is_open: bool (4,): whether the image goes on above, below, left, right.
      What could come in from there is flooded before all else.
    has_order: whether equal markers go in raster order. Else they go as they
      come off a binary heap, as scikit-image's do: that depends on all others.

  Returns:
    int32 (y, x): labels; 0 outside the mask and where no marker reaches,
    UNKNOWN where water from outside may come first.
  """
  height, stride = markers.shape[0], markers.shape[1] + 2
  labels, level = _lay_out(levels, markers, mask, is_open)
  # The kernel without ties' order is compiled only where it is needed.
  if not _settle(labels, level, stride):
    labels, level = _lay_out(levels, markers, mask, is_open)
    offsets = list_offsets(stride)
    # Each entry is a level, an age and a pixel; the first two decide.
    heap = np.empty((np.count_nonzero(labels != _CLOSED) + 1, 3), np.int64)
    _flood_in_order(labels, level, offsets, has_order, heap)
  flooded = labels.reshape(height + 2, stride)[1:-1, 1:-1].copy()
  flooded[flooded == _CLOSED] = 0
  return flooded


def _settle(
  labels: Int32[np.ndarray, " n"], level: Int64[np.ndarray, " n"], stride: int
) -> bool:
  """Floods without a queue what does not depend on the order of ties.

  Pixels are flooded in the order of their passes (_find_passes). So each takes
  the label of the neighbour with the lowest one. Where several have that, they
  must have the same label: if each pixel agrees with all its lowest neighbours,
  so it does with the one that is flooded first, whichever that is. Example,
  with markers 1 and 2 at the ends of a row:

      level 1 4 3 5 2    pass 1 4 4 5 2    label 1 1 1 2 2

  Args:
    labels: int32, flat, from _lay_out; flooded in place.
    level: int64, from _lay_out.
    stride: pixels per row, rim included.

  Returns:
    Whether no pixel depends on the order; else labels are of no use.
  """
  passes = np.where((labels > 0) | (labels == UNKNOWN), level, _DRY)
  # Rows that have changed in the turn before, and in this one.
  before, now = np.ones((2, labels.size // stride), bool)
  _lower_passes(passes, level, stride, before, now)
  offsets = list_offsets(stride)
  lower = np.zeros(labels.size, np.int32)
  count = np.count_nonzero(labels == 0)
  tied, level_ones, waiting = np.empty((3, count), np.int32)
  num_tied, num_level = _point_lower(
    labels, passes, stride, offsets, lower, tied, level_ones
  )
  _lead_out(level_ones[:num_level], lower, passes, offsets, waiting)
  return _follow_lower(labels, passes, lower, tied[:num_tied], offsets)


def list_offsets(stride: int) -> Int64[np.ndarray, "8"]:
  """Returns the steps to the neighbours, in scikit-image's order.

  Args:
    stride: pixels per row.
  """
  return np.array(
    [-stride, -1, 1, stride, -stride - 1, 1 - stride, stride - 1, stride + 1]
  )


@compile_kernel
def _follow_lower(labels, passes, lower, tied, offsets):
  """Labels the pixels as those that they are led to; see _settle.

  Args:
    labels: int32, flat; flooded in place.
    passes: int64, flat.
    lower: int32, flat, where each takes its label from.
    tied: int32, the pixels with several lowest neighbours.
    offsets: int64, of the neighbours.

  Returns:
    Whether all lowest neighbours of a pixel have its label.
  """
  for first in range(labels.size):
    if labels[first] != 0 or passes[first] == _DRY:
      continue
    p = first
    while labels[p] == 0:
      p = lower[p]
    label = labels[p]
    p = first
    while labels[p] == 0:
      labels[p] = label
      p = lower[p]
  for p in tied:
    lowest = passes[lower[p]]
    for offset in offsets:
      q = p + offset
      if passes[q] == lowest and labels[q] != labels[p]:
        return False
  return True


@compile_kernel
def _point_lower(labels, passes, stride, offsets, lower, tied, level_ones):
  """Points from each pixel that water reaches to a lowest neighbour.

  Args:
    labels: int32, flat.
    passes: int64, flat.
    stride: pixels per row, rim included.
    offsets: int64, of the neighbours.
    lower: int32, flat; becomes where each takes its label from, -1 where no
      neighbour is lower than it.
    tied: int32; becomes the pixels with several lowest neighbours.
    level_ones: int32; becomes those without a lower one.

  Returns:
    How many pixels there are of these two kinds.
  """
  num_tied, num_level = 0, 0
  for p in range(labels.size):
    if labels[p] != 0 or passes[p] == _DRY:
      continue
    lowest, those = _find_lowest(passes, p, stride)
    lower[p] = p + offsets[FIRST_BIT[those]]
    if those & (those - 1):
      tied[num_tied] = p
      num_tied += 1
    if lowest == passes[p]:
      lower[p] = -1
      level_ones[num_level] = p
      num_level += 1
  return num_tied, num_level


@compile_kernel
def _find_lowest(passes, p, stride):
  """Returns the lowest pass around a pixel and which neighbours have it.

  Without a branch, which the processor would guess wrong for most pixels.
  """
  row, above, below = passes, p - stride, p + stride
  a, b, c = row[above], row[p - 1], row[p + 1]
  d, e, f = row[below], row[above - 1], row[above + 1]
  g, h = row[below - 1], row[below + 1]
  lowest = min(a, b, c, d, e, f, g, h)
  those = (
    (a == lowest)
    | (b == lowest) << 1
    | (c == lowest) << 2
    | (d == lowest) << 3
    | (e == lowest) << 4
    | (f == lowest) << 5
    | (g == lowest) << 6
    | (h == lowest) << 7
  )
  return lowest, those


@compile_kernel
def _lower_passes(passes, level, stride, before, now):
  """Finds how high water must rise until it reaches each pixel.

  Args:
    passes: int64, flat: a marker's own level, else _DRY; becomes the least,
      over all paths from a marker, of the highest level on the way, _DRY where
      there is no path.
    level: int64, flat.
    stride: pixels per row, rim included.
    before: bool, by row, True; room for the rows that changed in a turn.
    now: bool, by row, True; the same.
  """
  height = before.size
  # One type for both, so that _let_flow is compiled once.
  one, minus_one = np.int64(1), np.int64(-1)
  has_changed = True
  while has_changed:
    for row in range(1, height - 1):
      if before[row - 1] or before[row] or now[row - 1]:
        first = row * stride + 1
        end = first + stride - 2
        if _let_flow(passes, level, range(first, end), -stride, minus_one):
          now[row] = True
    for row in range(height - 2, 0, -1):
      if now[row] or now[row + 1]:
        first = row * stride
        end = first + stride - 2
        if _let_flow(passes, level, range(end, first, -1), stride, one):
          now[row] = True
    has_changed = False
    for row in range(height):
      has_changed |= now[row]
      before[row] = now[row]
      now[row] = False


@compile_kernel
def _let_flow(passes, level, row, beside, behind):
  """Lowers the passes of a row by those of the row beside and pixel behind."""
  has_changed = False
  for p in row:
    if passes[p] == level[p]:  # No pass is lower than its pixel.
      continue
    q = p + beside
    lowest = min(passes[q - 1], passes[q], passes[q + 1], passes[p + behind])
    reached = max(level[p], lowest)
    if reached < passes[p]:
      passes[p] = reached
      has_changed = True
  return has_changed


@compile_kernel
def _lead_out(level_ones, lower, passes, offsets, waiting):
  """Leads pixels with no lower neighbour to one of the same pass that has one.

  Args:
    level_ones: int32, these pixels, whose `lower` is -1.
    lower: int32, where each pixel takes its label from; changed in place.
    passes: int64.
    offsets: int64, of the neighbours.
    waiting: int32, room for as many pixels.
  """
  for first in level_ones:
    if lower[first] != -1:
      continue
    for offset in offsets:
      q = first + offset
      if passes[q] == passes[first] and lower[q] != -1:
        lower[first] = q
        waiting[0] = first
        count = 1
        break
    else:
      continue
    while count:
      count -= 1
      p = waiting[count]
      for offset in offsets:
        q = p + offset
        if passes[q] == passes[p] and lower[q] == -1:
          lower[q] = p
          waiting[count] = q
          count += 1


@compile_kernel
def _flood_in_order(labels, level, offsets, has_order, heap):
  """Floods pixel by pixel, in place; see flood_markers.

  Args:
    labels: int32, flat, from _lay_out.
    level: int64, flat, from _lay_out.
    offsets: int64, of the neighbours, the nearest first.
    has_order: see flood_markers.
    heap: int64 (n, 3), room for every pixel of the mask.
  """
  size = 0
  age = 0
  for p in range(labels.size):
    if labels[p] > 0 or labels[p] == UNKNOWN:
      size = _push(heap, size, level[p], age, p)
      age += has_order
  while size:
    p = heap[0, 2]
    size = _pop(heap, size)
    for index in range(8):
      q = p + offsets[index]
      if labels[q] != 0:
        continue
      labels[q] = labels[p]
      age += 1
      # What has no neighbour left to flood need not wait for its turn, unless
      # the heap must look like scikit-image's.
      other = 0
      while has_order and other < 8 and labels[q + offsets[other]] != 0:
        other += 1
      if other < 8:
        size = _push(heap, size, level[q], age, q)


def _lay_out(
  levels: Int64[np.ndarray, "y x"],
  markers: Labels,
  mask: Bool[np.ndarray, "y x"],
  is_open: Sides,
) -> tuple[Int32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
  """Puts a rim around labels and levels as they are before the flood."""
  shape = mask.shape[0] + 2, mask.shape[1] + 2
  labels = np.full(shape, _CLOSED, np.int32)
  level = np.full(shape, _DRY)
  inner_labels, inner_level = labels[1:-1, 1:-1], level[1:-1, 1:-1]
  np.copyto(inner_labels, markers, where=mask)
  np.copyto(inner_level, levels, where=mask)
  for side in list_outer(is_open):
    is_unknown = inner_labels[side] == 0
    inner_labels[side][is_unknown] = UNKNOWN
    inner_level[side][is_unknown] = -1
  return labels.ravel(), level.ravel()


@compile_kernel
def _push(heap, size, level, age, pixel):
  """Adds an entry, the youngest so far; returns the new size."""
  child = size
  while child:
    parent = (child - 1) >> 1
    if heap[parent, 0] <= level:  # The older goes first when equal.
      break
    heap[child, 0] = heap[parent, 0]
    heap[child, 1] = heap[parent, 1]
    heap[child, 2] = heap[parent, 2]
    child = parent
  heap[child, 0] = level
  heap[child, 1] = age
  heap[child, 2] = pixel
  return size + 1


@compile_kernel
def _pop(heap, size):
  """Removes the first entry; returns the new size."""
  size -= 1
  level = heap[size, 0]
  age = heap[size, 1]
  pixel = heap[size, 2]
  hole = 0
  child = 1
  while child < size:
    right = child + 1
    if right < size and _precedes(
      heap[right, 0], heap[right, 1], heap[child, 0], heap[child, 1]
    ):
      child = right
    if _precedes(level, age, heap[child, 0], heap[child, 1]):
      break
    heap[hole, 0] = heap[child, 0]
    heap[hole, 1] = heap[child, 1]
    heap[hole, 2] = heap[child, 2]
    hole = child
    child = 2 * hole + 1
  heap[hole, 0] = level
  heap[hole, 1] = age
  heap[hole, 2] = pixel
  return size


@compile_kernel
def _precedes(level, age, other_level, other_age):
  return level < other_level or (level == other_level and age < other_age)
