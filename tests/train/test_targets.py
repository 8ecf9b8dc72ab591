"""Targets from instance masks, on masks small enough to draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dicexmbd_jax.train import targets


def test_depth_by_hand():
  cells = np.array(
    [
      [0, 0, 0, 0, 0, 0, 0],
      [0, 1, 1, 1, 2, 2, 2],
      [0, 1, 1, 1, 2, 2, 2],
      [0, 1, 1, 1, 2, 2, 2],
      [0, 0, 0, 0, 2, 2, 2],
    ],
    np.int32,
  )
  depth = targets.measure_depth(cells)
  assert depth[2, 2] == 1
  # The border of the image is no edge: cell 2 may go on behind it.
  assert depth[3, 6] > 0
  assert depth[2, 4] == 0
  assert not depth[cells == 0].any()
  assert depth[1, 1] == 0


def test_nucleus_rises_from_the_edge_to_the_middle():
  cells = np.zeros((13, 13), np.int32)
  cells[1:12, 1:12] = 5
  nucleus, membrane, background = np.moveaxis(
    targets.make_target(cells, 0.5), -1, 0
  )
  np.testing.assert_allclose(
    nucleus[6, :7], [0, 0, 0.4, 0.8, 1, 1, 1], rtol=1e-6
  )
  assert membrane[6, 1] == 1
  assert background[0, 0] == 1


def test_no_cell_is_all_background():
  target = targets.make_target(np.zeros((4, 3), np.int32), 0.5)
  np.testing.assert_array_equal(target, np.broadcast_to([0, 0, 1], (4, 3, 3)))


def test_one_cell_everywhere_is_all_nucleus():
  target = targets.make_target(np.ones((4, 3), np.int32), 0.5)
  np.testing.assert_array_equal(target, np.broadcast_to([1, 0, 0], (4, 3, 3)))


@given(
  hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2),
    elements=st.integers(0, 4),
  ),
  st.sampled_from([0.3, 1.0]),
)
def test_targets_are_probabilities_that_sum_to_one(cells, rim_fraction):
  target = targets.make_target(cells, rim_fraction)
  assert target.dtype == np.float32
  assert target.min() >= 0
  np.testing.assert_allclose(target.sum(-1), 1, rtol=1e-6)
  np.testing.assert_array_equal(target[..., 2] == 1, cells == 0)


def test_known_nuclei_decide_what_is_nucleus():
  cells = np.array([[1, 1, 1, 2, 2, 0, 0]], np.int32)
  nuclei = np.array([[0, 1, 0, 0, 2, 0, 3]], np.int32)
  target = targets.make_target(cells, 0.7, nuclei)
  np.testing.assert_array_equal(target[0, :, 0], [0, 1, 0, 0, 1, 0, 1])
  np.testing.assert_array_equal(target[0, :, 1], [1, 0, 1, 1, 0, 0, 0])
  np.testing.assert_array_equal(target[0, :, 2], [0, 0, 0, 0, 0, 1, 0])


def test_touching_nuclei_are_parted_by_membrane():
  nuclei = np.array([[1, 1, 1, 2, 2], [0, 0, 0, 0, 2]], np.int32)
  target = targets.make_target(np.ones((2, 5), np.int32), 0.7, nuclei)
  np.testing.assert_array_equal(
    target[..., 0], [[1, 1, 0, 0, 1], [0, 0, 0, 0, 1]]
  )


def test_nuclei_of_another_shape_are_refused():
  cells = np.zeros((3, 4), np.int32)
  with pytest.raises(ValueError, match="nuclei: found"):
    targets.make_target(cells, 0.7, cells.T)


def test_around_nuclei_alone_only_that_there_is_no_nucleus_is_known():
  nuclei = np.array([[0, 1, 1, 1, 2, 2, 0]], np.int32)
  target, known = targets.make_partial_target(nuclei)
  # The pixels between the two nuclei are membrane, and known to be.
  np.testing.assert_array_equal(target[0, :, 0], [0, 1, 1, 0, 0, 1, 0])
  np.testing.assert_array_equal(target[0, :, 1], [0, 0, 0, 1, 1, 0, 0])
  assert known[..., 0].all()
  np.testing.assert_array_equal(known[0, :, 1], [0, 1, 1, 1, 1, 1, 0])
  np.testing.assert_array_equal(known[0, :, 2], known[0, :, 1])


def test_membrane_alone_tells_nothing_of_nuclei_and_background():
  membrane = np.array([[True, False]])
  target, known = targets.make_membrane_target(membrane)
  assert target[0].tolist() == [[0, 1, 0], [0, 0, 1]]
  assert known[0].tolist() == [[1, 1, 1], [0, 1, 0]]


def test_beside_a_labelled_cell_no_nucleus_goes_on():
  cells = np.zeros((5, 7), np.int32)
  cells[1:4, 1:4] = 1
  target = targets.make_target(cells, 0.7)
  everything = np.ones(target.shape, np.uint8)
  known = targets.limit_known(target, everything, cells > 0)
  assert (known[1:4, 1:4] == 1).all()
  assert known[2, 4].tolist() == [1, 0, 0]
  assert known[0, 0].tolist() == [0, 0, 0]  # Touches by a corner only.
  assert not known[:, 5:].any()


def test_a_neighbour_that_is_not_covered_stays_unknown():
  cells = np.kron([[1, 2]], np.ones((5, 5), np.int32))
  target = targets.make_target(cells, 0.7)
  known = targets.limit_known(
    target, np.ones(target.shape, np.uint8), cells == 1
  )
  # Its edge is no nucleus, which its own target says as well.
  assert known[2].tolist()[5:7] == [[1, 0, 0], [0, 0, 0]]
