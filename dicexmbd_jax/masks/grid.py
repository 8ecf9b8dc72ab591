"""From the maps' pixels to working pixels and back to the masks' pixels."""

import numpy as np
from jaxtyping import Float, Float64

from dicexmbd_jax.types import Labels


def upscale_plane(
  plane: Float[np.ndarray, "y x"], factor: int
) -> Float64[np.ndarray, "v u"]:
  """Enlarges a plane by a whole factor, bilinear, edges repeated.

  Args:
    plane: values.
    factor: 1 or more.

  Returns:
    (y * factor, x * factor). Source: scikit-image's resize with order 1 and
    mode "symmetric".
  """
  return upscale_rows(upscale_rows(plane, factor).T, factor).T


def upscale_rows(
  plane: Float[np.ndarray, "y x"], factor: int
) -> Float64[np.ndarray, "v x"]:
  """Enlarges the first axis by a whole factor."""
  plane = plane.astype(np.float64)
  if factor == 1:
    return plane
  padded = np.pad(plane, ((1, 1), (0, 0)), mode="edge")
  phases = []
  for phase in range(factor):
    # Where this phase's centre lies, in pixels after the centre of pixel y.
    shift = (phase + 0.5) / factor - 0.5
    first = 1 if shift >= 0 else 0
    part = shift if shift >= 0 else 1 + shift
    lower = padded[first : first + len(plane)]
    upper = padded[first + 1 :][: len(plane)] if part else lower
    phases.append((1 - part) * lower + part * upper)
  return np.stack(phases, axis=1).reshape(-1, plane.shape[1])


def sample_labels(labels: Labels, shape: tuple[int, int]) -> Labels:
  """Reads labels at the pixel centres of another grid over the same area.

  Args:
    labels: on the working grid.
    shape: rows and columns wanted.

  Returns:
    The nearest pixel's label at each centre; half-way, the later pixel's.
  """
  rows, columns = (
    np.floor((np.arange(wanted) + 0.5) * (size / wanted)).astype(int)
    for wanted, size in zip(shape, labels.shape, strict=True)
  )
  return labels[np.ix_(rows, columns)]


def halve_labels(labels: Labels) -> Labels:
  """Halves labels by bilinear means; what is no whole number is background.

  Args:
    labels: (2y, 2x).

  Returns:
    (y, x). The mean of four different labels can be a whole number and is
    then taken for a label, as CellProfiler's RescaleObjects does.
  """
  total = labels[::2, ::2] + labels[1::2, ::2]
  total += labels[::2, 1::2] + labels[1::2, 1::2]
  return np.where(total % 4 == 0, total // 4, 0).astype(labels.dtype)


def part_labels(labels: Labels) -> Labels:
  """Clears the pixels that differ from one above, left or above left.

  Returns:
    Labels with a line of background between neighbours. Coordinates are
    mirrored at the edge, so the first row and column keep their pixels.
  """
  padded = np.pad(labels, ((1, 0), (1, 0)), mode="edge")
  is_same = (
    (padded[1:, :-1] == labels)
    & (padded[:-1, 1:] == labels)
    & (padded[:-1, :-1] == labels)
  )
  return np.where(is_same, labels, 0)
