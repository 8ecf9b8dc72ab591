"""Brightest points of objects, compiled: local maxima, shrunk to points."""

import numpy as np

from dicexmbd_jax import storage
from dicexmbd_jax.masks.compiler import compile_kernel


def list_disk(radius: float) -> np.ndarray:
  """Lists the steps (dy, dx) inside a disk, centre excluded, nearest first.

  Args:
    radius: in pixels; the disk is dy*dy + dx*dx <= radius*radius.

  Returns:
    int64 (n, 2).
  """
  reach = int(radius)
  steps = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
  squares = (steps**2).sum(axis=1)
  inside = (squares <= radius * radius) & (squares > 0)
  order = np.argsort(squares[inside], kind="stable")
  return np.ascontiguousarray(steps[inside][order])


def find_peaks(
  values: np.ndarray, labels: np.ndarray, steps: np.ndarray
) -> np.ndarray:
  """Marks the labelled pixels that no near pixel of their label outshines.

  Equal neighbours are all peaks. Values of 0 and below are never peaks.

  Args:
    values: float64 (y, x).
    labels: int32 (y, x), 0 = background.
    steps: int64 (n, 2), where to look, from list_disk.

  Returns:
    bool (y, x).
  """
  peaks = np.zeros(values.shape, bool)
  mark_peaks(values, labels, steps, peaks)
  return peaks


@compile_kernel
def mark_peaks(values, labels, steps, peaks):
  """Marks the pixels of find_peaks in `peaks`, bool (y, x), which is clear."""
  height, width = values.shape
  for y in range(height):
    for x in range(width):
      label = labels[y, x]
      value = values[y, x]
      if label == 0 or value <= 0:
        continue
      is_peak = True
      for index in range(steps.shape[0]):
        v = y + steps[index, 0]
        u = x + steps[index, 1]
        if v < 0 or v >= height or u < 0 or u >= width:
          continue
        if values[v, u] > value and labels[v, u] == label:
          is_peak = False
          break
      peaks[y, x] = is_peak


def make_shrink_tables() -> np.ndarray:
  """Builds the four removal tables of CellProfiler's binary shrink.

  A pixel may go if its neighbours form exactly one 4-connected group and are
  not all set. Each table removes from one side (right, bottom, left, top):
  the pixel must have its partner on the far side and none on the near side,
  or be the tip of a diagonal.

  Returns:
    bool (4, 256), indexed by the neighbours' bits; bit k is the k-th
    neighbour clockwise from the top left.
  """
  tables = np.zeros((4, 256), bool)
  for bits in range(256):
    ring = [bits >> k & 1 for k in range(8)]
    starts = sum(ring[k] and not ring[k - 1] for k in range(8))
    if starts != 1:
      continue
    for side in range(4):
      # Turned so that the side to remove from is the right one.
      turned = ring[2 * side :] + ring[: 2 * side]
      top_left, _, _, right, low_right, below, _, left = turned
      is_end = left and not right
      is_tip = top_left and not (right or low_right or below)
      tables[side, bits] = is_end or is_tip
  return tables


SHRINK_TABLES = make_shrink_tables()
NEVER = 255  # Stamp of a pixel that has lost no neighbour.


def shrink_peaks(peaks: np.ndarray) -> np.ndarray:
  """Shrinks touching peaks to one point each; a ring keeps its hole.

  A pass of one side looks at the pixels that lost a neighbour since the last
  pass of that side, four passes ago: the others answer as they did. So the
  work grows with the pixels that go, not with the plateau times its width.

  Args:
    peaks: bool (y, x).

  Returns:
    bool (y, x). Source: binary_shrink of CellProfiler's library.
  """
  height, width = peaks.shape
  padded = storage.allocate((height + 2, width + 2), bool)
  padded[1:-1, 1:-1] = peaks
  is_set = padded.reshape(-1)
  # When a pixel last lost a neighbour: the number of the pass modulo 8.
  stamps = storage.allocate(is_set.shape, np.uint8)
  stamps[...] = NEVER
  places = np.flatnonzero(is_set)
  stamps[places] = 7  # By the pass before the first.
  none = places[:0]
  touched = [none, none, none, places]  # By pass modulo 4.
  above, below = -width - 2, width + 2
  around = np.array(
    [above - 1, above, above + 1, 1, below + 1, below, below - 1, -1]
  )
  number = 8  # Of the pass; any multiple of 8 to start with.
  has_changed = True
  while has_changed:
    has_changed = False
    for table in SHRINK_TABLES:
      goes = np.empty(sum(map(len, touched)), np.int64)
      count = 0
      for past in range(number - 4, number):
        # All four sides have looked at the oldest by now.
        stamp, is_last = past % 8, past == number - 4
        count = list_going(
          touched[past % 4], is_set, stamps, stamp, is_last, around, table,
          goes, count,
        )  # fmt: skip
      goes = goes[:count]
      is_set[goes] = False
      lost = np.empty(8 * count, np.int64)
      num_lost = list_losing(goes, is_set, stamps, number % 8, around, lost)
      touched[number % 4] = lost[:num_lost].copy()
      has_changed = has_changed or count > 0
      number += 1
  shrunk = storage.allocate(peaks.shape, bool)
  shrunk[...] = padded[1:-1, 1:-1]
  return shrunk


@compile_kernel
def list_going(
  places, is_set, stamps, stamp, is_last, around, table, goes, count
):
  """Lists the pixels that a pass of one side removes.

  Args:
    places: int64 (n,), the pixels that lost a neighbour in an earlier pass, as
      indices of the flat image.
    is_set: bool, the flat padded image with a clear rim.
    stamps: uint8, when a pixel last lost a neighbour.
    stamp: of the earlier pass.
    is_last: whether these pixels need not be looked at again.
    around: int64 (8,), the steps to the neighbours.
    table: bool (256,), of make_shrink_tables.
    goes: int64; is written to, from `count` on.
    count: how many pixels it has.

  Returns:
    How many it has now.
  """
  for place in places:
    if stamps[place] != stamp:
      continue
    if is_last:
      stamps[place] = NEVER
    if not is_set[place]:
      continue
    bits = 0
    for k in range(8):
      bits |= is_set[place + around[k]] << k
    if table[bits]:
      goes[count] = place
      count += 1
  return count


@compile_kernel
def list_losing(goes, is_set, stamps, stamp, around, lost):
  """Lists, once each, the set pixels that have lost a neighbour.

  Args:
    goes: int64 (n,), the pixels that were removed.
    is_set: bool, the flat padded image.
    stamps: uint8; becomes `stamp` where a neighbour is lost.
    stamp: of this pass.
    around: int64 (8,), the steps to the neighbours.
    lost: int64 (8 n,); is written to.

  Returns:
    How many there are.
  """
  count = 0
  for gone in goes:
    for k in range(8):
      place = gone + around[k]
      if is_set[place] and stamps[place] != stamp:
        stamps[place] = stamp
        lost[count] = place
        count += 1
  return count
