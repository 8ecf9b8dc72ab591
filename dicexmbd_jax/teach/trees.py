"""The walk of pixels down decision trees: a loop that is compiled."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel

_ROWS_AT_ONCE = 256


@compile_kernel
def sum_leaves(rows, roots, columns, thresholds, children, leaves):
  """Adds up, for every row, the class shares of the leaves that it falls into.

  Args:
    rows: float32 (n, columns).
    roots: int64 (trees,), each tree's first node.
    columns: int32 (nodes,), what a node looks at; -1 for a leaf.
    thresholds: float64 (nodes,); values up to it go to the first child.
    children: int32 (nodes, 2).
    leaves: float64 (nodes, classes), the shares of a leaf.

  Returns:
    float64 (n, classes), added in the trees' order.
  """
  num_rows, num_classes = rows.shape[0], leaves.shape[1]
  sums = np.zeros((num_rows, num_classes))
  # A few rows at a time stay in the cache while all the trees see them.
  for start in range(0, num_rows, _ROWS_AT_ONCE):
    stop = min(start + _ROWS_AT_ONCE, num_rows)
    for tree in range(roots.shape[0]):
      for row in range(start, stop):
        node = roots[tree]
        while columns[node] >= 0:
          if rows[row, columns[node]] <= thresholds[node]:
            node = children[node, 0]
          else:
            node = children[node, 1]
        for k in range(num_classes):
          sums[row, k] += leaves[node, k]
  return sums
