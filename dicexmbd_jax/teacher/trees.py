"""The walk of pixels down decision trees: a loop that is compiled."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


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
  num_classes = leaves.shape[1]
  sums = np.zeros((rows.shape[0], num_classes))
  for tree in range(roots.shape[0]):
    for row in range(rows.shape[0]):
      node = roots[tree]
      while columns[node] >= 0:
        if rows[row, columns[node]] <= thresholds[node]:
          node = children[node, 0]
        else:
          node = children[node, 1]
      for k in range(num_classes):
        sums[row, k] += leaves[node, k]
  return sums
