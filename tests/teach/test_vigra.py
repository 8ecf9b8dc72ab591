import ilastik as oracle
import numpy as np
import pytest

from dicexmbd_jax.teach.forest import predict_forest
from dicexmbd_jax.teach.vigra import adopt_forest

LEAF = 1 << 30


def make_tree(threshold=0.5, num_classes=3):
  """Column 1 below the threshold: the first class, else the last two."""
  shares = np.eye(num_classes)[0]
  rest = np.array([0.0, *np.full(num_classes - 1, 1 / (num_classes - 1))])
  parameters = np.array([1.0, threshold, 7.0, *shares, 9.0, *rest])
  topology = [2, num_classes, 0, 0, 7, 9, 1, LEAF, 2, LEAF, 3 + num_classes]
  return np.array(topology, np.int32), parameters


def make_rows():
  rows = np.random.default_rng(0).random((30, 2)).astype(np.float32)
  rows[3, 1] = 0.5
  return rows


def test_probabilities_are_those_of_the_plain_walk():
  trees = [make_tree(0.5), make_tree(0.25), make_tree(0.9)]
  rows = make_rows()
  found = predict_forest(adopt_forest(trees, (1, 2, 3)), rows[None])[0]
  np.testing.assert_allclose(found, oracle.predict(trees, rows), atol=1e-6)


def test_a_value_at_the_threshold_goes_to_the_second_child():
  found = predict_forest(
    adopt_forest([make_tree()], (1, 2, 3)), make_rows()[None]
  )[0]
  np.testing.assert_array_equal(found[3], np.float32([0, 0.5, 0.5]))


def test_labels_become_our_classes():
  adopted = adopt_forest([make_tree(num_classes=2)], (3, 1))
  found = predict_forest(adopted, np.float32([[[0, 0], [0, 1]]]))
  np.testing.assert_array_equal(found, [[[0, 0, 1], [1, 0, 0]]])


def break_tree(place, value):
  topology, parameters = make_tree()
  topology[place] = value
  return topology, parameters


@pytest.mark.parametrize(
  ("trees", "message"),
  [
    ([], "0 trees"),
    ([make_tree(), make_tree(num_classes=2)], "of 2 shapes"),
    ([make_tree(num_classes=2)], "2 classes, expected 3"),
    ([break_tree(2, 1)], "node of kind 1"),
    ([break_tree(4, 2)], "loop"),
    ([break_tree(4, 500)], "truncated"),
    ([break_tree(10, 500)], "truncated"),
  ],
)
def test_forests_that_cannot_be_taken_over(trees, message):
  with pytest.raises(ValueError, match=message):
    adopt_forest(trees, (1, 2, 3))
