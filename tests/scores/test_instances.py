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


def make_squares(num_cells):
  """Numbered cells of 4 x 4 px, a pixel apart."""
  rows, columns = np.divmod(np.arange(30 * 30), 30)
  labels = np.zeros((30 * 5, 30 * 5), np.int32)
  for i, (y, x) in enumerate(zip(rows[:num_cells], columns, strict=False)):
    labels[5 * y : 5 * y + 4, 5 * x : 5 * x + 4] = i + 1
  return labels


@pytest.mark.parametrize("num_cells", [270, 300, 600])
def test_ids_that_wrapped_are_told(num_cells):
  labels = make_squares(num_cells).astype(np.uint8)
  with pytest.raises(ValueError, match="of 255 ids in two places or more"):
    check_instances(labels.astype(np.int32))


def test_as_many_ids_as_8_bits_have_are_fine():
  labels = make_squares(255)
  labels[2::5] = 0  # Resampled: a crumb of each cell lies apart.
  labels[3::5, np.arange(150) % 5 > 0] = 0
  check_instances(labels)
  check_instances(make_squares(600))


def test_the_api_refuses_them():
  cells = label_components(BINARY)
  assert dx.evaluate(cells, cells)["f1_iou_0.50"] == 1
  with pytest.raises(ValueError, match="reference: found one id in 2 pieces"):
    dx.evaluate(cells, BINARY)
