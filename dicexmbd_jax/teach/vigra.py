"""Takes over a forest that Ilastik fit: vigra's trees as ours.

vigra keeps a tree in two arrays. In `topology` the number of columns and that
of classes come first, then the nodes: kind, address in `parameters`, and, but
for leaves, the places of both children and the column. At a node's address are
its weight and then the threshold or, for a leaf, the shares of the classes.
Values below the threshold go to the first child.
"""

from collections.abc import Sequence

import numpy as np

from dicexmbd_jax.teach.forest import CLASSES, Forest

_THRESHOLD, _LEAF = 0, 1 << 30  # Kinds of nodes.
_ROOT = 2  # Place of the first node.

Tree = tuple[np.ndarray, np.ndarray]  # Topology, parameters.


def adopt_forest(trees: Sequence[Tree], classes: Sequence[int]) -> Forest:
  """Makes a forest of vigra's trees.

  Args:
    trees: topology and parameters of each.
    classes: for each of the forest's classes ours, 1 to 3.

  Returns:
    The forest, with the same probabilities.

  Raises:
    ValueError: no trees, other kinds of nodes, or trees that do not fit one
      another; it does not name the file.
  """
  heads = {tuple(int(one) for one in topology[:_ROOT]) for topology, _ in trees}
  if len(heads) != 1:
    raise ValueError(
      f"found {len(trees)} trees of {len(heads)} shapes, expected a forest"
    )
  ((num_columns, num_classes),) = heads
  if num_classes != len(classes):
    raise ValueError(
      f"found a forest of {num_classes} classes, expected {len(classes)}"
    )
  nodes: list[tuple[int, float, int, int, list[float]]] = []
  roots = []
  for topology, parameters in trees:
    roots.append(len(nodes))
    try:
      _gather_tree(topology, parameters, num_classes, nodes)
    except IndexError as error:
      raise ValueError(
        "found a truncated tree, expected a whole one"
      ) from error
  columns, thresholds, first, second, shares = zip(*nodes, strict=True)
  leaves = np.zeros((len(nodes), len(CLASSES)))
  leaves[:, np.asarray(classes) - 1] = shares
  return Forest(
    roots=np.array(roots, np.int64),
    columns=np.array(columns, np.int32),
    # Ours go to the first child up to the threshold, vigra's below it.
    thresholds=np.nextafter(thresholds, -np.inf),
    children=np.array([first, second], np.int32).T.copy(),
    leaves=leaves,
    num_columns=num_columns,
  )


def _gather_tree(
  topology: np.ndarray,
  parameters: np.ndarray,
  num_classes: int,
  nodes: list[tuple[int, float, int, int, list[float]]],
) -> None:
  """Appends a tree's nodes, level by level: a child comes after its parent."""
  places = [_ROOT]
  start = len(nodes)
  for place in places:
    kind, address = int(topology[place]), int(topology[place + 1])
    if kind == _LEAF:
      shares = parameters[address + 1 : address + 1 + num_classes].tolist()
      if len(shares) != num_classes:
        raise IndexError
      nodes.append((-1, 0.0, 0, 0, shares))
    elif kind == _THRESHOLD:
      child = start + len(places)
      places += [int(one) for one in topology[place + 2 : place + 4]]
      threshold = float(parameters[address + 1])
      column = int(topology[place + 4])
      nodes.append((column, threshold, child, child + 1, [0.0] * num_classes))
    else:
      raise ValueError(
        f"found a node of kind {kind}, expected thresholds and leaves"
      )
    if len(places) > topology.size:
      raise ValueError("found a tree with a loop, expected none")
