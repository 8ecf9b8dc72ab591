"""Minimum cross entropy (Li) thresholds, as two CellProfilers compute them."""

import numpy as np
from jaxtyping import Float64

Values = Float64[np.ndarray, "..."]

# Maps that vary by less are constant: a fifteenth of a step of 16 bits.
MIN_RANGE = 1e-6


def find_threshold(values: Values, method: str) -> float:
  """Finds the value that parts background and foreground.

  Args:
    values: probabilities, 0..1.
    method: "cellprofiler3" (scikit-image 0.14) or "cellprofiler4" (today's).

  Returns:
    The threshold. A map that varies by less than MIN_RANGE has none: 0, all
    foreground, where it lies at or above one half, else 1, all background.
  """
  low, high = float(values.min()), float(values.max())
  if high - low < MIN_RANGE:
    return 0.0 if high >= 0.5 else 1.0
  if method == "cellprofiler3":
    return iterate_fixed_step(values - low) + low
  return iterate_to_gap(values - low) + low


def iterate_fixed_step(values: Values) -> float:
  """Finds Li's threshold with the steps of scikit-image 0.14.

  Args:
    values: at least two different values, the least of them 0.

  Returns:
    The last cut: the estimate before last plus 1/512 of the range.
  """
  tolerance = float(np.ptp(values)) / 512
  estimate = float(values.mean())
  while True:
    cut = estimate + tolerance
    following = balance_means(values, cut)
    following += tolerance if following > 0 else -tolerance
    if abs(following - estimate) <= tolerance:
      return cut
    estimate = following


def iterate_to_gap(values: Values) -> float:
  """Finds Li's threshold as scikit-image does from 0.15 on.

  Args:
    values: at least two different values, the least of them 0.

  Returns:
    The fixed point, to half the least gap between values but at least to
    half a step of 16 bits.
  """
  tolerance = max(np.diff(np.unique(values)).min() / 2, 0.5 / 65536)
  estimate, previous = float(values.mean()), -2 * tolerance
  while abs(estimate - previous) > tolerance:
    previous = estimate
    estimate = balance_means(values, previous)
  return estimate


def balance_means(values: Values, cut: float) -> float:
  """Returns (a - b) / (ln a - ln b) of the means below and above a cut."""
  is_object = values > cut
  low = float(values[~is_object].mean())
  high = float(values[is_object].mean())
  if low == 0:
    return 0.0
  return (low - high) / (np.log(low) - np.log(high))
