"""From the working grid to the masks' pixels."""

import numpy as np

from dicexmbd_jax.types import Labels


def sample_labels(labels: Labels, shape: tuple[int, int]) -> Labels:
  """Reads labels at the pixel centres of another grid over the same area.

  Args:
    labels: on the working grid.
    shape: rows and columns wanted.

  Returns:
    The nearest pixel's label at each centre; half-way, the later pixel's.
  """
  rows, columns = (
    np.floor((np.arange(wanted) + 0.5) * (size / wanted)).astype(int)
    for wanted, size in zip(shape, labels.shape, strict=True)
  )
  return labels[np.ix_(rows, columns)]
