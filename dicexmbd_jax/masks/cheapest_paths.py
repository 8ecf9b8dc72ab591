"""The shortest-path forest of Propagation, compiled.

Every masked pixel takes the label of the seed with the cheapest path. Because
no step costs less than the regularisation, pixels whose costs fall into one
bucket of that width cannot improve one another: buckets replace the heap.

Arrays in here are flat with a rim of one pixel, so that p + offset is always
an index: p = (y + 1) * (width + 2) + x + 1.
"""

import numpy as np

from dicexmbd_jax.masks.blocks import is_outer
from dicexmbd_jax.masks.compiler import compile_kernel

UNKNOWN = -1  # Label of what came, or may have come, in from outside.
_NONE = -1  # Parent of a seed, or of a pixel not reached.
_DONE = -2  # Parent of a pixel that has grown.
_RUN = 64  # Pixels of a row that are weighed, or not, together.


@compile_kernel
def weigh_steps(image, mask, top, left, regularisation):
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
    float64 ((height + 2) * (width + 2), 4), the costs of the steps from p;
    undefined for most p outside the mask.
  """
  height, width = mask.shape
  stride = width + 2
  costs = np.empty(((height + 2) * stride, 4))
  rows, columns = image.shape
  padded = np.empty((rows + 2, columns + 2))
  for y in range(rows + 2):
    row = image[min(max(y - 1, 0), rows - 1)]
    padded[y, 1:-1] = row
    padded[y, 0] = row[0]
    padded[y, -1] = row[columns - 1]
  square = regularisation * regularisation
  changes = np.zeros((3, columns + 4))
  for index in range(4):
    dy = 0 if index == 0 else 1
    dx = 1 if index == 0 else index - 2
    fixed = (dy + abs(dx)) * square
    # Columns of `changes` at which both ends of the step are in `padded`.
    first = max(0, -dx)
    last = columns + 2 - max(0, dx)
    for y in range(rows + 2 - dy):
      here = padded[y, first:last]
      there = padded[y + dy, first + dx : last + dx]
      change = changes[y % 3, first:last]
      for x in range(last - first):
        change[x] = abs(here[x] - there[x])
      row = y - 2 - top
      if row < 0 or row >= height:
        continue
      line = (row + 1) * stride + 1
      for begin in range(0, width, _RUN):
        end = min(begin + _RUN, width)
        if not mask[row, begin:end].any():
          continue
        # Slices, so that the compiler sees indices from 0 and vectorises.
        a = changes[(y - 2) % 3, left + begin :]
        b = changes[(y - 1) % 3, left + begin :]
        c = changes[y % 3, left + begin :]
        out = costs[line + begin : line + end, index]
        for x in range(end - begin):
          total = a[x] + a[x + 1] + a[x + 2]
          total = total + b[x] + b[x + 1] + b[x + 2]
          total = total + c[x] + c[x + 1] + c[x + 2]
          out[x] = np.sqrt(total * total + fixed)
  return costs


@compile_kernel
def grow_forest(costs, longest, seeds, mask, shortest, is_open):
  """Grows the seeds over the mask along the cheapest paths.

  Equal costs go to the predecessor that itself costs less, then to the lower
  label, so the result does not depend on the order of the search.

  Args:
    costs: float64, from weigh_steps.
    longest: no step costs more.
    seeds: int32 (y, x), labels; 0 none.
    mask: bool (y, x), where labels may grow.
    shortest: no step costs less, > 0.
    is_open: bool (4,): whether the image goes on above, below, left, right.
      What could come in from there is taken to have cost nothing so far.

  Returns:
    int32 (y, x): labels; seeds outside the mask keep their pixels only.
    UNKNOWN where a path from outside may be the cheapest.
  """
  height, width = seeds.shape
  stride = width + 2
  state = _place_seeds(seeds, mask, is_open)
  front = _list_front(state, stride)
  # A hair below the shortest step, so that rounding never joins two rounds.
  inverse = 1.0 / (shortest * (1.0 - 1e-9))
  num_buckets = 1
  while num_buckets < longest * inverse + 3:
    num_buckets *= 2
  _search_paths(costs, state, front, inverse, num_buckets, stride)
  labels = state[0]
  grown = np.empty((height, width), np.int32)
  for y in range(height):
    first = (y + 1) * stride + 1
    grown[y] = labels[first : first + width]
  return grown


@compile_kernel
def _search_paths(costs, state, front, inverse, num_buckets, stride):
  """Follows all paths from the front, one bucket of costs after another.

  Args:
    costs: float64, from weigh_steps.
    state: labels, distance and parent, from _place_seeds; changed in place.
    front: int32, the pixels to begin with.
    inverse: one over the buckets' width.
    num_buckets: a power of two; together wider than the longest step.
    stride: pixels per row, rim included.
  """
  labels, distance, parent = state
  # A pixel is put into buckets at most once per neighbour: room enough, of
  # which the system only gives what is touched.
  pixels = np.empty(front.size + 8 * np.count_nonzero(distance > 0), np.int32)
  links = np.empty(pixels.size, np.int32)
  heads = np.full(num_buckets, -1, np.int32)
  for entry in range(front.size):
    pixels[entry] = front[entry]
    links[entry] = entry - 1
  heads[0] = front.size - 1
  used = front.size
  waiting = front.size
  free = -1
  offsets = np.array([1, stride - 1, stride, stride + 1], np.int64)
  turn = 0
  while waiting:
    bucket = turn & (num_buckets - 1)
    entry = heads[bucket]
    heads[bucket] = -1
    while entry != -1:
      p = pixels[entry]
      following = links[entry]
      links[entry] = free
      free = entry
      entry = following
      waiting -= 1
      here = distance[p]
      if parent[p] == _DONE or int(here * inverse) != turn:
        continue  # Done already, by a cheaper path.
      if parent[p] >= 0:
        labels[p] = labels[parent[p]]
      parent[p] = _DONE
      for index in range(8):
        q = p + offsets[index] if index < 4 else p - offsets[index - 4]
        there = distance[q]
        if there <= here:
          continue
        cost = costs[p, index] if index < 4 else costs[q, index - 4]
        reached = here + cost
        if reached > there:
          continue
        if reached == there:
          rival = parent[q]
          if here < distance[rival] or (
            here == distance[rival] and labels[p] < labels[rival]
          ):
            parent[q] = p
          continue
        distance[q] = reached
        parent[q] = p
        bucket = int(reached * inverse) & (num_buckets - 1)
        new = free
        if new == -1:
          new = used
          used += 1
        else:
          free = links[free]
        pixels[new] = q
        links[new] = heads[bucket]
        heads[bucket] = new
        waiting += 1
    turn += 1


@compile_kernel
def _list_front(state, stride):
  """Lists the seeds' pixels that have somewhere to go; closes the others."""
  _, distance, parent = state
  front = np.empty(np.count_nonzero(distance == 0), np.int32)
  count = 0
  for p in range(stride + 1, distance.size - stride - 1):
    if distance[p] != 0:
      continue
    farthest = max(distance[p - 1], distance[p + 1])
    for q in (p - stride, p + stride):
      farthest = max(farthest, distance[q - 1], distance[q], distance[q + 1])
    if farthest > 0:
      front[count] = p
      count += 1
    else:
      parent[p] = _DONE
  return front[:count]


@compile_kernel
def _place_seeds(seeds, mask, is_open):
  """Lays out labels, distances and parents as they are before any step."""
  height, width = seeds.shape
  stride = width + 2
  labels = np.zeros((height + 2) * stride, np.int32)
  distance = np.full(labels.size, -1.0)  # Nothing costs less: closed.
  parent = np.full(labels.size, _NONE, np.int32)
  for y in range(height):
    for x in range(width):
      p = (y + 1) * stride + x + 1
      labels[p] = seeds[y, x]
      if not mask[y, x]:
        continue
      if labels[p] == 0 and is_outer(y, x, mask.shape, is_open):
        labels[p] = UNKNOWN
      distance[p] = 0.0 if labels[p] else np.inf
  return labels, distance, parent
