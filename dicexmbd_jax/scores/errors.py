"""What went wrong with each cell: missed, invented, split or merged.

Two countings of the same thing: the paper's, on the graph of all pairs with an
IoU of at least 0.1, and Mesmer's, on the cells that found no good partner.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse
from scipy.sparse import csgraph

from dicexmbd_jax.scores import boundary, match

PREDICTED_KINDS = ("matched", "merged", "split", "extra")
REFERENCE_KINDS = ("matched", "merged", "split", "missed")
MATCHED, MERGED, SPLIT, ALONE = range(4)
MIN_IOU = 0.1  # Paper, section 2.5: pairs below this are dropped.


@dataclasses.dataclass(frozen=True)
class CellErrors:
  """The paper's verdict on each cell, in the Overlap's order.

  A verdict is an index into PREDICTED_KINDS and REFERENCE_KINDS. Predicted
  cells: `matched` one to one with a reference cell; `merged` covers several
  reference cells; `split` is one of several predicted cells on one reference
  cell (a cell that is both counts as merged); `extra` has no reference cell.
  Reference cells: `matched`; `merged`, a predicted cell on it covers others
  too; `split`, covered by several, none of which covers others; `missed`.

  Attributes:
    predicted: verdict on each predicted cell.
    reference: verdict on each reference cell.
    pairs: indices into the Overlap's pairs of the one-to-one pairs.
    best_of_predicted: per predicted cell, the index of its pair with the
      highest IoU, or -1 where none reaches the threshold; the first one in
      the reference's order if several tie.
    best_of_reference: per reference cell, likewise.
  """

  predicted: Int64[np.ndarray, " n"]
  reference: Int64[np.ndarray, " m"]
  pairs: Int64[np.ndarray, " t"]
  best_of_predicted: Int64[np.ndarray, " n"]
  best_of_reference: Int64[np.ndarray, " m"]

  def score(self) -> dict[str, float]:
    """Cell-level scores of the paper, section 2.5, each 0..1.

    Precision is TP / predicted cells, recall TP / (TP + FN) where FN counts
    only missed cells, Jaccard TP / (predicted cells + FN); oversplit and merge
    are shares of the predicted cells, so that precision, oversplit, merge and
    the share of extra cells add up to 1. Without any cell on either side the
    scores are 1 and the errors 0; without predicted cells all are 0.
    """
    num_predicted, tp = len(self.predicted), len(self.pairs)
    fn = int(np.count_nonzero(self.reference == ALONE))
    counts = np.bincount(self.predicted, minlength=len(PREDICTED_KINDS))
    divide = boundary.divide
    is_empty = num_predicted + len(self.reference) == 0
    precision = 1.0 if is_empty else divide(tp, num_predicted)
    recall = 1.0 if is_empty else divide(tp, tp + fn)
    return {
      "cell_precision": precision,
      "cell_recall": recall,
      "cell_f1": divide(2 * precision * recall, precision + recall),
      "cell_jaccard": 1.0 if is_empty else divide(tp, num_predicted + fn),
      "oversplit": divide(int(counts[SPLIT]), num_predicted),
      "merge": divide(int(counts[MERGED]), num_predicted),
    }


@dataclasses.dataclass(frozen=True)
class Events:
  """Mesmer's counts of errors (Greenwald et al. 2022, after Caicedo et al.).

  Attributes:
    correct: pairs with an IoU above 0.6.
    missed: reference cells left without a link, or linked one to one only.
    gained: predicted cells, likewise.
    split: reference cells that lie under several predicted cells.
    merge: predicted cells that lie on several reference cells.
    catastrophe: groups with several cells on both sides.
  """

  correct: int
  missed: int
  gained: int
  split: int
  merge: int
  catastrophe: int


def classify_cells(
  cells: match.Overlap, min_iou: float = MIN_IOU
) -> CellErrors:
  """Gives each cell its verdict as the paper's section 2.5 has it.

  Args:
    cells: from match.overlap.
    min_iou: pairs below this IoU do not count.

  Returns:
    The CellErrors.
  """
  ious = cells.ious
  links = np.flatnonzero(ious >= min_iou)
  rows, columns = cells.predicted[links], cells.reference[links]
  row_links = np.bincount(rows, minlength=cells.num_predicted)
  column_links = np.bincount(columns, minlength=cells.num_reference)
  is_shared = column_links[columns] > 1  # The link's reference cell.
  is_wide = row_links[rows] > 1  # The link's predicted cell.
  predicted = np.full(cells.num_predicted, ALONE)
  predicted[rows] = np.where(is_shared, SPLIT, MATCHED)
  predicted[row_links > 1] = MERGED
  reference = np.full(cells.num_reference, ALONE)
  reference[columns] = np.where(is_shared, SPLIT, MATCHED)
  reference[columns[is_wide]] = MERGED
  return CellErrors(
    predicted=predicted,
    reference=reference,
    pairs=links[~is_shared & ~is_wide],
    best_of_predicted=_find_best(links, rows, ious, cells.num_predicted),
    best_of_reference=_find_best(links, columns, ious, cells.num_reference),
  )


def count_events(
  cells: match.Overlap, cutoff: float = 0.4, min_iou: float = 0.1
) -> Events:
  """Counts splits and merges as Mesmer's published metrics do.

  Pairs with an IoU above 1 - cutoff are correct. The rest is linked where the
  IoU is at least min_iou, or up to `cutoff` with more than half of either cell
  inside the other. A linked group with one reference and several predicted
  cells is a split, the reverse a merge, several on both sides a catastrophe;
  a single link means that both cells are wrong. The published code solves an
  assignment for the first step; it can never prefer a pair at or below
  1 - cutoff, except in a tie at exactly 1 - cutoff, here not a pair.

  Args:
    cells: from match.overlap.
    cutoff: price of leaving a cell alone; the published default.
    min_iou: smallest IoU that links two wrong cells; the published default.

  Returns:
    The Events; all 0 without cells.
  """
  ious = cells.ious
  is_correct = ious > 1 - cutoff
  is_open_row = np.ones(cells.num_predicted, bool)
  is_open_row[cells.predicted[is_correct]] = False
  is_open_column = np.ones(cells.num_reference, bool)
  is_open_column[cells.reference[is_correct]] = False
  is_link = (ious >= min_iou) | ((ious <= cutoff) & _is_half_inside(cells))
  is_link &= is_open_row[cells.predicted] & is_open_column[cells.reference]
  groups = _count_groups(cells, is_link, is_open_row, is_open_column)
  rows, columns = groups
  is_single = (rows <= 1) & (columns <= 1)
  return Events(
    correct=int(np.count_nonzero(is_correct)),
    missed=int(columns[is_single].sum()),
    gained=int(rows[is_single].sum()),
    split=int(np.count_nonzero((rows > 1) & (columns == 1))),
    merge=int(np.count_nonzero((rows == 1) & (columns > 1))),
    catastrophe=int(np.count_nonzero((rows > 1) & (columns > 1))),
  )


def _find_best(
  links: np.ndarray, cells: np.ndarray, ious: Float64[np.ndarray, " k"], n: int
) -> np.ndarray:
  """Per cell, the link with the highest IoU, -1 without one."""
  best = np.full(n, -1)
  # Written from the lowest IoU to the highest: the last one stays.
  order = np.argsort(-ious[links], kind="stable")[::-1]
  best[cells[order]] = links[order]
  return best


def _is_half_inside(cells: match.Overlap) -> Bool[np.ndarray, " k"]:
  """Whether more than half of either cell of a pair lies in the other."""
  smaller_px = np.minimum(
    cells.predicted_areas_px[cells.predicted],
    cells.reference_areas_px[cells.reference],
  )
  return 2 * cells.intersections_px > smaller_px


def _count_groups(
  cells: match.Overlap,
  is_link: Bool[np.ndarray, " k"],
  is_open_row: Bool[np.ndarray, " n"],
  is_open_column: Bool[np.ndarray, " m"],
) -> tuple[np.ndarray, np.ndarray]:
  """Open predicted and open reference cells in each linked group."""
  n, size = cells.num_predicted, cells.num_predicted + cells.num_reference
  edges = cells.predicted[is_link], n + cells.reference[is_link]
  weights = np.ones(len(edges[0]), np.int8)
  graph = sparse.coo_array((weights, edges), shape=(size, size))
  num_groups, group = csgraph.connected_components(graph, directed=False)
  return (
    np.bincount(group[:n][is_open_row], minlength=num_groups),
    np.bincount(group[n:][is_open_column], minlength=num_groups),
  )
