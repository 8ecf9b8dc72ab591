"""Whether probabilities mean what they say."""

import numpy as np
import pandas as pd
from jaxtyping import Float


def measure_reliability(
  predicted: Float[np.ndarray, " n"],
  outcome: Float[np.ndarray, " n"],
  num_bins: int = 10,
) -> pd.DataFrame:
  """Sets predicted probabilities against what came out, in bins.

  Args:
    predicted: 0..1.
    outcome: 0 or 1, or a probability where that is what is known.
    num_bins: of equal width; a value on an edge counts to the bin above, 1 to
      the last.

  Returns:
    One row per bin that is not empty: low and high, its edges; num; predicted
    and outcome, the means in it.

  Raises:
    ValueError: arrays of different lengths, or predictions outside 0..1.
  """
  if predicted.shape != outcome.shape:
    raise ValueError(
      f"outcome: found {outcome.shape} values, expected {predicted.shape}"
    )
  if predicted.size and not (predicted.min() >= 0 and predicted.max() <= 1):
    raise ValueError(
      f"predicted: found {predicted.min():g} to {predicted.max():g}, "
      "expected 0 to 1"
    )
  index = np.minimum((predicted * num_bins).astype(int), num_bins - 1)
  num, sums, outcomes = (
    np.bincount(index, weights, num_bins)
    for weights in (None, predicted, outcome)
  )
  edges = np.arange(num_bins + 1) / num_bins
  table = pd.DataFrame(
    {
      "low": edges[:-1],
      "high": edges[1:],
      "num": num,
      "predicted": sums / np.maximum(num, 1),
      "outcome": outcomes / np.maximum(num, 1),
    }
  )
  return table[table["num"] > 0].reset_index(drop=True)


def score_calibration(reliability: pd.DataFrame) -> float:
  """Returns the expected calibration error (Guo et al. 2017), 0 is best.

  The mean over all predictions of how far apart their bin's predicted and
  outcome are. NaN without predictions.

  Args:
    reliability: of measure_reliability.
  """
  gaps = (reliability["predicted"] - reliability["outcome"]).abs()
  total = reliability["num"].sum()
  return float((gaps * reliability["num"]).sum() / total) if total else np.nan
