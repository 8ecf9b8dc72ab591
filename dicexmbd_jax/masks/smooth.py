"""Gaussian smoothing with corrected edges, as CellProfiler does it."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from dicexmbd_jax.masks.blocks import Shape, Window
from dicexmbd_jax.masks.convolution import convolve_plane

Plane = Float64[np.ndarray, "y x"]
ReadPlane = Callable[[Window], Plane]

FWHM = 2.35  # Full width at half maximum per sigma, as CellProfiler rounds it.


@dataclasses.dataclass(frozen=True)
class Gaussian:
  """A Gaussian cut off at a radius; sigma 0 leaves everything as it is."""

  sigma_px: float
  radius_px: int

  @property
  def taps(self) -> Float64[np.ndarray, "r"]:
    """One half of the kernel, the centre first; the whole sums to 1."""
    steps = np.arange(self.radius_px + 1)
    taps = np.exp(-0.5 * steps**2 / self.sigma_px**2)
    return taps / (2 * taps.sum() - taps[0])


def make_gaussian(sigma_px: float) -> Gaussian:
  """Returns a Gaussian cut off at 4 sigma, as SciPy's."""
  return Gaussian(sigma_px, int(4 * sigma_px + 0.5))


def make_declumping_gaussian(width_px: float) -> Gaussian:
  """Returns CellProfiler's Gaussian of a width, cut off at half of it."""
  return Gaussian(width_px / FWHM, max(int(width_px / 2), 1))


def smooth_window(
  read: ReadPlane, gaussian: Gaussian, window: Window, shape: Shape
) -> Plane:
  """Smooths a window of a plane; the result does not depend on the window.

  Outside the plane is zero, and the loss at its edges is made good by the
  filtered plane of ones. A constant plane stays constant.

  Args:
    read: reads a window of the plane.
    gaussian: what to smooth with.
    window: what is wanted.
    shape: of the whole plane.
  """
  if gaussian.sigma_px == 0:
    return read(window)
  outer = window.expand(gaussian.radius_px, shape)
  taps = gaussian.taps
  rows, columns = outer.slices
  weights_y = weigh_edges(shape[0], taps)[rows]
  weights_x = weigh_edges(shape[1], taps)[columns]
  plane = np.ascontiguousarray(read(outer))
  smooth = convolve_plane(plane, taps, weights_y, weights_x)
  return smooth[window.find_inside(outer)]


def weigh_edges(
  size: int, taps: Float64[np.ndarray, "r"]
) -> Float64[np.ndarray, "n"]:
  """Returns the kernel's weight that falls inside a line of `size` pixels."""
  # From each pixel, the kernel's weight up to a number of steps to one side.
  reach = np.minimum(np.arange(size), taps.size - 1)
  one_side = np.concatenate([[0.0], np.cumsum(taps[1:])])[reach]
  return taps[0] + one_side + one_side[::-1]
