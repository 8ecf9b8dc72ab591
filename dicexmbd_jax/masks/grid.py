"""From the working grid to the masks' pixels."""

import numpy as np
from jaxtyping import Int32

from dicexmbd_jax.types import Labels


def sample_labels(
  labels: Labels, shape: tuple[int, int], aligns_corners: bool = False
) -> Int32[np.ndarray, "v u"]:
  """Reads labels at the pixel centres of another grid over the same area.

  Args:
    labels: on the working grid.
    shape: rows and columns wanted.
    aligns_corners: whether, instead, the first and last pixels coincide.

  Returns:
    The nearest pixel's label at each centre; half-way, the later pixel's.
  """
  find = _align_corners if aligns_corners else _align_edges
  rows, columns = (
    find(size, wanted) for size, wanted in zip(labels.shape, shape, strict=True)
  )
  return labels[np.ix_(rows, columns)]


def _align_edges(size: int, wanted: int) -> np.ndarray:
  return np.floor((np.arange(wanted) + 0.5) * (size / wanted)).astype(int)


def _align_corners(size: int, wanted: int) -> np.ndarray:
  step = (size - 1) / max(wanted - 1, 1)
  return np.floor(np.arange(wanted) * step + 0.5).astype(int)
