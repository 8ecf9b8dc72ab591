"""How unsure the teacher is of each pixel: where strokes would help most."""

import numpy as np
from jaxtyping import Float32

from dicexmbd_jax.types import Probabilities

KINDS = ("margin", "entropy")

Uncertainty = Float32[np.ndarray, "y x"]


def measure_uncertainty(
  probabilities: Probabilities, kind: str = "margin"
) -> Uncertainty:
  """Measures uncertainty from 0, one class is certain, to 1, all are equal.

  Args:
    probabilities: (y, x, classes), adding up to 1.
    kind: "margin", Ilastik's: 1 minus the difference of the two highest
      probabilities; or "entropy", divided by that of equal probabilities.

  Returns:
    Float32 (y, x) in 0..1. Two equal classes have margin 1 as three have;
    entropy tells them apart.

  Raises:
    ValueError: an unknown kind, or not (y, x, 2 or more).
  """
  if kind not in KINDS:
    raise ValueError(f"found {kind!r}, expected one of {', '.join(KINDS)}")
  if probabilities.ndim != 3 or probabilities.shape[2] < 2:
    raise ValueError(
      f"probabilities: found shape {probabilities.shape}, expected (y, x, "
      "classes) with two classes or more"
    )
  if kind == "margin":
    ordered = np.sort(probabilities, axis=2)
    values = 1 - (ordered[..., -1] - ordered[..., -2])
  else:
    safe = np.where(probabilities > 0, probabilities, 1)
    values = -(probabilities * np.log(safe)).sum(axis=2)
    values = values / np.log(probabilities.shape[2])
  return np.clip(values, 0, 1).astype(np.float32)
