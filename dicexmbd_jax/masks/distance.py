"""Labels grown by a distance; without numba, so that scores load soon."""

import numpy as np
from scipy import ndimage

from dicexmbd_jax import storage
from dicexmbd_jax.types import Labels


def grow_labels(labels: Labels, reach_px: float) -> Labels:
  """Gives each pixel near a label to the nearest one.

  Args:
    labels: 0 = background.
    reach_px: the greatest Euclidean distance that counts as near, inclusive.

  Returns:
    The labels, 0 elsewhere; ties as scipy.ndimage.distance_transform_edt
    breaks them. An empty image stays empty.
  """
  if not labels.any():
    return labels
  grown = storage.allocate(labels.shape, labels.dtype)
  margin = int(reach_px) + 1
  for part in storage.cut_strips(labels.shape, 16):
    first = max(part.start - margin, 0)
    near = _grow_window(labels[first : part.stop + margin], reach_px)
    grown[part] = near[part.start - first :][: part.stop - part.start]
  return grown


def _grow_window(labels: Labels, reach_px: float) -> Labels:
  if not labels.any():
    return labels
  is_free = labels == 0
  nearest = ndimage.distance_transform_edt(
    is_free, return_distances=False, return_indices=True
  )
  here = np.nonzero(is_free)
  there = tuple(axis[is_free] for axis in nearest)
  steps = (one - other for one, other in zip(here, there, strict=True))
  is_near = np.sqrt(sum(step * step for step in steps)) <= reach_px
  grown = labels.copy()
  grown[is_free] = np.where(is_near, labels[there], 0)
  return grown
