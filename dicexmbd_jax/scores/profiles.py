"""Whether matched cells carry the same proteins (paper, figure 4).

Segmentation errors matter as far as they change what is measured: the mean
counts of each marker over a cell's pixels.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64

from dicexmbd_jax.masks import measure
from dicexmbd_jax.scores import evaluate, match
from dicexmbd_jax.scores.summary import average_valid
from dicexmbd_jax.types import Stack


@dataclasses.dataclass(frozen=True)
class Correlations:
  """Pearson correlations between the cells of one-to-one pairs, -1..1.

  NaN where either side is constant, or there are fewer than two values.

  Attributes:
    markers: per marker, over the pairs' mean counts.
    cells: per pair, over the markers' mean counts.
  """

  markers: Float64[np.ndarray, " m"]
  cells: Float64[np.ndarray, " t"]

  def score(self) -> dict[str, float]:
    """Means of both: over markers, and over cells; NaN if all are."""
    return {
      "marker_pearson": average_valid(self.markers),
      "profile_pearson": average_valid(self.cells),
    }


def correlate_profiles(
  stack: Stack,
  predicted: match.AnyLabels,
  reference: match.AnyLabels,
  evaluation: evaluate.Evaluation,
) -> Correlations:
  """Correlates the mean counts of predicted cells with their partners'.

  Args:
    stack: counts, float32 (y, x, m).
    predicted: labels (y, x).
    reference: labels (y, x).
    evaluation: of exactly these two, from evaluate.evaluate_image; its
      one-to-one pairs (IoU >= 0.1) are compared.

  Returns:
    The Correlations; `cells` in the order of evaluation.errors.pairs.

  Raises:
    ValueError: the stack has another size than the masks.
  """
  if stack.shape[:2] != predicted.shape:
    raise ValueError(
      f"stack: found {stack.shape[:2]} pixels, expected the masks' "
      f"{predicted.shape}"
    )
  cells, pairs = evaluation.overlap, evaluation.errors.pairs
  ours = measure_means(
    stack, predicted, cells.predicted_ids[cells.predicted[pairs]]
  )
  theirs = measure_means(
    stack, reference, cells.reference_ids[cells.reference[pairs]]
  )
  return Correlations(
    markers=correlate_rows(ours.T, theirs.T), cells=correlate_rows(ours, theirs)
  )


def measure_means(
  stack: Stack, labels: match.AnyLabels, ids: np.ndarray
) -> Float64[np.ndarray, "t m"]:
  """Mean counts of each marker over each of some cells' pixels.

  Args:
    stack: counts (y, x, m).
    labels: (y, x).
    ids: of cells in labels, in any order.

  Returns:
    One row per id, one column per marker.
  """
  names = [str(i) for i in range(stack.shape[2])]
  table = measure.measure_intensities(stack, labels, names)
  rows = np.searchsorted(table["Object"].to_numpy(), ids)
  return table[names].to_numpy(float)[rows]


def correlate_rows(a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, " n"]:
  """Pearson correlation of each row of a with the same row of b.

  Args:
    a: (n, k).
    b: (n, k).

  Returns:
    One value per row; NaN where k < 2 or either row is constant.
  """
  if a.shape[1] < 2:
    return np.full(len(a), np.nan)
  a = a - a.mean(axis=1, keepdims=True)
  b = b - b.mean(axis=1, keepdims=True)
  scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
  with np.errstate(invalid="ignore", divide="ignore"):
    return np.where(
      scale > 0, np.clip((a * b).sum(axis=1) / scale, -1, 1), np.nan
    )
