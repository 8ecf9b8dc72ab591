"""Holes in masks and in labelled objects, filled as CellProfiler fills them.

Regions are the objects 1..num_objects and, numbered on from there in raster
order, the 4-connected groups of background.
"""

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax import storage
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.components import (
  count_labels,
  find_root,
  list_edge_labels,
  number_roots,
  replace_labels,
)
from dicexmbd_jax.types import Labels


def fill_small_holes(
  mask: Bool[np.ndarray, "y x"], max_area_px: float
) -> Bool[np.ndarray, "y x"]:
  """Fills the holes of a mask that are smaller than an area.

  A hole is a 4-connected group of clear pixels that does not touch the edge.

  Args:
    mask: True is foreground.
    max_area_px: holes of this many pixels and more stay.

  Returns:
    The filled mask; a clear mask stays clear. Source: fill_labeled_holes of
    CellProfiler's library with its size function.
  """
  regions, count = number_regions(mask.view(np.int8), 1)
  is_filled = count_labels(regions, count + 1) < max_area_px
  is_filled[list_edge_labels(regions)] = False
  is_filled[1] = True  # The mask itself.
  return replace_labels(regions, is_filled)


def fill_object_holes(labels: Labels) -> Labels:
  """Fills what lies inside one object with that object's label.

  A group of background pixels (4-connected) or an object is kept if it touches
  the edge, if it is an object next to kept background, or if it lies next to
  two kept objects. Whatever is not kept takes the label of the object around
  it, so an object enclosed by another disappears.

  Args:
    labels: objects 1..n, 0 = background.

  Returns:
    The filled labels, or `labels` itself where there is nothing to fill.
    Source: fill_labeled_holes of CellProfiler's library.
  """
  num_objects = int(labels.max())
  regions, num_regions = number_regions(labels, num_objects)
  is_kept = keep_outer_regions(regions, num_objects, num_regions)
  num_kept = 0
  while num_kept < np.count_nonzero(is_kept) < is_kept.size:
    num_kept = int(np.count_nonzero(is_kept))
    is_kept = keep_inner_regions(regions, is_kept, num_objects)
  if is_kept.all():
    return labels
  starts, neighbours = list_neighbours(regions, is_kept)
  filling = fill_regions(is_kept, starts, neighbours, num_objects)
  return replace_labels(regions, filling)


def number_regions(labels: np.ndarray, num_objects: int) -> tuple[Labels, int]:
  """Numbers objects and groups of background.

  Args:
    labels: int8 or int32 (y, x), objects 1..num_objects, 0 = background.
    num_objects: the highest object.

  Returns:
    int32 (y, x), regions 1..n; and n.
  """
  regions = storage.allocate(labels.shape, np.int32)
  return regions, fill_numbers(labels, num_objects, regions)


