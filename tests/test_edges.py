import numpy as np

from dicexmbd_jax.edges import mark_edges


def test_edges_lie_on_both_sides_and_never_on_the_border_alone():
  labels = np.array([[1, 1, 1, 2], [1, 1, 1, 2], [0, 1, 1, 2]])
  expected = [[0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]]
  assert mark_edges(labels).astype(int).tolist() == expected
  assert not mark_edges(np.ones((3, 3), int)).any()
  assert mark_edges(np.zeros((0, 4), int)).shape == (0, 4)
