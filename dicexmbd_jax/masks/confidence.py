"""How sure the network was of each cell."""

import numpy as np
import pandas as pd

from dicexmbd_jax.masks.compiler import compile_kernel
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


@compile_kernel
def sum_evidence(pixels, divisor, labels, num_cells):
  """Adds up, per cell, its foreground and the change across its outline.

  The change between two pixels is half the sum over the three classes of the
  absolute differences of their probabilities: 0 for equal, 1 for certain and
  different. Pairs are 4-neighbours of which one lies in the cell.

  Args:
    pixels: (y, x, c), nucleus and membrane/cytoplasm first.
    divisor: float32; what stands for probability 1.
    labels: int32 (y, x), cells 1..num_cells.
    num_cells: the highest cell.

  Returns:
    float64 (num_cells + 1, 4): number of pixels, their summed foreground,
    number of pairs, their summed change.
  """
  height, width = labels.shape
  sums = np.zeros((num_cells + 1, 4))
  for y in range(height):
    for x in range(width):
      here = labels[y, x]
      nucleus = np.float32(pixels[y, x, 0]) / divisor
      membrane = np.float32(pixels[y, x, 1]) / divisor
      sums[here, 0] += 1
      sums[here, 1] += min(max(nucleus + membrane, 0.0), 1.0)
      for turn in range(2):
        if (y if turn else x) == 0:
          continue
        there = labels[y - turn, x - 1 + turn]
        if here == there:
          continue
        other = pixels[y - turn, x - 1 + turn]
        up = nucleus - np.float32(other[0]) / divisor
        right = membrane - np.float32(other[1]) / divisor
        # The third class is one minus the others.
        change = (abs(up) + abs(right) + abs(up + right)) / 2
        for label in (here, there):
          sums[label, 2] += 1
          sums[label, 3] += change
  return sums
