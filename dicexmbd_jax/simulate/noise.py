"""Smooth random fields, and fibres that follow a direction."""

import math

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

Field = Float32[np.ndarray, "y x"]

# What cubic B-spline smoothing leaves of white noise's deviation in two axes:
# the mean of the squared weights is 151/315 per axis.
_SPLINE_DEVIATION = np.float32(151 / 315)


def make_field(
  rng: np.random.Generator, shape: tuple[int, int], scale_px: float
) -> Field:
  """Makes smooth Gaussian noise of mean 0 and standard deviation about 1.

  Args:
    rng: source of randomness.
    shape: (y, x) of the result.
    scale_px: distance over which values change, at least 1.

  Returns:
    Cubic interpolation of white noise on a grid of that spacing, float32.
  """
  step = max(float(scale_px), 1.0)
  num_nodes = [math.ceil(n / step) + 5 for n in shape]
  field = rng.standard_normal(num_nodes).astype(np.float32)
  for axis, num in enumerate(shape):
    # The grid's phase is random, so that no pixel is special.
    position = np.arange(num) / step + rng.uniform(0.5, 1.5)
    node = position.astype(int)
    weights = _weigh_cubic((position - node).astype(np.float32))
    weights = weights.reshape(4, -1, 1) if axis == 0 else weights[:, None]
    parts = (np.take(field, node + k, axis) * weights[k] for k in range(4))
    field = np.asarray(sum(parts))
  return field / _SPLINE_DEVIATION


def _weigh_cubic(t: np.ndarray) -> np.ndarray:
  """Cubic B-spline weights of the four neighbours of fraction t."""
  return (
    np.stack(
      [
        (1 - t) ** 3,
        3 * t**3 - 6 * t**2 + 4,
        -3 * t**3 + 3 * t**2 + 3 * t + 1,
        t**3,
      ]
    )
    / 6
  )


def make_fibres(
  rng: np.random.Generator, angle: Field, width_px: float
) -> Field:
  """Draws fibres along a direction field.

  Args:
    rng: source of randomness.
    angle: direction of the fibres at every pixel, radians.
    width_px: their width.

  Returns:
    Float32 (y, x) of 0 (none) to about 3 (a dense bundle).
  """
  noise = rng.standard_normal(angle.shape).astype(np.float32)
  noise = ndimage.gaussian_filter(noise, 0.8)  # Else steps of 2 leave beads.
  y, x = np.mgrid[: angle.shape[0], : angle.shape[1]].astype(np.float32)
  step_y, step_x = np.sin(angle), np.cos(angle)
  total = np.zeros_like(noise)
  # A line integral of noise along the field leaves streaks of its direction.
  for k in range(-8, 9, 2):
    total += ndimage.map_coordinates(
      noise, [y + k * step_y, x + k * step_x], order=1, mode="reflect"
    )
  total = ndimage.gaussian_filter(total, width_px / 2.355)
  total /= max(float(total.std()), 1e-6)
  return np.maximum(total - 0.4, 0)
