"""All scores of one image's mask against its reference, by name.

Names and meanings, each 0..1 unless stated; see the functions for the cases
without cells, all of which have a value:

  num_predicted, num_reference    cells on each side
  pixel_{precision,recall,f1,jaccard}           outlines (paper, 2.5)
  cell_{precision,recall,f1,jaccard}            cells, IoU >= 0.1 (paper, 2.5)
  oversplit, merge                shares of predicted cells (paper, 2.5)
  iou_mean, iou_median            of the one-to-one pairs of the paper's rule;
                                  NaN where there is no pair
  tp_iou_T, f1_iou_T, ap_iou_T    pairs (a count), F1 and average precision at
                                  IoU T = 0.50 to 0.95 (stardist, cellpose)
  {precision,recall}_iou_0.50, f1_iou_mean, ap_iou_mean    mean over all T
  pq, sq                          panoptic quality (Kirillov et al. 2019) and
                                  its mean IoU part, pairs at IoU 0.5
  aji                             aggregated Jaccard (Kumar et al. 2017)
  boundary_{precision,recall,f1}  outlines within a tolerance
  dice                            cell pixels against background
  mesmer_{correct,missed,gained,split,merge,catastrophe}   counts
"""

import dataclasses

import numpy as np

from dicexmbd_jax.scores import boundary, errors, match

