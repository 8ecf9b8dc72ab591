"""The labels behind a simulated image."""

import numpy as np
from jaxtyping import Bool
from skimage import measure

from dicexmbd_jax.simulate.outline import SUBPIXELS, Painting
from dicexmbd_jax.types import Labels

MIN_AREA_PX = 12  # Smaller slivers are no cells one could see or measure.
MIN_NUCLEUS_PX = 4  # Smaller ones cannot be told from a speck.


def cut_labels(
  painting: Painting, has_nucleus: Bool[np.ndarray, " n"]
) -> tuple[Labels, Labels, np.ndarray]:
  """Makes the truth at one pixel per um.

  Args:
    painting: who owns each sub-pixel.
    has_nucleus: whether the section shows the cell's nucleus.

  Returns:
    cells and nuclei, int32 (y, x), with shared ids 1..n and each object one
    4-connected piece, nuclei inside their cells; and the n cells' indices.
  """
  owner = _vote(painting.owner)
  owner = _keep_largest(owner + 1) - 1
  area = np.bincount(owner[owner >= 0], minlength=len(has_nucleus))
  kept = np.flatnonzero(area >= min(MIN_AREA_PX, owner.size))
  number = np.zeros(len(has_nucleus) + 1, np.int32)
  number[kept] = np.arange(1, len(kept) + 1)
  cells = number[owner]
  is_inside = (painting.nucleus_distance < 1) & (painting.owner >= 0)
  is_inside &= has_nucleus[painting.owner]
  nuclei = np.where(_vote(is_inside.astype(np.int32)) > 0, cells, 0)
  nuclei = _keep_largest(nuclei).astype(np.int32)
  is_seen = np.bincount(nuclei.ravel(), minlength=1) >= MIN_NUCLEUS_PX
  nuclei = np.where(is_seen[nuclei], nuclei, 0).astype(np.int32)
  return cells.astype(np.int32), nuclei, kept


def _vote(fine: np.ndarray) -> np.ndarray:
  """Reduces 2 x 2 sub-pixels to the commonest value; ties take the larger."""
  shape = (
    fine.shape[0] // SUBPIXELS,
    SUBPIXELS,
    fine.shape[1] // SUBPIXELS,
    -1,
  )
  blocks = fine.reshape(shape).swapaxes(1, 2).reshape(shape[0], shape[2], -1)
  a, b, c, d = np.moveaxis(np.sort(blocks, axis=-1), -1, 0)
  return np.where(b == c, b, np.where((c == d) | (a != b), d, b))


def _keep_largest(labels: np.ndarray) -> np.ndarray:
  """Clears all but the largest 4-connected piece of each label."""
  pieces, num = measure.label(
    labels, background=0, connectivity=1, return_num=True
  )
  area = np.bincount(pieces.ravel(), minlength=num + 1)
  value = np.zeros(num + 1, labels.dtype)
  value[pieces.ravel()] = labels.ravel()
  best = np.zeros(int(labels.max(initial=0)) + 1, int)
  order = np.argsort(area[1:], kind="stable") + 1
  best[value[order]] = order
  is_kept = best[value] == np.arange(num + 1)
  return np.where(is_kept[pieces], labels, 0)
