"""Which predicted cell is which reference cell: overlaps and one-to-one pairs.

Only the pairs of cells that touch are ever stored, so time and memory grow with
the pixels and the touching pairs, not with the product of the cell counts.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer
from scipy import sparse
from scipy.sparse import csgraph

AnyLabels = Integer[np.ndarray, "y x"]  # 0 = background, ids in any order
Ids = Int64[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Overlap:
  """The cells of two masks and the pairs of them that share pixels.

  Cells are in the order of their first pixel, row by row, so that nothing
  that follows, not even a tie, depends on the ids.

  Attributes:
    predicted_ids: ids of the n predicted cells.
    reference_ids: ids of the m reference cells.
    predicted_areas_px: pixels of each predicted cell.
    reference_areas_px: pixels of each reference cell.
    predicted: per pair, the index into predicted_ids; pairs are in row-major
      order, by predicted, then by reference.
    reference: per pair, the index into reference_ids.
    intersections_px: per pair, the pixels they share, at least 1.
  """

  predicted_ids: Ids
  reference_ids: Ids
  predicted_areas_px: Ids
  reference_areas_px: Ids
  predicted: Int64[np.ndarray, " k"]
  reference: Int64[np.ndarray, " k"]
  intersections_px: Int64[np.ndarray, " k"]

  @property
  def num_predicted(self) -> int:
    """Number of predicted cells."""
    return len(self.predicted_ids)

  @property
  def num_reference(self) -> int:
    """Number of reference cells."""
    return len(self.reference_ids)

  @property
  def unions_px(self) -> Int64[np.ndarray, " k"]:
    """Per pair, the pixels that either cell covers."""
    return (
      self.predicted_areas_px[self.predicted]
      + self.reference_areas_px[self.reference]
      - self.intersections_px
    )

  @property
  def ious(self) -> Float64[np.ndarray, " k"]:
    """Per pair, intersection over union, above 0 and up to 1."""
    return self.intersections_px / self.unions_px


@dataclasses.dataclass(frozen=True)
class Matching:
  """One-to-one pairs at an IoU threshold, and the counts that follow.

  The ratios are stardist's, with one addition: where neither mask has a cell
  all of them are 1, since nothing was missed and nothing invented. Where only
  one mask has cells, or no pair reaches the threshold, they are 0.

  Attributes:
    iou: the threshold; a pair counts from this IoU on.
    tp: number of pairs.
    fp: predicted cells without a partner.
    fn: reference cells without a partner.
    predicted: per pair, the index of the predicted cell in the Overlap.
    reference: per pair, the index of the reference cell in the Overlap.
    ious: per pair, the IoU.
  """

  iou: float
  tp: int
  fp: int
  fn: int
  predicted: Int64[np.ndarray, " t"]
  reference: Int64[np.ndarray, " t"]
  ious: Float64[np.ndarray, " t"]

  @property
  def precision(self) -> float:
    """Pairs over predicted cells."""
    return self._ratio(self.tp, self.tp + self.fp)

  @property
  def recall(self) -> float:
    """Pairs over reference cells."""
    return self._ratio(self.tp, self.tp + self.fn)

  @property
  def f1(self) -> float:
    """2 TP / (2 TP + FP + FN)."""
    return self._ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

  @property
  def average_precision(self) -> float:
    """TP / (TP + FP + FN), as stardist ("accuracy") and cellpose define it."""
    return self._ratio(self.tp, self.tp + self.fp + self.fn)

  @property
  def mean_matched_iou(self) -> float:
    """Mean IoU of the pairs."""
    return self._ratio(float(self.ious.sum()), self.tp)

  @property
  def panoptic_quality(self) -> float:
    """Sum of the pairs' IoU / (TP + FP / 2 + FN / 2): F1 times mean IoU."""
    return self.f1 * self.mean_matched_iou

  def _ratio(self, part: float, whole: float) -> float:
    if self.tp + self.fp + self.fn == 0:
      return 1.0
    return part / whole if self.tp else 0.0


