import numpy as np
import pytest

import dicexmbd_jax as dx
from dicexmbd_jax.scores.instances import check_instances, label_components

BINARY = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])


def test_pieces_touch_along_edges():
  expected = [[1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 2, 2]]
  found = label_components(BINARY * 255)
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, expected)
  # Two ids that touch stay two.
  np.testing.assert_array_equal(
    label_components(np.array([[7, 7, 3]])), [[1, 1, 2]]
  )


@pytest.mark.parametrize(
  "labels",
  [
    np.zeros((3, 4), int),
    BINARY * [[1], [2], [2]],
    np.eye(1, dtype=int),
    [[0, 9, 9]],
    [[1, 0, 1, 0, 2]],  # A cell in two pieces.
    np.arange(12).reshape(3, 4),
  ],
)
def test_instances_pass(labels):
  check_instances(np.asarray(labels))


@pytest.mark.parametrize(
  ("labels", "found"),
  [
    (BINARY, "one id in 2 pieces"),
    (BINARY.astype(bool), "one id in 2 pieces"),
    (np.tile([1, 0, 2, 0], (1, 6)), "2 ids in 12 pieces"),
  ],
)
def test_classes_are_no_instances(labels, found):
  with pytest.raises(ValueError, match=f"found {found}, expected one id for"):
    check_instances(labels)


def test_the_api_refuses_them():
  cells = label_components(BINARY)
  assert dx.evaluate(cells, cells)["f1_iou_0.50"] == 1
  with pytest.raises(ValueError, match="reference: found one id in 2 pieces"):
    dx.evaluate(cells, BINARY)
