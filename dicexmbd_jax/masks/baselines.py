"""The paper's baselines: CellProfiler's other ways from nuclei to cells."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from dicexmbd_jax.masks.blocks import Sides, Window, solve_blocks
from dicexmbd_jax.masks.flood import flood_markers
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.types import Labels


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