def overlap(predicted: AnyLabels, reference: AnyLabels) -> Overlap:
  """Finds the cells of two masks and the pairs of them that share pixels.

  Args:
    predicted: labels (y, x) of any integer dtype, 0 = background; the ids may
      have gaps and be in any order, an id is one cell even where it lies in
      several pieces.
    reference: the same, same shape.

  Returns:
    The Overlap; empty arrays where there are no cells or no pixels.

  Raises:
    ValueError: not integers, not two-dimensional, a negative id, or two shapes.
  """
  check_labels("predicted", predicted)
  check_labels("reference", reference)
  if predicted.shape != reference.shape:
    raise ValueError(
      f"predicted: found shape {predicted.shape}, expected the reference's "
      f"{reference.shape}"
    )
  rows, columns, lengths_px = _find_runs(predicted, reference)
  predicted_ids, rows = _number_ids(rows)
  reference_ids, columns = _number_ids(columns)
  shape = len(predicted_ids) + 1, len(reference_ids) + 1
  table = sparse.coo_array((lengths_px, (rows, columns)), shape=shape).tocsr()
  table.sum_duplicates()
  # Row and column 0 are the background: they count in areas, not as pairs.
  pairs = table[1:, 1:].tocoo()
  return Overlap(
    predicted_ids=predicted_ids,
    reference_ids=reference_ids,
    predicted_areas_px=_sum_axis(table, 1)[1:],
    reference_areas_px=_sum_axis(table, 0)[1:],
    predicted=pairs.row.astype(np.int64),
    reference=pairs.col.astype(np.int64),
    intersections_px=pairs.data.astype(np.int64),
  )


def match_cells(
  predicted: AnyLabels, reference: AnyLabels, iou: float = 0.5
) -> Matching:
  """Pairs the cells of two masks one to one; see match_overlap."""
  return match_overlap(overlap(predicted, reference), iou)


def match_overlap(cells: Overlap, iou: float) -> Matching:
  """Pairs cells one to one: as many pairs as possible, then the highest IoUs.

  The definition is stardist's and cellpose's: of all one-to-one assignments,
  one with the most pairs whose IoU is at least `iou`; among those, the largest
  sum of IoUs over everything assigned, which includes touching cells below
  the threshold (they are then dropped). Above 0.5 only one set of pairs is
  possible. At exactly 0.5 the two halves of a cell tie, and below 0.5 equal
  sums may: the number of pairs is the same in every tie, which of the equal
  cells is paired is not specified.

  Args:
    cells: from `overlap`.
    iou: threshold, above 0 and up to 1; a pair counts from this IoU on.

  Returns:
    The Matching, its pairs sorted by predicted cell.

  Raises:
    ValueError: iou outside 0..1 or 0.
  """
  if not 0 < iou <= 1:
    raise ValueError(f"iou: found {iou}, expected above 0 and up to 1")
  ious = cells.ious
  # From 0.5 on, pairs below the threshold can not change what is paired.
  candidates = np.flatnonzero(ious >= (iou if iou >= 0.5 else 0.0))
  rows, columns = cells.predicted[candidates], cells.reference[candidates]
  is_chosen = _is_alone(rows) & _is_alone(columns)
  rest = np.flatnonzero(~is_chosen)
  num_assigned = max(1, min(cells.num_predicted, cells.num_reference))
  gains = (ious >= iou) + ious / (2 * num_assigned)
  chosen = _assign(rows[rest], columns[rest], gains[candidates[rest]])
  is_chosen[rest[chosen]] = True
  pairs = candidates[is_chosen]
  pairs = pairs[ious[pairs] >= iou]
  return Matching(
    iou=iou,
    tp=len(pairs),
    fp=cells.num_predicted - len(pairs),
    fn=cells.num_reference - len(pairs),
    predicted=cells.predicted[pairs],
    reference=cells.reference[pairs],
    ious=ious[pairs],
  )


def score_f1(
  predicted: AnyLabels, reference: AnyLabels, iou: float = 0.5
) -> float:
  """F1 of the one-to-one pairs at an IoU threshold; 1.0 if both are empty."""
  return match_cells(predicted, reference, iou).f1


