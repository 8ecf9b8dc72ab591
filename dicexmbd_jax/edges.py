"""Where labels change: the one place that finds the edges of objects."""

import numpy as np
from jaxtyping import Bool, Shaped


def mark_edges(labels: Shaped[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
  """Marks pixels with a 4-neighbour of another label, background's too.

  The image's border is no edge by itself, since the object may go on there.

  Args:
    labels: 0 = background, any integer dtype.
  """
  is_edge = np.zeros(labels.shape, bool)
  for first, second in (np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:]):
    differs = labels[first] != labels[second]
    is_edge[first] |= differs
    is_edge[second] |= differs
  return is_edge
