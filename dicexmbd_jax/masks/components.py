"""Labels: numbered, counted, replaced; time grows with the pixels only."""

import numpy as np

from dicexmbd_jax import storage
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.types import Labels


def label_groups(mask: np.ndarray) -> Labels:
  """Numbers the 8-connected groups of a mask.

  Args:
    mask: bool (y, x).

  Returns:
    int32 (y, x), 1..n in raster order of the groups' first pixels, 0 outside.
  """
  labels = storage.allocate(mask.shape, np.int32)
  height, width = mask.shape
  # At most every fourth pixel begins a group, but for a single row or column.
  parent = np.zeros((height // 2 + 1) * (width // 2 + 1) + 1, np.int32)
  count = fill_groups(mask, labels, parent)
  number_roots(parent, count, 0)
  look_up(labels, parent, labels)
  return labels


@compile_kernel
def fill_groups(mask, labels, parent):
  """Labels the pixels of a mask with groups, some of which are to be joined.

  Args:
    mask: bool (y, x).
    labels: int32 (y, x), zeros; becomes the groups, 1 and up.
    parent: int32, zeros; becomes, of each group, an earlier one that it is to
      be joined with, or itself.

  Returns:
    The number of groups.
  """
  height, width = mask.shape
  count = 0
  none = parent[0]  # 0 of one type with groups: find_root is compiled once.
  for y in range(height):
    for x in range(width):
      if not mask[y, x]:
        continue
      left = labels[y, x - 1] if x else none
      above = labels[y - 1, x] if y else none
      if above:  # Touches all other neighbours but for the farther corners.
        labels[y, x] = above
        continue
      corner = labels[y - 1, x + 1] if y and x + 1 < width else none
      other = left
      if left == 0 and x and y:
        other = labels[y - 1, x - 1]
      if corner and other and corner != other:
        corner = find_root(parent, corner)
        other = find_root(parent, other)
        if other < corner:
          corner, other = other, corner
        parent[other] = corner
        labels[y, x] = corner
      elif corner or other:
        labels[y, x] = corner if corner else other
      else:
        count += 1
        parent[count] = count
        labels[y, x] = count
  return count


@compile_kernel
def find_root(parent, group):
  """Follows a group to the first one it was joined with, shortening the way."""
  while parent[group] != group:
    parent[group] = parent[parent[group]]
    group = parent[group]
  return group


@compile_kernel
def number_roots(parent, count, highest):
  """Numbers joined groups in place; returns the highest number.

  Args:
    parent: int32, for each of the groups 1..count an earlier one it was joined
      with, or itself; becomes its number.
    count: the number of groups before joining.
    highest: numbers go on from here.
  """
  for group in range(1, count + 1):
    # Parents come before their children: theirs are numbers already.
    if parent[group] == group:
      highest += 1
      parent[group] = highest
    else:
      parent[group] = parent[parent[group]]
  return highest


def count_labels(labels, size):
  """Counts the pixels of each label.

  Args:
    labels: int32 (y, x), 0..size - 1.
    size: one more than the highest label.

  Returns:
    int64 (size,).
  """
  counts = np.zeros(size, np.int64)
  add_pixels(labels, counts)
  return counts


@compile_kernel
def add_pixels(labels, counts):
  """Adds each label's pixels to its count, int64 (n,), in place."""
  for y in range(labels.shape[0]):
    for x in range(labels.shape[1]):
      counts[labels[y, x]] += 1


def replace_labels(labels: Labels, table: np.ndarray) -> np.ndarray:
  """Returns each label's entry in a table: (y, x), of the table's dtype."""
  replaced = storage.allocate(labels.shape, table.dtype)
  look_up(labels, table, replaced)
  return replaced


@compile_kernel
def look_up(labels, table, found):
  """Writes each label's entry in a table to `found`; may be `labels` itself."""
  for y in range(labels.shape[0]):
    for x in range(labels.shape[1]):
      found[y, x] = table[labels[y, x]]


def list_edge_labels(labels: np.ndarray) -> np.ndarray:
  """Lists the labels on the outermost rows and columns, 0 included if there."""
  rims = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
  return np.unique(np.concatenate(rims))
