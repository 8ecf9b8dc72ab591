"""Counting and replacing labels, compiled."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def count_labels(labels, size):
  """Counts the pixels of each label.

  Args:
    labels: int32 (y, x), 0..size - 1.
    size: one more than the highest label.

  Returns:
    int64 (size,).
  """
  counts = np.zeros(size, np.int64)
  for row in labels:
    for label in row:
      counts[label] += 1
  return counts


@compile_kernel
def replace_labels(labels, table):
  """Returns each label's entry in a table: (y, x), of the table's dtype."""
  replaced = np.empty(labels.shape, table.dtype)
  for y in range(labels.shape[0]):
    for x in range(labels.shape[1]):
      replaced[y, x] = table[labels[y, x]]
  return replaced
