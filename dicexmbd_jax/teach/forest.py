"""A random forest with Ilastik's settings, as plain arrays once it is fit.

Ilastik's (vigra's): 100 trees, each on as many rows as there are, drawn with
replacement; Gini impurity; the square root of the number of columns tried at
every node; nodes are split until they are pure; classes are not weighted. A
probability is the mean over the trees of the class shares in the leaf. Other
than Ilastik's, a tree draws MAX_DRAWS rows at most.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from dicexmbd_jax.masks.compiler import compile_kernel

NUM_TREES = 100
# More than anyone paints: without a bound, a million rows take an hour.
MAX_DRAWS = 100_000
CLASSES = ("nucleus", "membrane/cytoplasm", "background")  # Labels 1, 2, 3.

_ROWS_AT_ONCE = 256

Rows = Float32[np.ndarray, "n columns"]


@dataclasses.dataclass(frozen=True)
class Forest:
  """Decision trees, one after another, over all nodes of all trees.

  Attributes:
    roots: each tree's first node.
    columns: what a node looks at; -1 for a leaf.
    thresholds: values up to it go to the first child.
    children: the two next nodes; 0 for a leaf.
    leaves: the shares of the classes in a leaf; 0 for the others.
    num_columns: of the rows that the forest expects.
  """

  roots: Int64[np.ndarray, " trees"]
  columns: Int32[np.ndarray, " nodes"]
  thresholds: Float64[np.ndarray, " nodes"]
  children: Int32[np.ndarray, "nodes 2"]
  leaves: Float64[np.ndarray, "nodes 3"]
  num_columns: int


def fit_forest(
  rows: Rows,
  labels: Int32[np.ndarray, " n"],
  seed: int,
  num_trees: int = NUM_TREES,
  num_threads: int = 1,
) -> Forest:
  """Fits a forest.

  Args:
    rows: the features of the annotated pixels.
    labels: their classes: 1 nucleus, 2 membrane/cytoplasm, 3 background.
    seed: decides everything random; the same rows in the same order and the
      same seed give the same forest.
    num_trees: fewer are for what is soon fit anew.
    num_threads: at work on the trees; they do not change the forest.

  Returns:
    The forest. A class without a pixel has probability 0 everywhere.

  Raises:
    ValueError: rows that are not finite, an unknown class, or fewer than two.
  """
  check_classes(labels)
  if not np.isfinite(rows).all():
    raise ValueError("rows: found features that are not finite")
  # Only here: prediction never loads it.
  from sklearn.ensemble import RandomForestClassifier

  model = RandomForestClassifier(
    num_trees,
    max_features=max(1, math.floor(math.sqrt(rows.shape[1]) + 0.5)),
    max_samples=MAX_DRAWS if len(rows) > MAX_DRAWS else None,
    random_state=seed,
    n_jobs=num_threads,
  )
  model.fit(rows, labels)
  return _gather_trees(model)


def predict_forest(
  forest: Forest, features: Float32[np.ndarray, "y x columns"]
) -> Float32[np.ndarray, "y x 3"]:
  """Returns the probabilities of the three classes, which add up to 1.

  Args:
    forest: as fit_forest gives it.
    features: of every pixel, in the columns that the forest was fit on.

  Raises:
    ValueError: another number of columns.
  """
  height, width, num_columns = features.shape
  if num_columns != forest.num_columns:
    raise ValueError(
      f"features: found {num_columns} columns, expected {forest.num_columns}"
    )
  rows = np.ascontiguousarray(features.reshape(-1, num_columns))
  sums = sum_leaves(
    rows,
    forest.roots,
    forest.columns,
    forest.thresholds,
    forest.children,
    forest.leaves,
  )
  shares = (sums / forest.roots.size).astype(np.float32)
  return shares.reshape(height, width, -1)


def check_classes(labels: np.ndarray) -> None:
  """Raises a ValueError where a forest cannot be fit on these labels."""
  found = np.unique(labels)
  unknown = found[(found < 1) | (found > len(CLASSES))]
  if unknown.size:
    raise ValueError(
      f"found the label {unknown[0]}, expected 1 to {len(CLASSES)}: "
      f"{', '.join(CLASSES)}"
    )
  if found.size < 2:
    names = [CLASSES[label - 1] for label in found]
    raise ValueError(
      f"found annotated pixels of {names[0] if names else 'no class'} only, "
      "expected two classes or more"
    )


def _gather_trees(model) -> Forest:
  """Takes the trees of a fitted scikit-learn forest as arrays."""
  trees = [one.tree_ for one in model.estimators_]
  sizes = [tree.node_count for tree in trees]
  roots = np.cumsum([0, *sizes[:-1]])
  num_nodes = sum(sizes)
  leaves = np.zeros((num_nodes, len(CLASSES)))
  children = np.zeros((num_nodes, 2), np.int32)
  for tree, root, size in zip(trees, roots, sizes, strict=True):
    part = slice(root, root + size)
    is_leaf = tree.children_left < 0
    both = np.stack([tree.children_left, tree.children_right], axis=-1) + root
    children[part] = np.where(is_leaf[:, None], 0, both)
    counts = tree.value[:, 0, :] * is_leaf[:, None]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-300)
    leaves[part, np.asarray(model.classes_, int) - 1] = shares
  columns = np.concatenate([tree.feature for tree in trees])
  return Forest(
    roots=roots.astype(np.int64),
    columns=np.where(columns < 0, -1, columns).astype(np.int32),
    thresholds=np.concatenate([tree.threshold for tree in trees]),
    children=children,
    leaves=leaves,
    num_columns=model.n_features_in_,
  )


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
