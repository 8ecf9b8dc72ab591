"""Outlines and how they agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import spatial
from skimage import segmentation

from dicexmbd_jax.scores import boundary

LABELS = hnp.arrays(
  np.uint16,
  hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
  elements=st.integers(0, 3),
)
OUTLINES = hnp.arrays(bool, st.just((9, 7)))


@settings(deadline=None, max_examples=100)
@given(LABELS)
def test_boundaries_are_those_of_scikit_image(labels):
  expected = segmentation.find_boundaries(labels, connectivity=1, mode="inner")
  np.testing.assert_array_equal(boundary.find_boundaries(labels), expected)


def test_the_images_border_is_no_boundary():
  labels = np.zeros((5, 5), int)
  labels[:, :3] = 4
  expected = np.zeros((5, 5), bool)
  expected[:, 2] = True
  np.testing.assert_array_equal(boundary.find_boundaries(labels), expected)


def test_exact_scores_of_a_hand_made_pair():
  predicted = np.array([[1, 1, 1, 0]], bool)
  reference = np.array([[0, 1, 1, 1]], bool)
  found = boundary.score_pixels(predicted, reference)
  assert found.precision == found.recall == found.f1 == pytest.approx(2 / 3)
  assert found.jaccard == 2 / 4


@pytest.mark.parametrize(
  "score",
  [
    boundary.score_pixels,
    lambda a, b: boundary.score_nearby(a, b, 1.0),
  ],
)
def test_values_without_pixels(score):
  none, some = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
  assert score(none, none).f1 == 1.0
  for found in (score(none, some), score(some, none)):
    assert (found.precision, found.recall, found.f1) == (0.0, 0.0, 0.0)


@settings(deadline=None, max_examples=100)
@given(OUTLINES, OUTLINES, st.sampled_from([0, 1, 1.5, 2, 3.2, 7]))
def test_nearby_scores_are_those_of_all_distances(a, b, tolerance_px):
  found = boundary.score_nearby(a, b, tolerance_px)
  if not (a.any() and b.any()):
    assert found.f1 == float(a.any() == b.any())
    return
  distances = spatial.distance.cdist(np.argwhere(a), np.argwhere(b))
  precision = (distances.min(axis=1) <= tolerance_px).mean()
  recall = (distances.min(axis=0) <= tolerance_px).mean()
  assert found.precision == pytest.approx(precision)
  assert found.recall == pytest.approx(recall)
  if precision + recall:
    f1 = 2 * precision * recall / (precision + recall)
    assert found.f1 == pytest.approx(f1)
  else:
    assert found.f1 == 0.0


def test_without_tolerance_nearby_is_exact():
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 20, 30)) < 0.3
  near, exact = boundary.score_nearby(a, b, 0), boundary.score_pixels(a, b)
  assert near.precision == exact.precision
  assert near.recall == exact.recall
  assert near.f1 == pytest.approx(exact.f1)


def test_a_tolerance_wider_than_any_image_costs_no_memory():
  a, b = np.eye(4, 5, dtype=bool), np.eye(4, 5, 1, dtype=bool)
  found = boundary.score_nearby(a, b, 1e9)
  assert (found.precision, found.recall, found.f1) == (1, 1, 1)


def test_a_negative_tolerance_is_refused():
  with pytest.raises(ValueError, match="tolerance_px: found -1"):
    boundary.score_nearby(np.ones((2, 2), bool), np.ones((2, 2), bool), -1)


def test_dice_of_a_hand_made_pair():
  predicted = np.array([[1, 2, 3, 0, 0]])
  reference = np.array([[0, 9, 9, 9, 0]])
  assert boundary.score_dice(predicted, reference) == pytest.approx(4 / 6)
  assert boundary.score_dice(predicted * 0, reference * 0) == 1.0
  assert boundary.score_dice(predicted, reference * 0) == 0.0
