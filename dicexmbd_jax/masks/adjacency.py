"""Which regions of a labelled image touch, and what encloses what; compiled."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


def list_edge_labels(labels: np.ndarray) -> np.ndarray:
  """Lists the labels on the outermost rows and columns, 0 included."""
  rims = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
  return np.unique(np.concatenate(rims))


@compile_kernel
def keep_outer_nodes(nodes, num_objects, num_nodes):
  """Marks the regions that are kept at first sight, when holes are filled.

  These touch the edge, or are objects beside background that does.

  Args:
    nodes: int32 (y, x); objects 1..num_objects, groups of background above.
    num_objects: the highest object.
    num_nodes: one more than the highest region.

  Returns:
    bool (num_nodes,).
  """
  height, width = nodes.shape
  touches_edge = np.zeros(num_nodes, np.bool_)
  for y in range(height):
    touches_edge[nodes[y, 0]] = True
    touches_edge[nodes[y, width - 1]] = True
  for x in range(width):
    touches_edge[nodes[0, x]] = True
    touches_edge[nodes[height - 1, x]] = True
  is_kept = touches_edge.copy()
  for y in range(height):
    for x in range(width):
      node = nodes[y, x]
      if node <= num_objects or not touches_edge[node]:
        continue
      if y and nodes[y - 1, x] <= num_objects:
        is_kept[nodes[y - 1, x]] = True
      if y + 1 < height and nodes[y + 1, x] <= num_objects:
        is_kept[nodes[y + 1, x]] = True
      if x and nodes[y, x - 1] <= num_objects:
        is_kept[nodes[y, x - 1]] = True
      if x + 1 < width and nodes[y, x + 1] <= num_objects:
        is_kept[nodes[y, x + 1]] = True
  return is_kept


@compile_kernel
def list_open_pairs(nodes, is_kept):
  """Lists the touching regions (4-neighbours) of which one is not kept yet.

  Returns:
    int64 (n,), first * 2**32 + second, both ways, with repeats.
  """
  height, width = nodes.shape
  pairs = np.empty(1024, np.int64)
  used = 0
  for y in range(height):
    for x in range(width):
      here = np.int64(nodes[y, x])
      for turn in range(2):
        v = y + turn
        u = x + 1 - turn
        if v >= height or u >= width:
          continue
        there = np.int64(nodes[v, u])
        if here == there or (is_kept[here] and is_kept[there]):
          continue
        if used + 2 > pairs.size:
          pairs = np.append(pairs, np.empty(pairs.size, np.int64))
        pairs[used] = here << 32 | there
        pairs[used + 1] = there << 32 | here
        used += 2
  return pairs[:used]


def list_neighbours(
  nodes: np.ndarray, is_kept: np.ndarray, num_nodes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Lists each region's neighbours, rising, where one of the two is open.

  Returns:
    starts int64 (num_nodes + 1,) and neighbours int64: those of region i are
    neighbours[starts[i]:starts[i + 1]].
  """
  pairs = np.unique(list_open_pairs(nodes, is_kept))
  counts = np.bincount(pairs >> 32, minlength=num_nodes)
  starts = np.concatenate([[0], np.cumsum(counts)])
  return starts, pairs & (2**32 - 1)


@compile_kernel
def fill_nodes(is_kept, starts, neighbours, num_objects):
  """Finds the label that every region ends with.

  Args:
    is_kept: bool (num_nodes,), from keep_outer_nodes; changed in place.
    starts: int64 (num_nodes + 1,), from list_neighbours.
    neighbours: int64, from list_neighbours.
    num_objects: regions above this are background.

  Returns:
    int32 (num_nodes,).
  """
  num_nodes = is_kept.size
  around = np.zeros(num_nodes, np.int32)
  waiting = np.empty(2 * num_nodes + 1, np.int64)
  count = 0
  for node in range(1, num_nodes):
    if is_kept[node]:
      waiting[count] = node
      count += 1
  while count:
    count -= 1
    node = waiting[count]
    for index in range(starts[node], starts[node + 1]):
      other = neighbours[index]
      if is_kept[other]:
        continue
      if node <= num_objects and around[other] in (0, node):
        around[other] = node
        continue
      is_kept[other] = True  # Beside kept background, or a second object.
      waiting[count] = other
      count += 1
  # What is left is filled from outside inwards, the highest region first.
  for node in range(1, num_nodes):
    if not is_kept[node] and around[node]:
      waiting[count] = node
      count += 1
  while count:
    count -= 1
    node = waiting[count]
    for index in range(starts[node], starts[node + 1]):
      other = neighbours[index]
      if not is_kept[other] and around[other] == 0:
        around[other] = around[node]
        waiting[count] = other
        count += 1
  filling = np.zeros(num_nodes, np.int32)
  for node in range(1, num_nodes):
    if not is_kept[node]:
      filling[node] = around[node]
    elif node <= num_objects:
      filling[node] = node
  return filling
