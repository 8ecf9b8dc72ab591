"""The shortest-path forest of Propagation, compiled.

Every masked pixel takes the label of the seed with the cheapest path. What the
paths cost does not depend on the order in which they are found: pixels are
swept down and up until few paths get cheaper, mostly three times, as cells are
small; a queue does the rest. Labels then follow the paths back.

Arrays in here are flat with a rim of one pixel, so that p + offset is always
an index: p = (y + 1) * (width + 2) + x + 1.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int32

from dicexmbd_jax.masks.blocks import FIRST_BIT, Sides, list_outer
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.types import Labels

UNKNOWN = -1  # Label of what came, or may have come, in from outside.
_FEW = 16  # One of so many pixels: a queue is then sooner done than a sweep.
_RUN = 64  # Pixels of a row that are weighed, or not, together.


def weigh_steps(
  image: Float64[np.ndarray, "_ _"],
  mask: Bool[np.ndarray, "y x"],
  top: int,
  left: int,
  regularisation: float,
) -> Float64[np.ndarray, "4 n"]:
  """Computes what the steps right, down-left, down and down-right cost.

  A step from p to q costs sqrt(D^2 + L * w^2): L = |dy| + |dx|, D the sum of
  |I(p + o) - I(q + o)| over the 3x3 offsets o, coordinates clamped at the
  border. The nine terms are added row by row as CellProfiler does, so that
  equal costs stay equal.

  Args:
    image: float64 (y, x), the window and one pixel more where there is one.
    mask: bool, the window: only costs of steps inside are wanted.
    top: the window's first row in the image.
    left: its first column.
    regularisation: w.

  Returns:
    float64 (4, (height + 2) * (width + 2)), the costs of the steps from p;
    undefined for most p outside the mask.
  """
  costs = np.empty((4, (mask.shape[0] + 2) * (mask.shape[1] + 2)))
  changes = np.zeros((3, image.shape[1] + 4))
  square = float(regularisation * regularisation)
  fill_costs(np.pad(image, 1, "edge"), mask, top, left, square, changes, costs)
  return costs


@compile_kernel
def fill_costs(padded, mask, top, left, square, changes, costs):
  """Writes the costs of weigh_steps.

  Args:
    padded: float64, the image with its edge pixels repeated once.
    mask: bool (y, x).
    top: see weigh_steps.
    left: see weigh_steps.
    square: of the regularisation.
    changes: float64 (3, width of `padded` + 2), zeros; room for three rows.
    costs: float64; is written to.
  """
  height, width = mask.shape
  rows, columns = padded.shape
  for index in range(4):
    dy = 0 if index == 0 else 1
    dx = 1 if index == 0 else index - 2
    fixed = (dy + abs(dx)) * square
    # Columns of `changes` at which both ends of the step are in `padded`.
    first = max(0, -dx)
    last = columns - max(0, dx)
    for y in range(rows - dy):
      here = padded[y, first:last]
      there = padded[y + dy, first + dx : last + dx]
      change = changes[y % 3, first:last]
      for x in range(last - first):
        change[x] = abs(here[x] - there[x])
      row = y - 2 - top
      if row < 0 or row >= height:
        continue
      line = (row + 1) * (width + 2) + 1
      for begin in range(0, width, _RUN):
        end = min(begin + _RUN, width)
        is_wanted = False
        for x in range(begin, end):
          is_wanted |= mask[row, x]
        if not is_wanted:
          continue
        # Slices, so that the compiler sees indices from 0 and vectorises.
        a = changes[(y - 2) % 3, left + begin :]
        b = changes[(y - 1) % 3, left + begin :]
        c = changes[y % 3, left + begin :]
        out = costs[index, line + begin : line + end]
        for x in range(end - begin):
          total = a[x] + a[x + 1] + a[x + 2]
          total = total + b[x] + b[x + 1] + b[x + 2]
          total = total + c[x] + c[x + 1] + c[x + 2]
          out[x] = np.sqrt(total * total + fixed)


def grow_forest(
  costs: Float64[np.ndarray, "4 n"],
  seeds: Labels,
  mask: Bool[np.ndarray, "y x"],
  is_open: Sides,
) -> Labels:
  """Grows the seeds over the mask along the cheapest paths.

  Equal costs go to the predecessor that itself costs less, then to the lower
  label, so the result does not depend on the order of the search.

  Args:
    costs: float64, from weigh_steps, all above 0.
    seeds: int32 (y, x), labels; 0 none.
    mask: bool (y, x), where labels may grow.
    is_open: bool (4,): whether the image goes on above, below, left, right.
      What could come in from there is taken to have cost nothing so far.

  Returns:
    int32 (y, x): labels; seeds outside the mask keep their pixels only.
    UNKNOWN where a path from outside may be the cheapest.
  """
  shape = seeds.shape[0] + 2, seeds.shape[1] + 2
  stride = shape[1]
  # As they are before any step; pixels that can be reached in raster order.
  labels = np.zeros(shape, np.int32)
  labels[1:-1, 1:-1] = seeds
  is_masked = np.zeros(shape, bool)
  is_masked[1:-1, 1:-1] = mask
  for side in list_outer(is_open):
    unknown = is_masked[1:-1, 1:-1][side] & (seeds[side] == 0)
    labels[1:-1, 1:-1][side][unknown] = UNKNOWN
  distance = np.where(is_masked & (labels != 0), 0.0, np.inf).ravel()
  free = np.flatnonzero(is_masked & (labels == 0)).astype(np.int32)
  _find_distances(distance, costs, free, stride)
  _follow_back(labels.ravel(), distance, costs, free, stride)
  return labels[1:-1, 1:-1].copy()


def _find_distances(
  distance: Float64[np.ndarray, " n"],
  costs: Float64[np.ndarray, "4 n"],
  free: Int32[np.ndarray, " m"],
  stride: int,
) -> None:
  """Lowers the distances, in place, to what the cheapest paths cost."""
  queue = np.empty(free.size + 1, np.int32)
  size = free.size
  _sweep_down(distance, costs, free, stride, queue)
  while _FEW * size > free.size:
    _sweep_up(distance, costs, free, stride)
    size = _sweep_down(distance, costs, free, stride, queue)
  is_free, waits = np.zeros((2, distance.size), bool)
  is_free[free] = True
  waits[queue[:size]] = True
  steps = np.array([1, stride - 1, stride, stride + 1])
  _search_on(distance, costs, steps, is_free, waits, queue, size)


@compile_kernel
def _sweep_down(distance, costs, free, stride, changed):
  """Lets paths come from the left and from above.

  Where there is no path the distance is infinite, whatever the step costs.

  Args:
    distance: float64, lowered in place.
    costs: float64, from weigh_steps.
    free: int32, the pixels.
    stride: pixels per row, rim included.
    changed: int32, room for the pixels whose distance is lowered.

  Returns:
    The number of these pixels.
  """
  count = 0
  for p in free:
    q = p - stride
    least = distance[p]
    for reached in (
      distance[p - 1] + costs[0, p - 1],
      distance[q - 1] + costs[3, q - 1],
      distance[q] + costs[2, q],
      distance[q + 1] + costs[1, q + 1],
    ):
      if reached < least:
        least = reached
    changed[count] = p
    count += least < distance[p]
    distance[p] = least
  return count


@compile_kernel
def _sweep_up(distance, costs, free, stride):
  """Lets paths come from the right and from below, pixels last to first."""
  for p in free[::-1]:
    q = p + stride
    least = distance[p]
    for reached in (
      distance[p + 1] + costs[0, p],
      distance[q - 1] + costs[1, p],
      distance[q] + costs[2, p],
      distance[q + 1] + costs[3, p],
    ):
      if reached < least:
        least = reached
    distance[p] = least


@compile_kernel
def _search_on(distance, costs, steps, is_free, waits, queue, size):
  """Goes on from the pixels in a queue, first in first out, until it is empty.

  Args:
    distance: float64, lowered in place.
    costs: float64, from weigh_steps.
    steps: int64 (4,), to the neighbours that `costs` has.
    is_free: bool, flat, the pixels that paths may reach.
    waits: bool, flat, those in the queue.
    queue: int32, one longer than there are such pixels; used as a ring.
    size: how many pixels it has.
  """
  begin, end = 0, size
  while begin != end:
    p = queue[begin]
    begin = (begin + 1) % queue.size
    waits[p] = False
    for index in range(8):
      q = p + steps[index] if index < 4 else p - steps[index - 4]
      cost = costs[index, p] if index < 4 else costs[index - 4, q]
      if is_free[q] and distance[p] + cost < distance[q]:
        distance[q] = distance[p] + cost
        if not waits[q]:
          waits[q] = True
          queue[end] = q
          end = (end + 1) % queue.size


def _follow_back(
  labels: Int32[np.ndarray, " n"],
  distance: Float64[np.ndarray, " n"],
  costs: Float64[np.ndarray, "4 n"],
  free: Int32[np.ndarray, " m"],
  stride: int,
) -> None:
  """Labels, in place, the pixels that paths reach."""
  steps = np.array([1, stride - 1, stride, stride + 1])
  steps = np.concatenate((steps, -steps))
  best = np.zeros(labels.size, np.uint8)
  _find_best(distance, costs, free, stride, steps, best)
  _take_labels(labels, free, best, steps, np.empty(free.size + 1, np.int32))


@compile_kernel
def _find_best(distance, costs, free, stride, steps, best):
  """Finds the best predecessors of each pixel, one bit for each step to them.

  Args:
    distance: float64, flat.
    costs: float64, from weigh_steps.
    free: int32, the pixels.
    stride: pixels per row, rim included.
    steps: int64 (8,), to the neighbours.
    best: uint8, flat, zeros; is written to.
  """
  for p in free:
    if distance[p] == np.inf:
      continue
    those = _find_predecessors(distance, costs, p, stride)
    if those & (those - 1):
      those = _keep_nearest(those, distance, p, steps)
    best[p] = those


@compile_kernel
def _take_labels(labels, free, best, steps, way):
  """Labels the pixels as their best predecessors, in place.

  Args:
    labels: int32, flat.
    free: int32, the pixels.
    best: uint8, flat, from _find_best.
    steps: int64 (8,), to the neighbours.
    way: int32, room for the way back until a label is known: no path visits a
      pixel twice.
  """
  for last in free:
    way[0] = last
    count = 1
    while count:
      p = way[count - 1]
      label = labels[p]
      if label == 0:
        those = np.int64(best[p])
        while those:
          q = p + steps[FIRST_BIT[those]]
          if labels[q] == 0:
            break
          label = labels[q] if label == 0 else min(label, labels[q])
          those &= those - 1
        if those:
          way[count] = q
          count += 1
          continue
        labels[p] = label
      count -= 1


@compile_kernel
def _find_predecessors(distance, costs, p, stride):
  """Returns from which neighbours the cheapest paths come, one bit for each.

  Without a branch, which the processor would guess wrong for most pixels.
  """
  here = distance[p]
  above, below = p - stride, p + stride
  return (
    (distance[p + 1] + costs[0, p] == here)
    | (distance[below - 1] + costs[1, p] == here) << 1
    | (distance[below] + costs[2, p] == here) << 2
    | (distance[below + 1] + costs[3, p] == here) << 3
    | (distance[p - 1] + costs[0, p - 1] == here) << 4
    | (distance[above + 1] + costs[1, above + 1] == here) << 5
    | (distance[above] + costs[2, above] == here) << 6
    | (distance[above - 1] + costs[3, above - 1] == here) << 7
  )


@compile_kernel
def _keep_nearest(those, distance, p, steps):
  """Returns those of some neighbours that have the least distance."""
  least = np.inf
  nearest = 0
  for index in range(8):
    there = distance[p + steps[index]]
    if those >> index & 1 and there <= least:
      if there < least:
        nearest = 0
      least = there
      nearest |= 1 << index
  return nearest
