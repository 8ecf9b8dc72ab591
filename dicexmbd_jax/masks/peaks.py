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


@compile_kernel
def find_peaks(values, labels, steps):
  """Marks the labelled pixels that no near pixel of their label outshines.

  Equal neighbours are all peaks. Values of 0 and below are never peaks.

  Args:
    values: float64 (y, x).
    labels: int32 (y, x), 0 = background.
    steps: int64 (n, 2), where to look, from list_disk.

  Returns:
    bool (y, x).
  """
  height, width = values.shape
  peaks = np.zeros((height, width), np.bool_)
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
  return peaks


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


@compile_kernel
def shrink_points(places, is_set, stamps, width, tables):
  """Thins a padded binary image in place until nothing changes.

  A pass of one side looks at the pixels that lost a neighbour since the last
  pass of that side, four passes ago: the others answer as they did. So the
  work grows with the pixels that go, not with the plateau times its width.

  Args:
    places: int64 (n,), the set pixels, as indices of the flat image.
    is_set: bool (n,), the flat padded image with a clear rim; changed in place.
    stamps: uint8 (n,), room for when a pixel last lost a neighbour: the number
      of the pass modulo 8.
    width: of the padded image.
    tables: bool (4, 256) from make_shrink_tables.
  """
  around = np.array(
    [-width - 1, -width, 1 - width, 1, width + 1, width, width - 1, -1]
  )
  nothing = np.uint8(255)
  stamps[:] = nothing
  for place in places:
    stamps[place] = 7  # By the pass before the first.
  none = places[:0]
  touched = [none, none, none, places]  # By pass modulo 4.
  number = 8  # Of the pass; any multiple of 8 to start with.
  has_changed = True
  while has_changed:
    has_changed = False
    for side in range(4):
      total = 0
      for group in touched:
        total += group.size
      goes = np.empty(total, np.int64)
      count = 0
      for past in range(number - 4, number):
        stamp = np.uint8(past % 8)
        for place in touched[past % 4]:
          if stamps[place] != stamp:
            continue
          if past == number - 4:  # All four sides have looked by now.
            stamps[place] = nothing
          if not is_set[place]:
            continue
          bits = 0
          for k in range(8):
            bits |= is_set[place + around[k]] << k
          if tables[side, bits]:
            goes[count] = place
            count += 1
      for index in range(count):
        is_set[goes[index]] = False
      stamp = np.uint8(number % 8)
      lost = np.empty(8 * count, np.int64)
      num_lost = 0
      for index in range(count):
        for k in range(8):
          place = goes[index] + around[k]
          if is_set[place] and stamps[place] != stamp:
            stamps[place] = stamp
            lost[num_lost] = place
            num_lost += 1
      touched[number % 4] = lost[:num_lost].copy()
      has_changed = has_changed or count > 0
      number += 1


def shrink_peaks(peaks: np.ndarray) -> np.ndarray:
  """Shrinks touching peaks to one point each; a ring keeps its hole.

  Args:
    peaks: bool (y, x).

  Returns:
    bool (y, x). Source: binary_shrink of CellProfiler's library.
  """
  height, width = peaks.shape
  is_set = storage.allocate((height + 2, width + 2), bool)
  is_set[1:-1, 1:-1] = peaks
  flat = is_set.reshape(-1)
  stamps = storage.allocate(flat.shape, np.uint8)
  shrink_points(np.flatnonzero(flat), flat, stamps, width + 2, SHRINK_TABLES)
  return is_set[1:-1, 1:-1]
