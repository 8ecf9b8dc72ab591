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
