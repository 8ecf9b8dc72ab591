"""How sure the network was of each cell."""

import numpy as np
import pandas as pd

from dicexmbd_jax.masks.evidence import sum_evidence
from dicexmbd_jax.masks.grid import sample_labels
from dicexmbd_jax.types import Labels


def measure_confidence(
  probabilities: np.ndarray, cells: Labels
) -> pd.DataFrame:
  """Measures each cell's certainty on the maps.

  Args:
    probabilities: (y, x, c), nucleus and membrane/cytoplasm first: 0..1, or
      uint8 or uint16, whose highest value stands for 1.
    cells: ids 1..n over the same area; read at the maps' pixel centres where
      the grids differ.

  Returns:
    One row per cell, in order of the ids:
    Object: the id.
    foreground_probability: mean over the cell's pixels of nucleus plus
      membrane/cytoplasm, 0..1.
    boundary_sharpness: mean change of the three probabilities across the
      cell's outline, 0..1: over all pairs of 4-neighbours of which one lies
      in the cell, half the sum of the absolute differences. 0 where the maps
      are flat, so that the outline is a guess, or there is no outline.
    Both are 0 for a cell that lies between the maps' pixel centres.
  """
  divisor = np.float32(1)
  if probabilities.dtype.kind == "u":
    divisor = np.float32(np.iinfo(probabilities.dtype).max)
  num_cells = int(cells.max(initial=0))
  labels = cells
  if cells.shape != probabilities.shape[:2]:
    labels = sample_labels(cells, probabilities.shape[:2])
  sums = sum_evidence(probabilities, divisor, labels, num_cells)[1:]
  return pd.DataFrame(
    {
      "Object": np.arange(1, num_cells + 1),
      "foreground_probability": sums[:, 1] / np.maximum(sums[:, 0], 1),
      "boundary_sharpness": sums[:, 3] / np.maximum(sums[:, 2], 1),
    }
  )
