"""From the working grid to the masks' pixels."""

import numpy as np
from jaxtyping import Int32

from dicexmbd_jax import storage
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.types import Labels


def sample_labels(
  labels: Labels, shape: tuple[int, int], aligns_corners: bool = False
) -> Int32[np.ndarray, "v u"]:
  """Reads labels at the pixel centres of another grid over the same area.

  Args:
    labels: on the working grid.
    shape: rows and columns wanted.
    aligns_corners: whether, instead, the first and last pixels coincide.

  Returns:
    The nearest pixel's label at each centre; half-way, the later pixel's.
  """
  find = _align_corners if aligns_corners else _align_edges
  rows, columns = (
    find(size, wanted) for size, wanted in zip(labels.shape, shape, strict=True)
  )
  sampled = storage.allocate(shape, labels.dtype)
  for strip in storage.cut_strips(shape, labels.itemsize):
    sampled[strip] = labels[np.ix_(rows[strip], columns)]
  return sampled


def _align_edges(size: int, wanted: int) -> np.ndarray:
  return np.floor((np.arange(wanted) + 0.5) * (size / wanted)).astype(int)


def _align_corners(size: int, wanted: int) -> np.ndarray:
  step = (size - 1) / max(wanted - 1, 1)
  return np.floor(np.arange(wanted) * step + 0.5).astype(int)


def vote_labels(
  labels: Labels, numbers: np.ndarray, shape: tuple[int, int]
) -> Int32[np.ndarray, "v u"]:
  """Gives each pixel of another grid over the same area its commonest label.

  All labels around its centre vote, with weights that fall linearly to 0 at the
  distance of one pixel, of whichever grid is the coarser. So outlines are
  neither shifted towards one side nor, on a finer grid, in steps.

  Args:
    labels: int32 (y, x), on the working grid.
    numbers: int32 (n,), what becomes of each label before.
    shape: rows and columns wanted.

  Returns:
    int32 (v, u); of labels with the same share of votes the one met first,
    from the centre outwards, the later of two pixels before the earlier.
  """
  rows, columns = (
    _weigh_votes(size, wanted)
    for size, wanted in zip(labels.shape, shape, strict=True)
  )
  num_votes = rows[0].shape[1] * columns[0].shape[1]
  voted = storage.allocate(shape, np.int32)
  fill_voted(
    labels,
    numbers,
    *rows,
    *columns,
    np.empty(num_votes, np.int32),
    np.empty(num_votes, np.float64),
    voted,
  )
  return voted


def _weigh_votes(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns who votes along one axis: places and weights, both (wanted, k).

  The heaviest come first, half-way the later pixel; weights sum to 1.
  """
  centres = (np.arange(wanted) + 0.5) * (size / wanted) - 0.5
  reach = max(size / wanted, 1.0)
  first = np.floor(centres - reach).astype(int) + 1
  places = first[:, None] + np.arange(int(np.ceil(2 * reach)))[::-1]
  weights = np.maximum(1 - np.abs(places - centres[:, None]) / reach, 0)
  weights /= weights.sum(axis=1, keepdims=True)
  order = np.argsort(-weights, axis=1, kind="stable")
  places, weights = (
    np.take_along_axis(one, order, axis=1)
    for one in (np.clip(places, 0, size - 1), weights)
  )
  return places, weights


@compile_kernel
def fill_voted(
  labels,
  numbers,
  rows,
  row_weights,
  columns,
  column_weights,
  seen,
  votes,
  voted,
):
  """Writes the labels of vote_labels into `voted`.

  `seen` and `votes` hold the labels that one pixel's voters have, and the
  weights of each.
  """
  height, width = rows.shape[1], columns.shape[1]
  for v in range(voted.shape[0]):
    for u in range(voted.shape[1]):
      # Nearly everywhere the nearest pixel's label has most votes.
      own = labels[rows[v, 0], columns[u, 0]]
      share, i = 0.0, 0
      while share < 0.5 and i < height:
        for j in range(width):
          if labels[rows[v, i], columns[u, j]] == own:
            share += row_weights[v, i] * column_weights[u, j]
        i += 1
      if share >= 0.5:
        voted[v, u] = numbers[own]
        continue
      num_seen = 0
      for i in range(height):
        for j in range(width):
          label = numbers[labels[rows[v, i], columns[u, j]]]
          k = 0
          while k < num_seen and seen[k] != label:
            k += 1
          if k == num_seen:
            seen[k] = label
            votes[k] = 0.0
            num_seen += 1
          votes[k] += row_weights[v, i] * column_weights[u, j]
      most = 0
      for k in range(1, num_seen):
        if votes[k] > votes[most]:
          most = k
      voted[v, u] = seen[most]


def halve_labels(
  labels: Labels, numbers: np.ndarray
) -> Int32[np.ndarray, "v u"]:
  """Halves labels by bilinear means; what is no whole number is background.

  Args:
    labels: int32 (2y, 2x).
    numbers: int32 (n,), what becomes of each label before.

  Returns:
    int32 (y, x). The mean of four different labels can be a whole number and
    is then taken for a label, as CellProfiler's RescaleObjects does.
  """
  height, width = labels.shape
  halved = storage.allocate((height // 2, width // 2), np.int32)
  fill_halved(labels, numbers, halved)
  return halved


@compile_kernel
def fill_halved(labels, numbers, halved):
  """Writes the labels of halve_labels into `halved`."""
  for y in range(halved.shape[0]):
    for x in range(halved.shape[1]):
      total = 0
      for row in (2 * y, 2 * y + 1):
        for column in (2 * x, 2 * x + 1):
          total += numbers[labels[row, column]]
      halved[y, x] = total // 4 if total % 4 == 0 else 0


def part_labels(labels: Labels) -> Labels:
  """Clears the pixels that differ from one above, left or above left.

  Coordinates are clamped at the edge.

  Args:
    labels: int32 (y, x).

  Returns:
    int32 (y, x), with a line of background between neighbours.
  """
  parted = storage.allocate(labels.shape, np.int32)
  fill_parted(labels, parted)
  return parted


@compile_kernel
def fill_parted(labels, parted):
  """Writes the labels of part_labels into `parted`, which is zeros."""
  for y in range(labels.shape[0]):
    for x in range(labels.shape[1]):
      label = labels[y, x]
      above = max(y - 1, 0)
      left = max(x - 1, 0)
      if (
        labels[above, x] == label
        and labels[y, left] == label
        and labels[above, left] == label
      ):
        parted[y, x] = label