@compile_kernel
def fill_numbers(labels, num_objects, regions):
  """Writes the numbers of number_regions into `regions`; returns how many."""
  height, width = labels.shape
  # At most every other pixel begins a group; only what is used is touched.
  parent = np.empty(height * width // 2 + 2, np.int32)
  count = 0
  for y in range(height):
    left = 0
    for x in range(width):
      if labels[y, x]:
        left = 0
      else:
        above = regions[y - 1, x] if y else 0
        if left == 0 and above == 0:
          count += 1
          parent[count] = count
          left = count
        elif left == 0:
          left = above
        elif above > 0 and above != left:
          left = find_root(parent, left)
          above = find_root(parent, above)
          parent[max(left, above)] = min(left, above)
          left = min(left, above)
      regions[y, x] = left
  num_regions = number_roots(parent, count, num_objects)
  for y in range(height):
    for x in range(width):
      label = labels[y, x]
      regions[y, x] = label if label else parent[regions[y, x]]
  return num_regions


@compile_kernel
def keep_outer_regions(regions, num_objects, num_regions):
  """Marks the regions that are kept at first sight, when holes are filled.

  These touch the edge, or are objects beside background that does, or numbers
  that no pixel has.

  Args:
    regions: int32 (y, x), from number_regions.
    num_objects: the highest object.
    num_regions: the highest region.

  Returns:
    bool (num_regions + 1,).
  """
  height, width = regions.shape
  touches_edge = np.zeros(num_regions + 1, np.bool_)
  touches_edge[regions[:, 0]] = True
  touches_edge[regions[:, width - 1]] = True
  touches_edge[regions[0]] = True
  touches_edge[regions[height - 1]] = True
  is_kept = touches_edge.copy()
  occurs = np.zeros(num_regions + 1, np.bool_)
  for y in range(height):
    for x in range(width):
      region = regions[y, x]
      occurs[region] = True
      for turn in range(2):
        if (y if turn else x) == 0:
          continue
        other = regions[y - turn, x - 1 + turn]
        if other == region:
          continue
        if region > num_objects and touches_edge[region]:
          is_kept[other] = True
        elif other > num_objects and touches_edge[other]:
          is_kept[region] = True
  return is_kept | ~occurs


@compile_kernel
def keep_inner_regions(regions, is_kept, num_objects):
  """Marks what lies next to two kept objects, or is an object by kept ground.

  One turn over the pixels; what is left is for fill_regions.

  Args:
    regions: int32 (y, x), from number_regions.
    is_kept: bool (n + 1,), from keep_outer_regions.
    num_objects: the highest object.

  Returns:
    bool (n + 1,).
  """
  height, width = regions.shape
  is_kept = is_kept.copy()
  around = np.zeros(is_kept.size, np.int32)
  for y in range(height):
    for x in range(width):
      for turn in range(2):
        if (y if turn else x) == 0:
          continue
        here = regions[y, x]
        there = regions[y - turn, x - 1 + turn]
        if is_kept[here] == is_kept[there]:
          continue
        if is_kept[there]:
          here, there = there, here
        # Now `here` is kept and `there` is open.
        is_first = around[there] == 0 or around[there] == here
        if here <= num_objects and is_first:
          around[there] = here
        else:
          is_kept[there] = True
  return is_kept


@compile_kernel
def list_open_pairs(regions, is_kept):
  """Lists the touching regions (4-neighbours) of which one is not kept yet.

  Returns:
    int64 (n,), first * 2**32 + second, both ways, with repeats.
  """
  height, width = regions.shape
  pairs = np.empty(1024, np.int64)
  used = 0
  for y in range(height):
    if used + 4 * width > pairs.size:
      pairs = np.append(pairs, np.empty(used + 4 * width, np.int64))
    for x in range(width):
      here = np.int64(regions[y, x])
      for turn in range(2):
        if (y if turn else x) == 0:
          continue
        there = np.int64(regions[y - turn, x - 1 + turn])
        if here == there or (is_kept[here] and is_kept[there]):
          continue
        pairs[used] = here << 32 | there
        pairs[used + 1] = there << 32 | here
        used += 2
  return pairs[:used].copy()


def list_neighbours(
  regions: np.ndarray, is_kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Lists each region's neighbours, rising, where one of the two is open.

  Returns:
    starts int64 (n + 2,) and neighbours int64: those of region i are
    neighbours[starts[i]:starts[i + 1]].
  """
  pairs = np.unique(list_open_pairs(regions, is_kept))
  counts = np.bincount(pairs >> 32, minlength=is_kept.size)
  starts = np.concatenate([[0], np.cumsum(counts)])
  return starts, pairs & (2**32 - 1)


@compile_kernel
def fill_regions(is_kept, starts, neighbours, num_objects):
  """Finds the label that every region ends with.

  Args:
    is_kept: bool (n + 1,), from keep_outer_regions.
    starts: int64 (n + 2,), from list_neighbours.
    neighbours: int64, from list_neighbours.
    num_objects: regions above this are background.

  Returns:
    int32 (n + 1,).
  """
  is_kept, around = _spread_kept(is_kept, starts, neighbours, num_objects)
  _fill_inwards(is_kept, around, starts, neighbours)
  filling = np.zeros(is_kept.size, np.int32)
  for region in range(1, is_kept.size):
    if not is_kept[region]:
      filling[region] = around[region]
    elif region <= num_objects:
      filling[region] = region
  return filling


@compile_kernel
def _spread_kept(is_kept, starts, neighbours, num_objects):
  """Keeps what lies by kept background or by two kept objects, and so on.

  Returns:
    bool (n + 1,), what is kept at last; int32 (n + 1,), for the others the
    one kept object they touch, 0 none.
  """
  is_kept = is_kept.copy()
  around = np.zeros(is_kept.size, np.int32)
  waiting, count = _start_stack(is_kept)
  while count:
    count -= 1
    region = waiting[count]
    for index in range(starts[region], starts[region + 1]):
      other = neighbours[index]
      if is_kept[other]:
        continue
      is_first = around[other] == 0 or around[other] == region
      if region <= num_objects and is_first:
        around[other] = region
        continue
      is_kept[other] = True
      waiting[count] = other
      count += 1
  return is_kept, around


@compile_kernel
def _fill_inwards(is_kept, around, starts, neighbours):
  """Hands `around` on, in place, from holes to what lies inside them.

  The highest region goes first, as with CellProfiler.
  """
  waiting, count = _start_stack(~is_kept & (around > 0))
  while count:
    count -= 1
    region = waiting[count]
    for index in range(starts[region], starts[region + 1]):
      other = neighbours[index]
      if not is_kept[other] and around[other] == 0:
        around[other] = around[region]
        waiting[count] = other
        count += 1


@compile_kernel
def _start_stack(is_first):
  """Returns a stack with room for all regions, and how many are on it."""
  first = np.flatnonzero(is_first)
  waiting = np.empty(is_first.size, np.int64)
  waiting[: first.size] = first
  return waiting, first.size
