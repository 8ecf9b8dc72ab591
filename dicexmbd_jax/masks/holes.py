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
  look_up,
  number_roots,
  replace_labels,
)
from dicexmbd_jax.types import Labels

_SECOND = 2**32 - 1  # The bits of the second region of a pair.


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
  regions, count = number_regions(mask, 1)
  is_filled = count_labels(regions, count + 1) < max_area_px
  is_filled[list_edge_labels(regions)] = False
  is_filled[1] = True  # The mask itself.
  look_up(regions, is_filled.astype(np.int32), regions)
  filled = storage.allocate(mask.shape, bool)
  filled[...] = regions
  return filled


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
  pairs = list_contacts(regions)
  is_kept = np.ones(num_regions + 1, bool)  # Also what no pixel has.
  is_kept[pairs >> 32] = is_kept[pairs & _SECOND] = False
  is_kept[list_edge_labels(regions)] = True
  around = np.zeros(is_kept.size, np.int32)
  pairs = spread_kept(pairs, is_kept, around, num_objects)
  if is_kept.all():
    return labels
  fill_inwards(is_kept, around, *list_neighbours(pairs, is_kept))
  ids = np.arange(is_kept.size, dtype=np.int32)
  ids[num_objects + 1 :] = 0
  return replace_labels(regions, np.where(is_kept, ids, around))


def number_regions(labels: np.ndarray, num_objects: int) -> tuple[Labels, int]:
  """Numbers objects and groups of background.

  Args:
    labels: bool or int32 (y, x), objects 1..num_objects, 0 = background.
    num_objects: the highest object.

  Returns:
    int32 (y, x), regions 1..n; and n.
  """
  regions = storage.allocate(labels.shape, np.int32)
  regions[...] = labels
  # At most every other pixel begins a group; only what is used is touched.
  parent = np.empty(num_objects + labels.size // 2 + 2, np.int32)
  parent[: num_objects + 1] = np.arange(num_objects + 1)
  highest = fill_background(regions, parent, num_objects)
  highest = number_roots(parent, highest, 0)
  look_up(regions, parent, regions)
  return regions, highest


@compile_kernel
def fill_background(regions, parent, num_objects):
  """Labels background with groups, some of which are to be joined, in place.

  Args:
    regions: int32 (y, x), objects 1..num_objects, 0 = background.
    parent: int32, 0 of 0; becomes, of each group, an earlier one that it is
      to be joined with, or itself. Groups are numbered on from the objects.
    num_objects: the highest object.

  Returns:
    The highest group.
  """
  count = num_objects
  none = parent[0]  # 0 of one type with groups: find_root is compiled once.
  for y in range(regions.shape[0]):
    left = none
    for x in range(regions.shape[1]):
      if regions[y, x]:
        left = none
        continue
      above = none
      if y and regions[y - 1, x] > num_objects:
        above = regions[y - 1, x]
      if left == 0 and above == 0:
        count += 1
        parent[count] = count
        left = parent[count]
      elif left == 0:
        left = above
      elif above > 0 and above != left:
        left = find_root(parent, left)
        above = find_root(parent, above)
        if above < left:
          left, above = above, left
        parent[above] = left
      regions[y, x] = left
  return count


def list_contacts(regions: Labels) -> np.ndarray:
  """Lists the pairs of regions that touch (4-neighbours).

  Only the first pixel of a straight border is looked at. Example: of

      1 1 2
      1 1 2
      3 3 3

  1 and 2 are listed once, 1 and 3 once, 2 and 3 once.

  Args:
    regions: int32 (y, x), from number_regions.

  Returns:
    int64 (n,), first * 2**32 + second, with repeats.
  """
  found = []
  for part in storage.cut_strips(regions.shape, 16):
    pairs = np.empty(2 * regions[part].size, np.int64)
    used = fill_contacts(regions, part.start, part.stop, pairs)
    found.append(pairs[:used].copy())
  return np.concatenate(found)


@compile_kernel
def fill_contacts(regions, top, bottom, pairs):
  """Writes the pairs of list_contacts in some rows; returns how many.

  Args:
    regions: int32 (y, x).
    top: the first row; those above it are looked at, too.
    bottom: the row after the last.
    pairs: int64, two for each pixel of these rows; is written to.
  """
  used = 0
  for y in range(top, bottom):
    here = regions[y]
    above = regions[y - 1 if y else 0]
    for x in range(regions.shape[1]):
      before = x - 1 if x else 0
      is_new = here[before] != here[x]
      if is_new and not (
        y and above[before] == here[before] and above[x] == here[x]
      ):
        pairs[used] = np.int64(here[before]) << 32 | np.int64(here[x])
        used += 1
      if above[x] != here[x] and (
        x == 0 or is_new or above[before] != above[x]
      ):
        pairs[used] = np.int64(above[x]) << 32 | np.int64(here[x])
        used += 1
  return used


@compile_kernel
def spread_kept(pairs, is_kept, around, num_objects):
  """Keeps what lies by kept background or by two kept objects, and so on.

  Args:
    pairs: int64 (n,), from list_contacts; changed in place.
    is_kept: bool (m,), which regions are kept at first; changed in place.
    around: int32 (m,), zeros; becomes, for what is not kept, the one kept
      object that it touches, 0 none.
    num_objects: regions above this are background.

  Returns:
    The pairs of which one or both are not kept.
  """
  count = pairs.size
  has_changed = True
  while has_changed:
    has_changed = False
    num_open = 0
    for pair in pairs[:count]:
      here, there = pair >> 32, pair & _SECOND
      if is_kept[there]:
        here, there = there, here
      if is_kept[there]:
        continue
      if is_kept[here]:
        is_first = around[there] == 0 or around[there] == here
        if here > num_objects or not is_first:
          is_kept[there] = True
          has_changed = True
          continue
        around[there] = here
      pairs[num_open] = pair
      num_open += 1
    count = num_open
  return pairs[:count]


def list_neighbours(
  pairs: np.ndarray, is_kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Lists the neighbours of each region, rising, where both are not kept.

  Returns:
    starts int64 (m + 1,) and neighbours int64: those of region i are
    neighbours[starts[i]:starts[i + 1]].
  """
  first, second = pairs >> 32, pairs & _SECOND
  is_open = ~(is_kept[first] | is_kept[second])
  first, second = first[is_open], second[is_open]
  pairs = np.unique(np.append(first << 32 | second, second << 32 | first))
  counts = np.bincount(pairs >> 32, minlength=is_kept.size)
  return np.concatenate([[0], np.cumsum(counts)]), pairs & _SECOND


@compile_kernel
def fill_inwards(is_kept, around, starts, neighbours):
  """Hands `around` on, in place, from holes to what lies inside them.

  The highest region goes first, as with CellProfiler.

  Args:
    is_kept: bool (m,), from spread_kept.
    around: int32 (m,), from spread_kept.
    starts: int64 (m + 1,), from list_neighbours.
    neighbours: int64, from list_neighbours.
  """
  waiting = np.empty(is_kept.size, np.int64)
  count = 0
  for region in range(is_kept.size):
    if not is_kept[region] and around[region]:
      waiting[count] = region
      count += 1
  while count:
    count -= 1
    region = waiting[count]
    for other in neighbours[starts[region] : starts[region + 1]]:
      if around[other] == 0:
        around[other] = around[region]
        waiting[count] = other
        count += 1
