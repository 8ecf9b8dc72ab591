"""Gaussian smoothing with corrected edges, as CellProfiler does it."""

import numpy as np
from jaxtyping import Float64

from dicexmbd_jax.masks.convolution import convolve_plane

Plane = Float64[np.ndarray, "y x"]


def make_gaussian(sigma_px: float, radius_px: int) -> Float64[np.ndarray, "r"]:
  """Returns one half of a Gaussian that sums to 1, the centre first."""
  taps = np.exp(-0.5 * np.arange(radius_px + 1) ** 2 / sigma_px**2)
  return taps / (2 * taps.sum() - taps[0])


def weigh_edges(
  size: int, taps: Float64[np.ndarray, "r"]
) -> Float64[np.ndarray, "n"]:
  """Returns the kernel's weight that falls inside a line of `size` pixels."""
  full = np.concatenate([taps[:0:-1], taps])
  return np.convolve(np.ones(size), full)[taps.size - 1 :][:size]


def smooth_plane(
  plane: Plane, sigma_px: float, radius_px: int | None = None
) -> Plane:
  """Smooths a plane; outside is zero and the loss at the edges made good.

  Args:
    plane: values.
    sigma_px: standard deviation; 0 returns the plane as it is.
    radius_px: where the kernel ends; None: 4 sigma, as SciPy has it.

  Returns:
    The plane divided, after the filter, by the filtered plane of ones. A
    constant plane stays constant to 1e-12.
  """
  if sigma_px == 0:
    return plane
  if radius_px is None:
    radius_px = int(4 * sigma_px + 0.5)
  taps = make_gaussian(sigma_px, radius_px)
  norms = [weigh_edges(size, taps) for size in plane.shape]
  return convolve_plane(np.ascontiguousarray(plane), taps, *norms)
