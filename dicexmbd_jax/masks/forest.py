"""The shortest-path forest of Propagation, compiled.

Every masked pixel takes the label of the seed with the cheapest path. Because
no step costs less than the regularisation, pixels whose costs fall into one
bucket of that width cannot improve one another: buckets replace the heap.
"""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def sum_differences(image, dy, dx):
  """Sums |I(p + o) - I(q + o)| over the 3x3 offsets o, with q = p + (dy, dx).

  Coordinates are clamped at the border, and the nine terms are added row by
  row as CellProfiler does, so that ties fall the same way.

  Args:
    image: float64 (y, x).
    dy: 0 or 1.
    dx: -1, 0 or 1.

  Returns:
    float64 (y, x); 0 where q lies outside.
  """
  height, width = image.shape
  padded = np.empty((height + 2, width + 2))
  for y in range(height + 2):
    row = min(max(y - 1, 0), height - 1)
    padded[y, 1:-1] = image[row]
    padded[y, 0] = image[row, 0]
    padded[y, -1] = image[row, width - 1]
  sums = np.zeros((height, width))
  first = max(0, -dx)
  last = width - max(0, dx)
  for y in range(height - dy):
    for oy in range(3):
      here = padded[y + oy]
      there = padded[y + oy + dy]
      for ox in range(3):
        for x in range(first, last):
          sums[y, x] += abs(here[x + ox] - there[x + ox + dx])
  return sums


@compile_kernel
def weigh_steps(image, regularisation):
  """Returns the costs of the steps right, down-left, down and down-right.

  Args:
    image: float64 (y, x).
    regularisation: w of sqrt(D^2 + L * w^2), L = |dy| + |dx|.

  Returns:
    float64 (4, y, x); a cost at p is that of the step from p.
  """
  height, width = image.shape
  costs = np.empty((4, height, width))
  square = regularisation * regularisation
  for index in range(4):
    dy = 0 if index == 0 else 1
    dx = 1 if index == 0 else index - 2
    length = dy + abs(dx)
    sums = sum_differences(image, dy, dx)
    for y in range(height):
      for x in range(width):
        costs[index, y, x] = np.sqrt(sums[y, x] ** 2 + length * square)
  return costs


@compile_kernel
def grow_forest(costs, seeds, mask, shortest):
  """Grows the seeds over the mask along the cheapest paths.

  Equal costs go to the predecessor that itself costs less, then to the lower
  label, so the result does not depend on the order of the search.

  Args:
    costs: float64 (4, y, x) from weigh_steps.
    seeds: int32 (y, x), labels; 0 none.
    mask: bool (y, x), where labels may grow.
    shortest: no step costs less, > 0.

  Returns:
    int32 (y, x): labels; seeds outside the mask keep their pixels only.
  """
  height, width = seeds.shape
  stride = width + 2
  size = (height + 2) * stride
  labels = np.zeros(size, np.int32)
  distance = np.full(size, -1.0)  # Closed: nothing is less than -1.
  parent = np.full(size, -1, np.int32)
  step = np.zeros((4, size))
  longest = shortest
  for y in range(height):
    for x in range(width):
      p = (y + 1) * stride + x + 1
      if mask[y, x]:
        distance[p] = np.inf
        for index in range(4):
          step[index, p] = costs[index, y, x]
          longest = max(longest, costs[index, y, x])
  # A hair below the shortest step, so that rounding never joins two rounds.
  inverse = 1.0 / (shortest * (1.0 - 1e-9))
  num_buckets = int(longest * inverse) + 3
  heads = np.full(num_buckets, -1, np.int32)
  capacity = 1024
  pixels = np.empty(capacity, np.int32)
  links = np.empty(capacity, np.int32)
  used = 0
  free = -1
  waiting = 0
  for y in range(height):
    for x in range(width):
      if seeds[y, x]:
        p = (y + 1) * stride + x + 1
        labels[p] = seeds[y, x]
        if mask[y, x]:
          distance[p] = 0.0
          if used == capacity:
            capacity *= 2
            pixels = np.append(pixels, np.empty(capacity // 2, np.int32))
            links = np.append(links, np.empty(capacity // 2, np.int32))
          pixels[used] = p
          links[used] = heads[0]
          heads[0] = used
          used += 1
          waiting += 1
        else:
          distance[p] = -1.0
  offsets = np.array([1, stride - 1, stride, stride + 1], np.int64)
  bucket = 0
  turn = 0
  while waiting:
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
      if int(here * inverse) != turn or parent[p] == -2:
        continue  # Overtaken by a cheaper path, or done.
      if parent[p] >= 0:
        labels[p] = labels[parent[p]]
      parent[p] = -2
      for index in range(8):
        q = p + offsets[index] if index < 4 else p - offsets[index - 4]
        there = distance[q]
        if there <= here:
          continue
        cost = step[index, p] if index < 4 else step[index - 4, q]
        reached = here + cost
        if reached > there:
          continue
        if reached == there:
          rival = parent[q]
          if distance[rival] < here or (
            distance[rival] == here and labels[rival] <= labels[p]
          ):
            continue
          parent[q] = p
          continue
        distance[q] = reached
        parent[q] = p
        slot = int(reached * inverse) % num_buckets
        if free != -1:
          new = free
          free = links[free]
        else:
          if used == capacity:
            capacity *= 2
            pixels = np.append(pixels, np.empty(capacity // 2, np.int32))
            links = np.append(links, np.empty(capacity // 2, np.int32))
          new = used
          used += 1
        pixels[new] = q
        links[new] = heads[slot]
        heads[slot] = new
        waiting += 1
    turn += 1
    bucket = turn % num_buckets
  grown = np.zeros((height, width), np.int32)
  for y in range(height):
    for x in range(width):
      grown[y, x] = labels[(y + 1) * stride + x + 1]
  return grown
