"""Cells grown from nuclei: CellProfiler's Propagation."""

import numpy as np
from jaxtyping import Bool, Float64

from dicexmbd_jax.masks.forest import grow_forest, weigh_steps
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.masks.smooth import smooth_plane
from dicexmbd_jax.masks.threshold import find_threshold
from dicexmbd_jax.types import Labels


def mask_cells(
  foreground: Float64[np.ndarray, "y x"], settings: Settings
) -> Bool[np.ndarray, "y x"]:
  """Marks where cells may be.

  Args:
    foreground: nucleus plus membrane/cytoplasm, 0..1, on the working grid.
    settings: threshold and smoothing.

  Returns:
    True where the smoothed foreground reaches the threshold of the foreground.
  """
  cut = settings.cell_correction * find_threshold(
    foreground, settings.threshold
  )
  sigma = settings.cell_threshold_sigma_px * settings.scale
  return smooth_plane(foreground, sigma) >= min(max(cut, 0), 1)


def grow_cells(
  foreground: Float64[np.ndarray, "y x"],
  seeds: Labels,
  mask: Bool[np.ndarray, "y x"],
  regularisation: float,
) -> Labels:
  """Gives each masked pixel the seed with the cheapest path to it.

  A step from p to one of its eight neighbours q costs
  sqrt(D^2 + L * regularisation^2), L = |dy| + |dx|, D the sum of
  |I(p + o) - I(q + o)| over the 3x3 offsets o, clamped at the border.

  Args:
    foreground: the intensities I.
    seeds: 1..n.
    mask: where cells grow; a seed outside keeps its pixels and does not grow.
    regularisation: above 0.

  Returns:
    Labels of the seeds; 0 where no seed reaches. Ties go to the path whose
    last step is the longest, then to the lower label. Source: Jones et al.
    2005 as CellProfiler's propagate computes it.
  """
  costs = weigh_steps(foreground, regularisation)
  return grow_forest(costs, seeds, mask, regularisation)
