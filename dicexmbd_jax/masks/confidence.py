"""How sure the network was of each cell, and of an image as a whole."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from dicexmbd_jax import storage
from dicexmbd_jax.edges import mark_edges
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.grid import sample_labels
from dicexmbd_jax.types import Labels

# What tells right cells from wrong ones, columns of measure_evidence. The last
# two say whether the map looks as it would if the cell were right: little
# nucleus at its edge, much inside.
EVIDENCE = ("peak", "uncertainty", "inside", "edge")
# Logistic regression of right (IoU 0.5) on a constant and on these:
# launch/experiments/doubt.py fits it to the shipped weights.
WEIGHTS = (-11.67, 3.39, 4.7, 18.29, -19.62)
# Of labelled images most above it (16 of 17) had an F1 below 0.5, and three in
# five of those with such an F1 (16 of 26) lay above it.
HIGH_DOUBT = 0.4


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
  evidence = measure_evidence(probabilities, cells)
  chance = judge_cells(evidence)
  return pd.DataFrame(
    {
      "Object": np.arange(1, len(evidence) + 1),
      "confidence": np.where(evidence["num_px"] > 0, chance, 0),
      "foreground_probability": evidence["foreground"],
    }
  )


def measure_evidence(probabilities: np.ndarray, cells: Labels) -> pd.DataFrame:
  """Measures what the maps say of each cell.

  Args:
    probabilities: as measure_confidence takes them.
    cells: the same.

  Returns:
    A row per cell, 0 for one without pixels:
    num_px: its pixels on the maps.
    foreground: their mean of nucleus plus membrane/cytoplasm, 0..1.
    peak: highest nucleus probability.
    uncertainty: mean of 1 - |2 p - 1| of the nucleus probability p.
    edge: mean nucleus probability of the pixels beside another cell or
      background.
    inside: the same of all others, 0 where there are none.
  """
  divisor = np.float32(1)
  if probabilities.dtype.kind == "u":
    divisor = np.float32(np.iinfo(probabilities.dtype).max)
  num_cells = int(cells.max(initial=0))
  labels = cells
  if cells.shape != probabilities.shape[:2]:
    labels = sample_labels(cells, probabilities.shape[:2])
  sums = np.zeros((num_cells + 1, 7))
  for part in storage.cut_strips(labels.shape, 16):
    # In single precision, whatever the maps are.
    pixels = probabilities[part, :, :2].astype(np.float32)
    pixels /= divisor
    top = max(part.start - 1, 0)  # The row above tells edges, and that below.
    is_edge = mark_edges(labels[top : part.stop + 1])
    is_edge = is_edge[part.start - top :][: len(pixels)]
    add_evidence(pixels, labels[part], is_edge, sums)
  num_px, foreground, uncertainty, peak, num_edge, edge, total = sums[1:].T
  return pd.DataFrame(
    {
      "num_px": num_px,
      "foreground": foreground / np.maximum(num_px, 1),
      "peak": peak,
      "uncertainty": uncertainty / np.maximum(num_px, 1),
      "edge": edge / np.maximum(num_edge, 1),
      "inside": (total - edge) / np.maximum(num_px - num_edge, 1),
    }
  )


def judge_cells(
  evidence: pd.DataFrame, weights: Sequence[float] = WEIGHTS
) -> Float[np.ndarray, " n"]:
  """Returns the chance, 0..1, that cells are right.

  Args:
    evidence: of measure_evidence.
    weights: of a constant, and of each of EVIDENCE.
  """
  constant, *slopes = weights
  scores = constant + evidence[list(EVIDENCE)].to_numpy() @ np.array(slopes)
  return 1 / (1 + np.exp(-scores))


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
def add_evidence(pixels, labels, is_edge, sums):
  """Adds, per cell, what its probabilities say.

  Args:
    pixels: float32 (y, x, 2), nucleus and membrane/cytoplasm.
    labels: int32 (y, x), cells 1..n.
    is_edge: bool (y, x).
    sums: float64 (n + 1, 7): number of pixels, their summed foreground, their
      summed uncertainty (1 - |2 p - 1| of the nucleus), the highest nucleus
      probability p; the number of edge pixels, their summed p; the summed p of
      all pixels; changed in place.
  """
  height, width = labels.shape
  for y in range(height):
    for x in range(width):
      row = sums[labels[y, x]]
      nucleus = np.float64(pixels[y, x, 0])
      foreground = np.float64(pixels[y, x, 0] + pixels[y, x, 1])
      if foreground < 0:
        foreground = 0.0
      row[0] += 1
      row[1] += 1.0 if foreground > 1 else foreground
      row[2] += 1 - abs(2 * nucleus - 1)
      if nucleus > row[3]:
        row[3] = nucleus
      if is_edge[y, x]:
        row[4] += 1
        row[5] += nucleus
      row[6] += nucleus
