"""Tells masks of instances from those of classes, and numbers the pieces."""

import numpy as np
from skimage import measure

from dicexmbd_jax.types import Labels

_MAX_MEAN_PIECES = 5.0  # Per id; cells that were resampled may fall apart.
_LARGEST_IDS = {2**bits - 1: bits for bits in (8, 16)}
# Ids in two large pieces; of whole masks that use every id hardly any are.
_MIN_SHARED = 8


def check_instances(labels: Labels, place: str = "") -> None:
  """Raises a ValueError where an id stands for more than one cell.

  That is: one id in several pieces (a binary mask), a few ids that are in
  many pieces each (nucleus 1, cytoplasm 2), or more cells than 8 or 16 bits
  can number, stored in so many (ids that wrapped).

  Args:
    labels: (y, x), 0 = background.
    place: where they are from, for the message.
  """
  num_ids = len(np.unique(labels[labels > 0]))
  if not num_ids:
    return
  where = f"{place}: " if place else ""
  pieces = label_components(labels)
  num_pieces = int(pieces.max())
  if num_ids == labels.max() and num_ids in _LARGEST_IDS:
    num_shared = _count_shared(labels, pieces)
    if num_shared >= _MIN_SHARED:
      raise ValueError(
        f"{where}found {num_shared} of {num_ids} ids in two places or more, "
        f"expected one id for each cell: {_LARGEST_IDS[num_ids]} bits are too "
        "few for these cells, whose ids started anew"
      )
  if num_pieces > (1 if num_ids == 1 else _MAX_MEAN_PIECES * num_ids):
    ids = "one id" if num_ids == 1 else f"{num_ids} ids"
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


def _count_shared(labels: Labels, pieces: Labels) -> int:
  """Counts the ids with two pieces or more that are as large as cells."""
  area_px = np.bincount(pieces.ravel())
  ids = np.zeros(len(area_px), np.int64)
  ids[pieces.ravel()] = labels.ravel()
  is_large = area_px >= np.median(area_px[1:]) / 2
  is_large[0] = False  # The background.
  return int((np.bincount(ids[is_large]) >= 2).sum())
