"""How well the outlines of two masks agree, pixel by pixel."""

import dataclasses
import numbers

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from dicexmbd_jax.edges import mark_edges
from dicexmbd_jax.scores import match

Outlines = Bool[np.ndarray, "y x"]


@dataclasses.dataclass(frozen=True)
class PixelScores:
  """Agreement of two sets of pixels, each 0..1.

  Where both sets are empty all are 1, where only one is they are 0.

  Attributes:
    precision: predicted pixels that are right, over predicted pixels.
    recall: reference pixels that are found, over reference pixels.
    f1: harmonic mean of precision and recall.
    jaccard: pixels in both over pixels in either; NaN with a tolerance, where
      the two sets are not the same set any more.
  """

  precision: float
  recall: float
  f1: float
  jaccard: float


def find_boundaries(labels: match.AnyLabels) -> Outlines:
  """Marks the outermost pixels of every cell.

  A boundary pixel belongs to a cell, and one of its four neighbours is of
  another cell or background. The image's border is no boundary by itself. It
  is scikit-image's find_boundaries with mode "inner" and connectivity 1.

  Args:
    labels: (y, x), 0 = background, any integer dtype.

  Returns:
    bool (y, x); all False without cells.
  """
  return mark_edges(labels) & (labels != 0)


def score_pixels(predicted: Outlines, reference: Outlines) -> PixelScores:
  """Compares two sets of pixels exactly (paper, section 2.5, pixel level)."""
  num_both = int(np.count_nonzero(predicted & reference))
  num_predicted = int(np.count_nonzero(predicted))
  num_reference = int(np.count_nonzero(reference))
  if num_predicted == num_reference == 0:
    return PixelScores(1.0, 1.0, 1.0, 1.0)
  return PixelScores(
    precision=num_both / num_predicted if num_predicted else 0.0,
    recall=num_both / num_reference if num_reference else 0.0,
    f1=2 * num_both / (num_predicted + num_reference),
    jaccard=num_both / (num_predicted + num_reference - num_both),
  )


def score_nearby(
  predicted: Outlines, reference: Outlines, tolerance_px: float
) -> PixelScores:
  """Compares two outlines, forgiving a small displacement.

  Boundary F1 (Csurka et al. 2013): a boundary pixel is right if the other mask
  has a boundary pixel within the tolerance, as the crow flies.

  Args:
    predicted: bool (y, x), from find_boundaries.
    reference: the same, same shape.
    tolerance_px: largest distance that counts, in pixels; 0 means exact.

  Returns:
    The PixelScores, jaccard NaN.

  Raises:
    ValueError: tolerance_px is negative, not finite or no number.
  """
  is_number = isinstance(tolerance_px, numbers.Real)
  if not is_number or not 0 <= tolerance_px < np.inf:
    raise ValueError(
      f"tolerance_px: found {tolerance_px!r}, expected a length, 0 or more"
    )
  num_predicted = int(np.count_nonzero(predicted))
  num_reference = int(np.count_nonzero(reference))
  if num_predicted == 0 or num_reference == 0:
    value = float(num_predicted == num_reference)
    return PixelScores(value, value, value, float("nan"))
  right = predicted & _widen(reference, tolerance_px)
  found = reference & _widen(predicted, tolerance_px)
  precision = int(np.count_nonzero(right)) / num_predicted
  recall = int(np.count_nonzero(found)) / num_reference
  f1 = divide(2 * precision * recall, precision + recall)
  return PixelScores(precision, recall, f1, float("nan"))


def score_dice(predicted: match.AnyLabels, reference: match.AnyLabels) -> float:
  """Dice overlap of cell against background pixels; 1 without any cell."""
  return score_pixels(predicted != 0, reference != 0).f1


def divide(part: float, whole: float) -> float:
  """A share; 0 where there is nothing to share."""
  return part / whole if whole else 0.0


def _widen(is_boundary: Outlines, tolerance_px: float) -> Outlines:
  """All pixels within the tolerance of a boundary pixel."""
  radius = int(tolerance_px)
  if radius > 5:  # Beyond this one distance map is quicker than the disk.
    return ndimage.distance_transform_edt(~is_boundary) <= tolerance_px
  offsets = np.mgrid[-radius : radius + 1, -radius : radius + 1]
  disk = (offsets**2).sum(axis=0) <= tolerance_px**2
  wide = np.pad(is_boundary, radius)
  rows, columns = is_boundary.shape
  result = np.zeros_like(is_boundary)
  for y, x in np.argwhere(disk):
    result |= wide[y : y + rows, x : x + columns]
  return result
