"""Scores where a reference tells a part of an image only."""

import numpy as np
from jaxtyping import Bool, Int64

from dicexmbd_jax.scores import match
from dicexmbd_jax.types import Labels

Counts = Int64[np.ndarray, "n 3"]  # Right, invented and missed.


def keep_known(labels: Labels, known: Bool[np.ndarray, "y x"]) -> Labels:
  """Clears the objects of which more than half lies where nothing is known.

  Applied to a mask and to its reference it leaves what can be compared: what
  a network finds beyond the labelled part is neither right nor wrong.

  Args:
    labels: 0 = background; ids may have gaps.
    known: where the reference tells what is there.

  Returns:
    The labels of the other objects, whole, also where they reach beyond.
  """
  numbers = labels
  if labels.max(initial=0) > labels.size:  # Too large to count up to.
    _, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.reshape(labels.shape)
  areas_px = np.bincount(numbers.ravel())
  known_px = np.bincount(numbers[known], minlength=len(areas_px))
  return np.where((2 * known_px >= areas_px)[numbers], labels, 0)


def count_blocks(
  predicted: Labels, reference: Labels, block_px: int, iou: float = 0.5
) -> Counts:
  """Counts matches in the squares of a grid, to draw intervals from.

  Args:
    predicted: cells, 0 = background.
    reference: the same, same shape.
    block_px: edge of the squares; those at the end may be smaller.
    iou: as match.match_cells has it.

  Returns:
    By square, row by row: cells that match (where the reference's centre
    lies), predicted cells without a partner, reference cells without one.
  """
  cells = match.overlap(predicted, reference)
  pairs = match.match_overlap(cells, iou)
  grid = tuple(-(-size // block_px) for size in reference.shape)
  ours = _find_blocks(predicted, cells.predicted_ids, block_px, grid)
  theirs = _find_blocks(reference, cells.reference_ids, block_px, grid)
  groups = (
    theirs[pairs.reference],
    np.delete(ours, pairs.predicted),
    np.delete(theirs, pairs.reference),
  )
  num_blocks = grid[0] * grid[1]
  counts = [np.bincount(group, minlength=num_blocks) for group in groups]
  return np.stack(counts, axis=1).astype(np.int64)


def count_pixels(
  predicted: Bool[np.ndarray, "y x"],
  reference: Bool[np.ndarray, "y x"],
  known: Bool[np.ndarray, "y x"],
  block_px: int,
) -> Counts:
  """Counts pixels as count_blocks counts cells, where something is known."""
  rows, columns = (-(-size // block_px) for size in reference.shape)
  blocks = np.add.outer(
    np.arange(reference.shape[0]) // block_px * columns,
    np.arange(reference.shape[1]) // block_px,
  )
  groups = (
    predicted & reference, predicted & ~reference, ~predicted & reference
  )  # fmt: skip
  counts = [
    np.bincount(blocks[group & known], minlength=rows * columns)
    for group in groups
  ]
  return np.stack(counts, axis=1).astype(np.int64)


def pool_f1(counts: np.ndarray) -> np.ndarray:
  """Returns F1 of counts (..., 3); 1 where there is nothing to find."""
  right, invented, missed = np.moveaxis(np.asarray(counts, float), -1, 0)
  total = 2 * right + invented + missed
  return np.where(total > 0, 2 * right / np.maximum(total, 1), 1.0)


def _find_blocks(
  labels: Labels, ids: np.ndarray, block_px: int, grid: tuple[int, ...]
) -> np.ndarray:
  """Returns the square that holds each object's centre."""
  rows, columns = np.nonzero(labels)
  present, values = np.unique(labels[rows, columns], return_inverse=True)
  areas_px = np.bincount(values)
  y, x = (
    np.bincount(values, weights=places) / areas_px for places in (rows, columns)
  )
  found = (y // block_px).astype(int) * grid[1] + (x // block_px).astype(int)
  return found[np.searchsorted(present, ids)]
