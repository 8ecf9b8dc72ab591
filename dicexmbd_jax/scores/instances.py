"""Tells masks of instances from those of classes, and numbers the pieces."""

import numpy as np
from skimage import measure

from dicexmbd_jax.types import Labels

_MAX_MEAN_PIECES = 5.0  # Per id; cells that were resampled may fall apart.


def check_instances(labels: Labels, place: str = "") -> None:
  """Raises a ValueError where ids number classes, not cells.

  That is: one id in several pieces (a binary mask), or a few ids that are in
  many pieces each (nucleus 1, cytoplasm 2).

  Args:
    labels: (y, x), 0 = background.
    place: where they are from, for the message.
  """
  num_ids = len(np.unique(labels[labels > 0]))
  if not num_ids:
    return
  num_pieces = int(label_components(labels).max())
  if num_pieces > (1 if num_ids == 1 else _MAX_MEAN_PIECES * num_ids):
    ids = "one id" if num_ids == 1 else f"{num_ids} ids"
    where = f"{place}: " if place else ""
    raise ValueError(
      f"{where}found {ids} in {num_pieces} pieces, expected one id for each "
      "cell: not an instance mask"
    )


def label_components(labels: Labels) -> Labels:
  """Numbers the pieces: pixels of one id that touch along an edge.

  Args:
    labels: (y, x), 0 = background.

  Returns:
    int32 (y, x); ids 1..n, 0 stays 0.
  """
  return measure.label(labels, background=0, connectivity=1).astype(np.int32)
