"""Every kind of error on hand-made 8 x 8 masks, and counting them in general.

In the drawings each letter is a cell and a dot is background.
"""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from dicexmbd_jax.scores import errors, match

LABELS = hnp.arrays(np.int32, st.just((8, 8)), elements=st.integers(0, 6))


def draw(*rows):
  """Labels (8, 8) from up to eight rows of letters, padded with background."""
  rows = [row.ljust(8, ".") for row in rows]
  rows += ["." * 8] * (8 - len(rows))
  return np.array([[0 if c == "." else ord(c) for c in row] for row in rows])


BIG = draw("aaaa", "aaaa")
TWO = draw("aabb", "aabb")
FAR = draw("", "", "", "", "....zzzz", "....zzzz")
# name, predicted, reference, kinds of the predicted, kinds of the reference,
# Mesmer's (correct, missed, gained, split, merge, catastrophe).
CASES = {
  "perfect": (
    TWO,
    TWO,
    ["matched"] * 2,
    ["matched"] * 2,
    (2, 0, 0, 0, 0, 0),
  ),
  "missed": (
    draw("aa......", "aa"),
    TWO,
    ["matched"],
    ["matched", "missed"],
    (1, 1, 0, 0, 0, 0),
  ),
  "invented": (
    BIG + FAR,
    BIG,
    ["matched", "extra"],
    ["matched"],
    (1, 0, 1, 0, 0, 0),
  ),
  "elsewhere": (FAR, BIG, ["extra"], ["missed"], (0, 1, 1, 0, 0, 0)),
  "split": (TWO, BIG, ["split"] * 2, ["split"], (0, 0, 0, 1, 0, 0)),
  "split into three": (
    draw("aabc", "aabc"),
    BIG,
    ["split"] * 3,
    ["split"],
    (0, 0, 0, 1, 0, 0),
  ),
  "merged": (BIG, TWO, ["merged"], ["merged"] * 2, (0, 0, 0, 0, 1, 0)),
  "merged and split": (
    draw("aaab", "aaab"),
    TWO,
    ["merged", "split"],
    ["merged", "merged"],
    # a covers A with an IoU of 4/6, which is correct; b and B are left, linked.
    (1, 1, 1, 0, 0, 0),
  ),
  "a knot": (
    draw("aaaa", "bbbb"),
    draw("xxyy", "xxyy"),
    ["merged"] * 2,
    ["merged"] * 2,
    (0, 0, 0, 0, 0, 1),
  ),
  "half the size": (
    draw("aa", "aa"),
    BIG,
    ["matched"],
    ["matched"],
    (0, 1, 1, 0, 0, 0),
  ),
  "barely touching": (
    draw("aaaaaaaa"),
    draw(".......b", ".......b", ".......b", ".......b"),
    ["extra"],
    ["missed"],
    (0, 1, 1, 0, 0, 0),
  ),
  "nothing found": (BIG * 0, TWO, [], ["missed"] * 2, (0, 2, 0, 0, 0, 0)),
  "nothing there": (TWO, BIG * 0, ["extra"] * 2, [], (0, 0, 2, 0, 0, 0)),
  "nothing at all": (BIG * 0, BIG * 0, [], [], (0, 0, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_kinds_of_errors(name):
  predicted, reference, ours, theirs, _ = CASES[name]
  found = errors.classify_cells(match.overlap(predicted, reference))
  kinds = np.take(errors.PREDICTED_KINDS, found.predicted).tolist()
  assert kinds == ours
  kinds = np.take(errors.REFERENCE_KINDS, found.reference).tolist()
  assert kinds == theirs
  assert len(found.pairs) == ours.count("matched") == theirs.count("matched")


@pytest.mark.parametrize("name", CASES)
def test_events_as_mesmer_counts_them(name):
  predicted, reference, _, _, expected = CASES[name]
  found = errors.count_events(match.overlap(predicted, reference))
  assert (
    found.correct,
    found.missed,
    found.gained,
    found.split,
    found.merge,
    found.catastrophe,
  ) == expected


def test_an_iou_of_one_tenth_counts():
  predicted, reference = draw("aaaaaaaa"), draw("a", "a", "a")
  cells = match.overlap(predicted, reference)
  assert cells.ious.tolist() == [0.1]
  assert len(errors.classify_cells(cells).pairs) == 1
  assert len(errors.classify_cells(cells, 0.1001).pairs) == 0


def test_scores_of_a_hand_made_count():
  # One right, one split in two, two merged, one missed, one invented.
  predicted = draw("aa..bbcc", "aa..bbcc", "", "mmmm", "mmmm", "", "....xx")
  reference = draw("aa..bbbb", "aa..bbbb", "", "mmnn", "mmnn", "", "", "....yy")
  scores = errors.classify_cells(match.overlap(predicted, reference)).score()
  assert scores == pytest.approx(
    {
      "cell_precision": 1 / 5,
      "cell_recall": 1 / 2,
      "cell_f1": 2 / 7,
      "cell_jaccard": 1 / 6,
      "oversplit": 2 / 5,
      "merge": 1 / 5,
    }
  )


@pytest.mark.parametrize(
  ("name", "value"),
  [("nothing at all", 1.0), ("nothing found", 0.0), ("nothing there", 0.0)],
)
def test_scores_without_cells(name, value):
  predicted, reference = CASES[name][:2]
  scores = errors.classify_cells(match.overlap(predicted, reference)).score()
  assert scores.pop("oversplit") == scores.pop("merge") == 0.0
  assert set(scores.values()) == {value}


@settings(deadline=None, max_examples=100)
@given(LABELS, LABELS)
def test_shares_of_predicted_cells_add_up(predicted, reference):
  found = errors.classify_cells(match.overlap(predicted, reference))
  scores, count = found.score(), len(found.predicted)
  if count:
    extra = np.count_nonzero(found.predicted == errors.ALONE) / count
    shares = scores["cell_precision"] + scores["oversplit"] + scores["merge"]
    assert shares + extra == pytest.approx(1)


@settings(deadline=None, max_examples=100)
@given(LABELS, LABELS)
def test_best_pairs_have_the_highest_iou(predicted, reference):
  cells = match.overlap(predicted, reference)
  found = errors.classify_cells(cells)
  for i, best in enumerate(found.best_of_predicted):
    ious = cells.ious[cells.predicted == i]
    if ious.max(initial=0) >= 0.1:
      assert cells.predicted[best] == i
      assert cells.ious[best] == ious.max()
    else:
      assert best == -1
  for j, best in enumerate(found.best_of_reference):
    ious = cells.ious[cells.reference == j]
    assert (
      cells.ious[best] == ious.max() if best >= 0 else ious.max(initial=0) < 0.1
    )


@settings(deadline=None, max_examples=100)
@given(LABELS, LABELS)
def test_swapping_the_masks_swaps_the_errors(predicted, reference):
  one = errors.count_events(match.overlap(predicted, reference))
  other = errors.count_events(match.overlap(reference, predicted))
  assert (one.correct, one.catastrophe) == (other.correct, other.catastrophe)
  assert (one.missed, one.split) == (other.gained, other.merge)
  assert (one.gained, one.merge) == (other.missed, other.split)


def count_events_by_assignment(cells):
  """Mesmer's counts as published: an assignment, then a graph of the rest."""
  n, m = cells.num_reference, cells.num_predicted
  iou = np.zeros((n, m))
  iou[cells.reference, cells.predicted] = cells.ious
  inside = np.zeros((n, m))
  inside[cells.reference, cells.predicted] = (
    cells.intersections_px
    / np.minimum(
      cells.reference_areas_px[cells.reference],
      cells.predicted_areas_px[cells.predicted],
    )
  )
  iou[(iou > 0) & (iou <= 0.4) & (inside > 0.5)] = 0.1
  costs = np.ones((n + m, n + m))
  costs[:n, :m], costs[n:, m:] = 1 - iou, 1 - iou.T
  np.fill_diagonal(costs[n:, :m], 0.4)
  np.fill_diagonal(costs[:n, m:], 0.4)
  rows, columns = optimize.linear_sum_assignment(costs)
  pairs = [
    (r, c) for r, c in zip(rows, columns, strict=True) if r < n and c < m
  ]
  open_rows = set(range(n)) - {r for r, _ in pairs}
  open_columns = set(range(m)) - {c for _, c in pairs}
  graph = nx.Graph()
  graph.add_nodes_from(("true", r) for r in open_rows)
  graph.add_nodes_from(("pred", c) for c in open_columns)
  graph.add_edges_from(
    (("true", r), ("pred", c))
    for r in open_rows
    for c in open_columns
    if iou[r, c] >= 0.1
  )
  counts = [len(pairs), 0, 0, 0, 0, 0]
  for group in nx.connected_components(graph):
    sides = [
      sum(kind == side for kind, _ in group) for side in ("true", "pred")
    ]
    if max(sides) == 1:
      counts[1] += sides[0]
      counts[2] += sides[1]
    else:
      counts[3 if sides[0] == 1 else 4 if sides[1] == 1 else 5] += 1
  return tuple(counts)


@settings(deadline=None, max_examples=150)
@given(LABELS, LABELS)
def test_events_are_those_of_the_published_assignment(predicted, reference):
  # Larger overlaps than chance gives.
  predicted = np.where(np.indices((8, 8)).sum(0) % 3 == 0, predicted, reference)
  cells = match.overlap(predicted, reference)
  if np.isclose(cells.ious, 0.6).any():
    return  # A tie, which the assignment may break either way.
  found = errors.count_events(cells)
  counts = count_events_by_assignment(cells)
  assert tuple(vars(found).values()) == counts
