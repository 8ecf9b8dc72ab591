"""All scores of one image together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dicexmbd_jax.scores import evaluate, match

LABELS = hnp.arrays(np.int32, st.just((9, 7)), elements=st.integers(0, 5))
PERFECT = (
  "pixel_precision",
  "pixel_recall",
  "pixel_f1",
  "pixel_jaccard",
  "cell_precision",
  "cell_recall",
  "cell_f1",
  "cell_jaccard",
  "f1_iou_0.50",
  "f1_iou_0.95",
  "ap_iou_0.50",
  "ap_iou_mean",
  "f1_iou_mean",
  "precision_iou_0.50",
  "recall_iou_0.50",
  "pq",
  "sq",
  "aji",
  "boundary_f1",
  "dice",
)


def renumber(labels, seed):
  ids = np.random.default_rng(seed).permutation(1000)[:6] + 1
  return np.where(labels > 0, ids[labels], 0).astype(np.uint16)


@settings(deadline=None, max_examples=50)
@given(LABELS, LABELS, st.integers(0, 99))
def test_scores_ignore_ids(predicted, reference, seed):
  plain = evaluate.evaluate_image(predicted, reference).scores
  other = evaluate.evaluate_image(
    renumber(predicted, seed), renumber(reference, seed + 1)
  ).scores
  np.testing.assert_equal(other, plain)


@settings(deadline=None, max_examples=50)
@given(LABELS)
def test_a_mask_against_itself_scores_one(labels):
  scores = evaluate.evaluate_image(labels, labels).scores
  assert {name: scores[name] for name in PERFECT} == dict.fromkeys(PERFECT, 1.0)
  assert scores["oversplit"] == scores["merge"] == 0.0
  assert scores["mesmer_correct"] == scores["num_reference"]
  if labels.any():
    assert scores["iou_mean"] == scores["iou_median"] == 1.0


@settings(deadline=None, max_examples=50)
@given(LABELS, LABELS)
def test_scores_lie_between_zero_and_one(predicted, reference):
  scores = evaluate.evaluate_image(predicted, reference).scores
  for name in (*PERFECT, "oversplit", "merge", "boundary_recall"):
    assert 0 <= scores[name] <= 1
  values = [scores[f"f1_iou_{t:.2f}"] for t in evaluate.THRESHOLDS]
  assert values == sorted(values, reverse=True)


def test_no_cells_on_either_side():
  empty = np.zeros((5, 6), np.uint8)
  scores = evaluate.evaluate_image(empty, empty).scores
  assert {name: scores[name] for name in PERFECT} == dict.fromkeys(PERFECT, 1.0)
  assert np.isnan(scores["iou_mean"])
  assert scores["oversplit"] == scores["merge"] == scores["num_predicted"] == 0


@pytest.mark.parametrize("order", [1, -1])
def test_cells_on_one_side_only(order):
  masks = [np.zeros((6, 6), int), np.eye(6, dtype=int)][::order]
  scores = evaluate.evaluate_image(*masks).scores
  assert {name: scores[name] for name in PERFECT} == dict.fromkeys(PERFECT, 0.0)
  assert np.isnan(scores["iou_mean"])
  assert scores["mesmer_gained"] + scores["mesmer_missed"] == 1


def test_scores_of_a_hand_made_pair():
  #   predicted   reference
  #   1 1 1 0     7 7 7 7      IoU of 1 and 7: 3/4
  #   2 2 3 3     8 8 8 8      IoU of 2 and 8, 3 and 8: 2/4
  predicted = np.array([[1, 1, 1, 0], [2, 2, 3, 3]])
  reference = np.array([[7, 7, 7, 7], [8, 8, 8, 8]])
  scores = evaluate.evaluate_image(predicted, reference).scores
  expected = {
    "num_predicted": 3,
    "num_reference": 2,
    "cell_precision": 1 / 3,
    "cell_recall": 1.0,
    "cell_f1": 1 / 2,
    "cell_jaccard": 1 / 3,
    "oversplit": 2 / 3,
    "merge": 0.0,
    "iou_mean": 0.75,
    "tp_iou_0.50": 2,
    "f1_iou_0.50": 4 / 5,
    "ap_iou_0.50": 2 / 3,
    "tp_iou_0.75": 1,
    "f1_iou_0.75": 2 / 5,
    "f1_iou_0.80": 0.0,
    "f1_iou_mean": (4 / 5 + 5 * 2 / 5) / 10,
    "pq": (3 / 4 + 2 / 4) / 2.5,
    "sq": 5 / 8,
    # 7 takes 1, 8 takes 2; 3 is left over.
    "aji": (3 + 2) / (4 + 4 + 2),
    "dice": 2 * 7 / 15,
    # All eight pixels of the reference are outline; one has no counterpart.
    "pixel_precision": 1.0,
    "pixel_recall": 7 / 8,
    "pixel_jaccard": 7 / 8,
    "boundary_f1": 1.0,
    "mesmer_correct": 1,
    "mesmer_split": 1,
    "mesmer_gained": 0,
  }
  assert {name: scores[name] for name in expected} == pytest.approx(expected)


def score_aji_plainly(predicted, reference):
  """Algorithm 1 of Kumar et al. 2017, word by word."""
  shared = total = 0
  used = set()
  ours = set(np.unique(predicted)) - {0}
  for j in set(np.unique(reference)) - {0}:
    other = reference == j
    best = None
    for i in ours:
      one = predicted == i
      both, either = (one & other).sum(), (one | other).sum()
      if both and (best is None or both / either > best[0]):
        best = both / either, both, either, i
    if best is None:
      total += other.sum()
    else:
      shared, total = shared + best[1], total + best[2]
      used.add(best[3])
  total += sum((predicted == i).sum() for i in ours - used)
  return shared / total if total else 1.0


@settings(deadline=None, max_examples=100)
@given(LABELS, LABELS)
def test_aji_is_that_of_its_paper(predicted, reference):
  predicted = np.where(np.indices((9, 7)).sum(0) % 3 == 0, predicted, reference)
  cells = match.overlap(predicted, reference)
  for j in range(cells.num_reference):
    ious = np.sort(cells.ious[cells.reference == j])
    if len(ious) > 1 and ious[-1] == ious[-2]:
      return  # A tie: which cell is left over then depends on the ids.
  expected = score_aji_plainly(predicted, reference)
  assert evaluate.score_aji(cells) == pytest.approx(expected)


def test_table_of_cells():
  predicted = np.array([[5, 5, 5, 0, 9], [2, 2, 3, 3, 0]])
  reference = np.array([[7, 7, 7, 7, 0], [8, 8, 8, 8, 0]])
  table = evaluate.tabulate_cells(evaluate.evaluate_image(predicted, reference))
  rows = list(zip(*(values.tolist() for values in table.values()), strict=True))
  assert list(table) == ["mask", "id", "area_px", "matched_id", "iou", "kind"]
  assert rows == [
    ("predicted", 5, 3, 7, 0.75, "matched"),
    ("predicted", 9, 1, 0, 0.0, "extra"),
    ("predicted", 2, 2, 8, 0.5, "split"),
    ("predicted", 3, 2, 8, 0.5, "split"),
    ("reference", 7, 4, 5, 0.75, "matched"),
    ("reference", 8, 4, 2, 0.5, "split"),
  ]


def test_picture_of_matches():
  predicted = np.array([[5, 5, 5, 0, 9], [2, 2, 3, 3, 0], [4, 4, 4, 4, 0]])
  reference = np.array([[7, 7, 7, 7, 0], [8, 8, 8, 8, 0], [1, 1, 6, 6, 0]])
  found = evaluate.evaluate_image(predicted, reference)
  nan = np.nan
  np.testing.assert_array_equal(
    evaluate.paint_matches(predicted, found),
    np.float32(
      [
        [0.75, 0.75, 0.75, nan, -1],
        [-0.8, -0.8, -0.8, -0.8, nan],
        [-0.4, -0.4, -0.4, -0.4, nan],
      ]
    ),
  )


def test_table_and_picture_without_cells():
  empty = np.zeros((2, 3), int)
  found = evaluate.evaluate_image(empty, empty)
  assert len(evaluate.tabulate_cells(found)["id"]) == 0
  assert np.isnan(evaluate.paint_matches(empty, found)).all()


@pytest.mark.real
def test_published_masks_against_themselves_and_shifted(real_data):
  from dicexmbd_jax.io import labels

  folder = real_data / "brca2_reference/masks"
  mask = labels.read_labels(min(folder.iterdir()))
  same = evaluate.evaluate_image(mask, mask).scores
  shifted = evaluate.evaluate_image(np.roll(mask, 1, axis=0), mask).scores
  assert same["f1_iou_0.95"] == same["aji"] == same["pixel_f1"] == 1.0
  assert 0.9 < shifted["f1_iou_0.50"] <= 1.0
  assert shifted["f1_iou_0.90"] < 0.5
  assert shifted["boundary_f1"] > 0.95 > shifted["pixel_f1"]