THRESHOLDS = tuple(t / 100 for t in range(50, 100, 5))
# Values of the picture of matches (paper, figure 2E).
MERGED_VALUE, SPLIT_VALUE, ALONE_VALUE = -0.4, -0.8, -1.0


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One image's mask against its reference.

  Attributes:
    overlap: the cells and the pairs of them that touch.
    errors: the paper's verdict on each cell.
    scores: score by name, see this module.
  """

  overlap: match.Overlap
  errors: errors.CellErrors
  scores: dict[str, float]


def evaluate_image(
  predicted: match.AnyLabels,
  reference: match.AnyLabels,
  tolerance_px: float = 1.0,
) -> Evaluation:
  """Computes every score of one image; linear in pixels and touching pairs.

  Args:
    predicted: labels (y, x) of any integer dtype, 0 = background; ids may have
      gaps and be in any order, and no result depends on them.
    reference: the same, same shape.
    tolerance_px: how far apart outlines may lie in the boundary scores.

  Returns:
    The Evaluation.

  Raises:
    ValueError: not integers, not (y, x), a negative id, or two shapes.
  """
  cells = match.overlap(predicted, reference)
  verdicts = errors.classify_cells(cells)
  events = dataclasses.asdict(errors.count_events(cells))
  scores = {
    "num_predicted": cells.num_predicted,
    "num_reference": cells.num_reference,
    **_score_outlines(predicted, reference, tolerance_px),
    **verdicts.score(),
    **_score_ious(cells.ious[verdicts.pairs]),
    **score_thresholds(cells),
    "aji": score_aji(cells),
    "dice": boundary.score_dice(predicted, reference),
    **{f"mesmer_{name}": count for name, count in events.items()},
  }
  return Evaluation(cells, verdicts, scores)


def score_thresholds(cells: match.Overlap) -> dict[str, float]:
  """F1 and average precision at each of THRESHOLDS, and panoptic quality."""
  matchings = [match.match_overlap(cells, iou) for iou in THRESHOLDS]
  scores: dict[str, float] = {}
  for matching in matchings:
    scores[f"tp_iou_{matching.iou:.2f}"] = matching.tp
    scores[f"f1_iou_{matching.iou:.2f}"] = matching.f1
    scores[f"ap_iou_{matching.iou:.2f}"] = matching.average_precision
  first = matchings[0]
  return scores | {
    "precision_iou_0.50": first.precision,
    "recall_iou_0.50": first.recall,
    "f1_iou_mean": float(np.mean([m.f1 for m in matchings])),
    "ap_iou_mean": float(np.mean([m.average_precision for m in matchings])),
    "pq": first.panoptic_quality,
    "sq": first.mean_matched_iou,
  }


def score_aji(cells: match.Overlap) -> float:
  """Aggregated Jaccard index (Kumar et al. 2017, algorithm 1).

  Each reference cell takes the predicted cell with the highest IoU, which
  several may share; the sum of intersections is divided by the sum of unions
  plus the areas of all cells that were not taken. Of equal IoUs the larger
  intersection is taken, then the cell that comes first in the image.

  Args:
    cells: from match.overlap.

  Returns:
    0..1; 1 where there are no cells at all.
  """
  if cells.num_predicted + cells.num_reference == 0:
    return 1.0
  order = np.lexsort((cells.predicted, -cells.intersections_px, -cells.ious))
  found, firsts = np.unique(cells.reference[order], return_index=True)
  taken = order[firsts]
  is_unused = np.ones(cells.num_predicted, bool)
  is_unused[cells.predicted[taken]] = False
  is_missed = np.ones(cells.num_reference, bool)
  is_missed[found] = False
  union_px = (
    cells.unions_px[taken].sum()
    + cells.predicted_areas_px[is_unused].sum()
    + cells.reference_areas_px[is_missed].sum()
  )
  return float(cells.intersections_px[taken].sum() / union_px)


def tabulate_cells(evaluation: Evaluation) -> dict[str, np.ndarray]:
  """One row per cell of either mask, in the order of their first pixels.

  Args:
    evaluation: from evaluate_image.

  Returns:
    Columns of equal length, predicted cells first: `mask` ("predicted" or
    "reference"), `id`, `area_px`, `matched_id` (the cell of the other mask
    with the highest IoU, 0 where none reaches 0.1), `iou` (with that cell, 0
    without) and `kind` (errors.PREDICTED_KINDS, errors.REFERENCE_KINDS).
  """
  cells, verdicts = evaluation.overlap, evaluation.errors
  ours, theirs = verdicts.best_of_predicted, verdicts.best_of_reference
  return {
    "mask": np.repeat(
      ["predicted", "reference"], [cells.num_predicted, cells.num_reference]
    ),
    "id": np.concatenate((cells.predicted_ids, cells.reference_ids)),
    "area_px": np.concatenate(
      (cells.predicted_areas_px, cells.reference_areas_px)
    ),
    "matched_id": np.concatenate(
      (
        _take(cells.reference_ids[cells.reference], ours),
        _take(cells.predicted_ids[cells.predicted], theirs),
      )
    ),
    "iou": np.concatenate((_take(cells.ious, ours), _take(cells.ious, theirs))),
    "kind": np.concatenate(
      (
        np.take(errors.PREDICTED_KINDS, verdicts.predicted),
        np.take(errors.REFERENCE_KINDS, verdicts.reference),
      )
    ),
  }


def paint_matches(
  predicted: match.AnyLabels, evaluation: Evaluation
) -> np.ndarray:
  """Paints each predicted cell with its match value (paper, figure 2E).

  Args:
    predicted: the labels (y, x) that the evaluation was made from.
    evaluation: from evaluate_image.

  Returns:
    float32 (y, x): the IoU in matched cells, -0.4 in merged, -0.8 in split and
    -1 in other cells; NaN in the background.
  """
  cells, verdicts = evaluation.overlap, evaluation.errors
  values = np.array([0, MERGED_VALUE, SPLIT_VALUE, ALONE_VALUE])
  values = values[verdicts.predicted]
  pairs = verdicts.pairs
  values[cells.predicted[pairs]] = cells.ious[pairs]
  order = np.argsort(cells.predicted_ids)
  ids = np.concatenate(([0], cells.predicted_ids[order]))
  palette = np.concatenate(([np.nan], values[order])).astype(np.float32)
  return palette[np.searchsorted(ids, predicted)]


def _score_outlines(
  predicted: match.AnyLabels, reference: match.AnyLabels, tolerance_px: float
) -> dict[str, float]:
  ours = boundary.find_boundaries(predicted)
  theirs = boundary.find_boundaries(reference)
  exact = dataclasses.asdict(boundary.score_pixels(ours, theirs))
  near = boundary.score_nearby(ours, theirs, tolerance_px)
  return {f"pixel_{name}": value for name, value in exact.items()} | {
    "boundary_precision": near.precision,
    "boundary_recall": near.recall,
    "boundary_f1": near.f1,
  }


def _score_ious(ious: np.ndarray) -> dict[str, float]:
  if not ious.size:
    return {"iou_mean": float("nan"), "iou_median": float("nan")}
  return {
    "iou_mean": float(ious.mean()),
    "iou_median": float(np.median(ious)),
  }


def _take(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
  """values[indices], 0 where the index is -1."""
  return np.append(values, values.dtype.type(0))[indices]
