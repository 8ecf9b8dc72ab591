"""How sure the network was of each cell, and of an image as a whole."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from dicexmbd_jax import storage
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.grid import sample_labels
from dicexmbd_jax.types import Labels

# Logistic regression of right (IoU 0.5) on a constant, a cell's peak and its
# uncertainty: launch/experiments/doubt.py fits it to the shipped weights.
WEIGHTS = (-3.32, 9.43, -8.63)
# Of labelled images most above it (18 of 21) had an F1 below 0.5, and two
# thirds of those with such an F1 (18 of 27) lay above it.
HIGH_DOUBT = 0.45


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
    confidence: the chance, 0..1, that the cell is right, by judge_cells.
    foreground_probability: mean over the cell's pixels of nucleus plus
      membrane/cytoplasm, 0..1.
    Both are 0 for a cell that lies between the maps' pixel centres.
  """
  sums = measure_evidence(probabilities, cells)
  chance = judge_cells(sums[:, 3], sums[:, 2])
  return pd.DataFrame(
    {
      "Object": np.arange(1, len(sums) + 1),
      "confidence": np.where(sums[:, 0] > 0, chance, 0),
      "foreground_probability": sums[:, 1],
    }
  )


def measure_evidence(
  probabilities: np.ndarray, cells: Labels
) -> Float[np.ndarray, "n 4"]:
  """Measures what the maps say of each cell.

  Args:
    probabilities: as measure_confidence takes them.
    cells: the same.

  Returns:
    A row per cell: its pixels on the maps; the means over them of foreground
    and of uncertainty, 1 - |2 p - 1| of the nucleus probability p; the
    highest nucleus probability. 0 for a cell without pixels.
  """
  divisor = np.float32(1)
  if probabilities.dtype.kind == "u":
    divisor = np.float32(np.iinfo(probabilities.dtype).max)
  num_cells = int(cells.max(initial=0))
  labels = cells
  if cells.shape != probabilities.shape[:2]:
    labels = sample_labels(cells, probabilities.shape[:2])
  sums = np.zeros((num_cells + 1, 4))
  for part in storage.cut_strips(labels.shape, 16):
    # In single precision, whatever the maps are.
    pixels = probabilities[part, :, :2].astype(np.float32)
    pixels /= divisor
    add_evidence(pixels, labels[part], sums)
  sums = sums[1:]
  sums[:, 1:3] /= np.maximum(sums[:, :1], 1)
  return sums


def judge_cells(
  peaks: Float[np.ndarray, " n"],
  uncertainties: Float[np.ndarray, " n"],
  weights: tuple[float, ...] = WEIGHTS,
) -> Float[np.ndarray, " n"]:
  """Returns the chance, 0..1, that cells are right.

  Args:
    peaks: highest nucleus probability in each cell.
    uncertainties: mean over each cell, see measure_evidence.
    weights: of a constant, the peak and the uncertainty.
  """
  constant, peak, uncertainty = weights
  return 1 / (
    1 + np.exp(-(constant + peak * peaks + uncertainty * uncertainties))
  )


def measure_doubt(probabilities: np.ndarray, cells: Labels) -> float | None:
  """Measures how doubtful an image's cells are as a whole.

  Args:
    probabilities: as measure_confidence takes them.
    cells: of the whole image.

  Returns:
    One minus the mean confidence of the cells, 0..1; None without cells.
  """
  confidence = measure_confidence(probabilities, cells)["confidence"]
  return float(1 - confidence.mean()) if len(confidence) else None


def advise(doubt: float | None) -> tuple[str, ...]:
  """Returns what to do about a doubtful image: one line, or none.

  Args:
    doubt: of measure_doubt.
  """
  if doubt is None or doubt <= HIGH_DOUBT:
    return ()
  return (
    f"the cells are doubtful ({doubt:.2f} of 1): look at the overlay; check "
    "panel, focus and pixel size; if they are right, the network does not "
    "know such tissue, and training on a few corrected images would help",
  )


@compile_kernel
def add_evidence(pixels, labels, sums):
  """Adds, per cell, what its probabilities say.

  Args:
    pixels: float32 (y, x, 2), nucleus and membrane/cytoplasm.
    labels: int32 (y, x), cells 1..n.
    sums: float64 (n + 1, 4): number of pixels, their summed foreground, their
      summed uncertainty (1 - |2 p - 1| of the nucleus), the highest nucleus
      probability; changed in place.
  """
  height, width = labels.shape
  for y in range(height):
    for x in range(width):
      row = sums[labels[y, x]]
      nucleus = pixels[y, x, 0]
      foreground = np.float64(nucleus + pixels[y, x, 1])
      if foreground < 0:
        foreground = 0.0
      row[0] += 1
      row[1] += 1.0 if foreground > 1 else foreground
      row[2] += 1 - abs(2 * nucleus - 1)
      if nucleus > row[3]:
        row[3] = nucleus
