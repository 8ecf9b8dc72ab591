"""Cells grown from nuclei: CellProfiler's Propagation."""

import functools

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax import storage
from dicexmbd_jax.masks.blocks import Sides, Window, solve_blocks
from dicexmbd_jax.masks.cheapest_paths import grow_forest, weigh_steps
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.components import label_groups, replace_labels
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.peaks import list_disk
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.masks.threshold import find_threshold
from dicexmbd_jax.types import Labels


def mask_cells(
  maps: WorkingMaps, settings: Settings
) -> Bool[np.ndarray, "y x"]:
  """Marks where cells may be: the smoothed foreground against its threshold."""
  threshold = find_threshold(
    lambda: map(maps.read_foreground, maps.cut_parts()), settings.threshold
  )
  cut = min(settings.cell_correction * threshold, settings.max_cell_threshold)
  mask = storage.allocate(maps.shape, bool)
  for part in maps.cut_parts():
    mask[part.slices] = maps.read_thresholded_foreground(part) >= cut
  return mask


def grow_cells(
  maps: WorkingMaps,
  seeds: Labels,
  mask: Bool[np.ndarray, "y x"],
  settings: Settings,
) -> Labels:
  """Gives each masked pixel the seed with the cheapest path to it.

  Steps go to the eight neighbours; cheapest_paths.weigh_steps has their costs.

  Args:
    maps: the foreground's changes are what makes steps dear.
    seeds: 1..n.
    mask: where cells grow; a seed outside keeps its pixels and does not grow.
    settings: regularisation, block_px.

  Returns:
    Labels of the seeds; 0 where no seed reaches. Ties go to the path whose
    last step is the longest, then to the lower label. Source: Jones et al.
    2005 as CellProfiler's propagate computes it.
  """
  # Most blocks are solved without knowing what lies far away.
  find_reachable = functools.cache(lambda: drop_seedless(mask, seeds))
  weight = settings.regularisation

  def grow(window: Window, is_open: Sides, is_retry: bool) -> Labels:
    inside = (find_reachable() if is_retry else mask)[window.slices]
    inside = np.ascontiguousarray(inside)
    ground = np.ascontiguousarray(seeds[window.slices])
    if not inside.any():
      return ground
    outer = window.expand(1, maps.shape)
    costs = weigh_steps(
      np.ascontiguousarray(maps.read_foreground(outer)),
      inside,
      window.top - outer.top,
      window.left - outer.left,
      weight,
    )
    return grow_forest(costs, ground, inside, is_open)

  return solve_blocks(maps.shape, settings.block, grow)


def drop_seedless(
  mask: Bool[np.ndarray, "y x"], seeds: Labels
) -> Bool[np.ndarray, "y x"]:
  """Clears the groups of the mask that hold no seed: no cell grows there.

  A block inside a large one could not tell that none comes.
  """
  groups = label_groups(mask)
  has_seed = np.zeros(int(groups.max()) + 1, bool)
  for strip in storage.cut_strips(groups.shape, 16):
    has_seed[groups[strip][seeds[strip] > 0]] = True
  has_seed[0] = False
  return replace_labels(groups, has_seed)


def limit_growth(cells: Labels, seeds: Labels, radius_px: float) -> Labels:
  """Cuts from each cell what lies too far from its own nucleus.

  Where the network takes a dark gap for membrane/cytoplasm, propagation fills
  it to the next cell; most cytoplasm lies closer than that.

  Args:
    cells: labels of the seeds that they grew from.
    seeds: the nuclei, on the same grid.
    radius_px: the greatest Euclidean distance between the centre of a cell's
      pixel and the nearest pixel centre of its own nucleus, inclusive.

  Returns:
    The cells within their limit; 0 elsewhere. A label without a seed is
    dropped. The input is not changed.
  """
  # The nearest first: most pixels find their nucleus in a few steps.
  near = np.pad(list_disk(radius_px), ((1, 0), (0, 0)))  # The pixel itself.
  kept = storage.allocate(cells.shape, np.int32)
  _cut_far(cells, seeds, near, int(np.abs(near).max()), kept)
  return kept


@compile_kernel
def _cut_far(cells, seeds, near, reach, kept):
  """Keeps a pixel if its label's seed lies at one of the offsets `near`.

  Writes into `kept`, which is zeros; `reach` is the largest offset. Example,
  near = [[0, 0], [0, -1], [0, 1]]:

      seeds 0 2 0 0    cells 2 2 2 2    result 2 2 2 0
            0 0 0 0          2 2 0 0           0 0 0 0
  """
  height, width = cells.shape
  for y in range(height):
    for x in range(width):
      label = cells[y, x]
      if label == 0:
        continue
      is_inner = reach <= y < height - reach and reach <= x < width - reach
      for i in range(near.shape[0]):
        v, u = y + near[i, 0], x + near[i, 1]
        is_inside = is_inner or (0 <= v < height and 0 <= u < width)
        if is_inside and seeds[v, u] == label:
          kept[y, x] = label
          break
