"""Overlaps and one-to-one pairs, against the dense definitions."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from dicexmbd_jax.scores import match

IOUS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
LABELS = hnp.arrays(
  np.int32, st.just((8, 8)), elements=st.integers(0, 6), fill=st.nothing()
)


def match_dense(predicted, reference, iou):
  """Pairs and the sum of their IoUs, from the full matrix, pixel by pixel."""
  ours, theirs = (np.unique(m[m > 0]) for m in (predicted, reference))
  scores = np.zeros((len(ours), len(theirs)))
  for i, a in enumerate(ours):
    for j, b in enumerate(theirs):
      one, other = predicted == a, reference == b
      scores[i, j] = (one & other).sum() / (one | other).sum()
  if not (scores >= iou).any():
    return 0, 0.0
  costs = -(scores >= iou).astype(float) - scores / (2 * min(scores.shape))
  found = scores[optimize.linear_sum_assignment(costs)]
  return (found >= iou).sum(), found[found >= iou].sum()


def renumber(labels, seed):
  """The same cells under other ids, with gaps, far beyond 16 bits."""
  ids = np.random.default_rng(seed).choice(10**6, 8, replace=False) + 1
  return np.where(labels > 0, ids[labels], 0)


@settings(deadline=None, max_examples=150)
@given(LABELS, LABELS, st.sampled_from(IOUS))
def test_pairs_are_those_of_the_dense_assignment(predicted, reference, iou):
  found = match.match_cells(predicted, reference, iou)
  num_pairs, total = match_dense(predicted, reference, iou)
  assert found.tp == num_pairs
  np.testing.assert_allclose(found.ious.sum(), total)
  assert found.tp + found.fp == len(np.unique(predicted[predicted > 0]))
  assert found.tp + found.fn == len(np.unique(reference[reference > 0]))


@settings(deadline=None, max_examples=50)
@given(LABELS, LABELS, st.sampled_from(IOUS), st.integers(0, 99))
def test_ids_do_not_matter(predicted, reference, iou, seed):
  plain = match.match_cells(predicted, reference, iou)
  other = match.match_cells(
    renumber(predicted, seed), renumber(reference, seed + 1), iou
  )
  np.testing.assert_array_equal(plain.predicted, other.predicted)
  np.testing.assert_array_equal(plain.reference, other.reference)
  np.testing.assert_array_equal(plain.ious, other.ious)


@settings(deadline=None, max_examples=50)
@given(LABELS)
def test_a_mask_is_its_own_perfect_match(labels):
  found = match.match_cells(labels, renumber(labels, 5), 1.0)
  assert found.fp == found.fn == 0
  assert found.f1 == found.average_precision == found.panoptic_quality == 1.0


@settings(deadline=None, max_examples=50)
@given(LABELS, LABELS)
def test_overlap_counts_pixels(predicted, reference):
  cells = match.overlap(predicted, reference)
  for i, j, shared, union, iou in zip(
    cells.predicted,
    cells.reference,
    cells.intersections_px,
    cells.unions_px,
    cells.ious,
    strict=True,
  ):
    one = predicted == cells.predicted_ids[i]
    other = reference == cells.reference_ids[j]
    assert shared == (one & other).sum() > 0
    assert union == (one | other).sum()
    assert iou == shared / union
  both = (predicted > 0) & (reference > 0)
  assert cells.intersections_px.sum() == both.sum()
  assert cells.predicted_areas_px.sum() == (predicted > 0).sum()
  assert cells.reference_areas_px.sum() == (reference > 0).sum()


def test_overlap_of_a_hand_made_pair():
  predicted = np.array([[7, 7, 0], [7, 2, 2]], np.uint8)
  reference = np.array([[0, 90000, 90000], [3, 3, 0]], np.uint32)
  cells = match.overlap(predicted, reference)
  # In the order of their first pixels, not of their ids.
  assert cells.predicted_ids.tolist() == [7, 2]
  assert cells.reference_ids.tolist() == [90000, 3]
  assert cells.predicted_areas_px.tolist() == [3, 2]
  assert cells.reference_areas_px.tolist() == [2, 2]
  assert cells.predicted.tolist() == [0, 0, 1]
  assert cells.reference.tolist() == [0, 1, 1]
  assert cells.intersections_px.tolist() == [1, 1, 1]
  np.testing.assert_allclose(cells.ious, [1 / 4, 1 / 4, 1 / 3])


def test_an_iou_at_the_threshold_counts():
  predicted = np.array([[1, 1, 1, 1]])
  reference = np.array([[1, 1, 0, 0]])
  assert match.match_cells(predicted, reference, 0.5).tp == 1
  assert match.match_cells(predicted, reference, 0.5000001).tp == 0


def test_two_halves_at_one_half_give_one_pair():
  predicted = np.array([[1, 1, 1, 1]])
  reference = np.array([[5, 5, 3, 3]])
  found = match.match_cells(predicted, reference, 0.5)
  assert (found.tp, found.fp, found.fn) == (1, 0, 1)
  assert found.ious.tolist() == [0.5]


def test_more_pairs_win_over_a_better_pair():
  # The best pair, 1 on 9 (4/7), would leave 8 and 2 alone.
  predicted = np.array([[1, 1, 1, 1, 1, 1, 2, 2]])
  reference = np.array([[8, 8, 9, 9, 9, 9, 9, 0]])
  ious = match.overlap(predicted, reference).ious
  np.testing.assert_allclose(ious, [2 / 6, 4 / 7, 1 / 6])
  found = match.match_cells(predicted, reference, 0.1)
  assert found.tp == 2
  assert found.reference.tolist() == [0, 1]


def test_ratios_of_a_hand_made_count():
  predicted = np.array([[1, 1, 2, 2, 3, 0]])
  reference = np.array([[1, 1, 2, 0, 0, 4]])
  found = match.match_cells(predicted, reference, 0.5)
  assert (found.tp, found.fp, found.fn) == (2, 1, 1)
  assert found.precision == found.recall == found.f1 == pytest.approx(2 / 3)
  assert found.average_precision == 2 / 4
  assert found.mean_matched_iou == 0.75
  assert found.panoptic_quality == pytest.approx(1.5 / 3)
  assert match.score_f1(predicted, reference) == found.f1


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (8, 8)])
def test_no_cells_on_either_side_is_perfect(shape):
  empty = np.zeros(shape, np.uint16)
  found = match.match_cells(empty, empty, 0.5)
  assert found.precision == found.recall == found.f1 == 1.0
  assert found.average_precision == found.mean_matched_iou == 1.0


@pytest.mark.parametrize("is_predicted", [True, False])
def test_cells_on_one_side_only_score_zero(is_predicted):
  masks = [np.zeros((4, 4), int), np.eye(4, dtype=int)]
  found = match.match_cells(*(masks[::-1] if is_predicted else masks), 0.5)
  assert (found.tp, found.fp + found.fn) == (0, 1)
  assert found.precision == found.recall == found.f1 == 0.0
  assert found.average_precision == found.panoptic_quality == 0.0


@pytest.mark.parametrize(
  ("predicted", "reference", "message"),
  [
    (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\).*\(3, 2\)"),
    (np.zeros((2, 2)), np.zeros((2, 2), int), "predicted: found float64"),
    (np.zeros((2, 2), int), np.full((2, 2), -1), "reference: found id -1"),
    (np.zeros((2, 2, 1), int), np.zeros((2, 2), int), r"expected \(y, x\)"),
  ],
)
def test_wrong_masks_are_refused(predicted, reference, message):
  with pytest.raises(ValueError, match=message):
    match.overlap(predicted, reference)


@pytest.mark.parametrize("iou", [0, -1, 1.1])
def test_wrong_thresholds_are_refused(iou):
  with pytest.raises(ValueError, match="iou: found"):
    match.match_cells(np.ones((2, 2), int), np.ones((2, 2), int), iou)


def test_many_cells_cost_little():
  # 250,000 cells on each side, all in rings of ties: the full matrix would
  # take 500 GB, and one assignment for all of them minutes.
  ids = np.arange(1, 250_001, dtype=np.uint32).reshape(500, 500)
  wide = np.repeat(ids, 2, axis=1)
  start_s = time.process_time()
  found = match.match_cells(wide, np.roll(wide, 1, axis=1), 0.3)
  assert found.tp == 250_000
  assert time.process_time() - start_s < 20