def check_labels(name: str, labels: np.ndarray) -> None:
  """Raises a ValueError unless labels are integers >= 0 of shape (y, x)."""
  if labels.ndim != 2:
    raise ValueError(f"{name}: found shape {labels.shape}, expected (y, x)")
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f"{name}: found {labels.dtype}, expected integer ids")
  if labels.size and labels.min() < 0:
    raise ValueError(f"{name}: found id {labels.min()}, expected ids >= 0")


def _find_runs(
  predicted: AnyLabels, reference: AnyLabels
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Runs of pixels in which neither id changes: two ids and a length each."""
  predicted, reference = predicted.ravel(), reference.ravel()
  if not predicted.size:
    return predicted, reference, np.zeros(0, np.int64)
  is_new = predicted[1:] != predicted[:-1]
  is_new |= reference[1:] != reference[:-1]
  starts = np.concatenate(([0], np.flatnonzero(is_new) + 1))
  lengths_px = np.diff(starts, append=predicted.size)
  return predicted[starts], reference[starts], lengths_px


def _number_ids(ids: np.ndarray) -> tuple[Ids, np.ndarray]:
  """Ids other than 0 as they first occur; each entry's number, 0 for id 0."""
  present, firsts, ranks = np.unique(
    ids, return_index=True, return_inverse=True
  )
  order = np.argsort(firsts)
  order = order[present[order] != 0]
  numbers = np.zeros(len(present), np.int64)
  numbers[order] = np.arange(1, len(order) + 1)
  return present[order].astype(np.int64), numbers[ranks]


def _sum_axis(table: sparse.csr_array, axis: int) -> Ids:
  return np.asarray(table.sum(axis=axis), dtype=np.int64).ravel()


def _is_alone(indices: np.ndarray) -> Bool[np.ndarray, " k"]:
  """Whether each entry's value occurs once."""
  if not indices.size:
    return np.zeros(0, bool)
  return np.bincount(indices)[indices] == 1


def _assign(
  rows: np.ndarray, columns: np.ndarray, gains: np.ndarray
) -> np.ndarray:
  """Indices of the one-to-one pairs whose gains (0..2) have the largest sum.

  Every group of cells that pairs link is solved by itself: a solver's time
  grows faster than its problem.
  """
  if not rows.size:
    return np.zeros(0, np.int64)
  num_rows, num_columns = rows.max() + 1, columns.max() + 1
  size = num_rows + num_columns
  graph = sparse.coo_array(
    (np.ones(len(rows), np.int8), (rows, num_rows + columns)),
    shape=(size, size),
  )
  group = csgraph.connected_components(graph, directed=False)[1][rows]
  order = np.argsort(group, kind="stable")
  ends = np.flatnonzero(np.diff(group[order])) + 1
  chosen = [
    links[_assign_group(rows[links], columns[links], gains[links])]
    for links in np.split(order, ends)
  ]
  return np.concatenate(chosen)


def _assign_group(
  rows: np.ndarray, columns: np.ndarray, gains: np.ndarray
) -> np.ndarray:
  """Solves one group of linked cells; as _assign."""
  if len(rows) == 1:
    return np.zeros(1, np.int64)
  row_ids, rows = np.unique(rows, return_inverse=True)
  column_ids, columns = np.unique(columns, return_inverse=True)
  num_rows, num_columns = len(row_ids), len(column_ids)
  # A column of its own for each row stands for "no partner", so that a full
  # matching always exists; costs are above 0 since 0 would mean "no edge".
  alone = np.arange(num_rows)
  edges = (
    np.concatenate((rows, alone)),
    np.concatenate((columns, num_columns + alone)),
  )
  costs = np.concatenate((3 - gains, np.full(num_rows, 3.0)))
  graph = sparse.csr_array(
    (costs, edges), shape=(num_rows, num_columns + num_rows)
  )
  partners = csgraph.min_weight_full_bipartite_matching(graph)[1]
  return np.flatnonzero(partners[rows] == columns)
