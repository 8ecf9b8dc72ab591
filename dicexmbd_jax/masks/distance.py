"""Labels grown by a distance."""

import numpy as np

from dicexmbd_jax import storage
from dicexmbd_jax.masks.compiler import compile_kernel
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
    near = np.ascontiguousarray(labels[first : part.stop + margin])
    height, width = near.shape
    # Rows from each pixel to the nearest label of its column.
    rows = np.full((height + 2, width), height + width, np.int32)
    start = part.start - first
    grow_rows(near, float(reach_px), start, rows[0], rows[1:], grown[part])
  return grown


@compile_kernel
def grow_rows(labels, reach_px, start, above, below, grown):
  """Grows labels in some rows of a window, as grow_labels.

  Of labels that are equally near, the one in the leftmost column is taken, and
  in a column the upper one: in 1 0 2 the middle goes to 1.

  Args:
    labels: (y, x).
    reach_px: the greatest distance.
    start: the window's first row that is wanted.
    above: int32 (x,), y + x everywhere: rows from a pixel to the nearest label
      above it, in its column; changed in place.
    below: int32 (y + 1, x), likewise, below it.
    grown: the rows that are wanted; is written to.
  """
  height, width = labels.shape
  none = height + width
  most = int(reach_px) if reach_px < none else none - 1
  for y in range(height - 1, start - 1, -1):
    for x in range(width):
      below[y, x] = 0 if labels[y, x] != 0 else below[y + 1, x] + 1
  for y in range(start + len(grown)):
    for x in range(width):
      above[x] = 0 if labels[y, x] != 0 else above[x] + 1
    if y < start:
      continue
    for x in range(width):
      if labels[y, x] != 0:
        grown[y - start, x] = labels[y, x]
        continue
      nearest = none * none
      row = column = 0
      for other in range(max(x - most, 0), min(x + most + 1, width)):
        step = min(above[other], below[y, other])
        square = step * step + (other - x) * (other - x)
        if square < nearest:
          nearest = square
          row = y - step if above[other] == step else y + step
          column = other
      is_near = np.sqrt(nearest) <= reach_px
      grown[y - start, x] = labels[row, column] if is_near else 0
