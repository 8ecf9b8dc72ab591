"""Gaussian smoothing with corrected edges, as CellProfiler does it."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

from dicexmbd_jax.masks.blocks import Shape, Window
from dicexmbd_jax.masks.compiler import compile_kernel

Plane = Float64[np.ndarray, "y x"]
ReadPlane = Callable[[Window], Plane]

FWHM = 2.35  # Full width at half maximum per sigma, as CellProfiler rounds it.
# Smoothed values are rounded to this step. Neighbours on a plateau then stay
# equal to the bit, whatever the order of the sums near an edge of the image.
STEP = 2.0**-40


@dataclasses.dataclass(frozen=True)
class Gaussian:
  """A Gaussian cut off at a radius; sigma 0 leaves everything as it is.

  Attributes:
    sigma_px: standard deviation.
    radius_px: the kernel has 2 * radius_px + 1 taps.
    is_normalised: whether the taps sum to 1; else the curve's area does.
  """

  sigma_px: float
  radius_px: int
  is_normalised: bool = True

  @property
  def taps(self) -> Float64[np.ndarray, " n"]:
    """The kernel."""
    steps = np.arange(-self.radius_px, self.radius_px + 1)
    # Operations in SciPy's and in CellProfiler's order: equal to the bit.
    if self.is_normalised:
      curve = np.exp(-0.5 / self.sigma_px**2 * steps**2)
      return curve / curve.sum()
    curve = np.exp(-0.5 * steps**2 / self.sigma_px**2)
    return 1 / np.sqrt(2 * np.pi) / self.sigma_px * curve


def make_gaussian(sigma_px: float) -> Gaussian:
  """Returns a Gaussian cut off at 4 sigma, as SciPy's."""
  return Gaussian(sigma_px, int(4 * sigma_px + 0.5))


def make_declumping_gaussian(width_px: float) -> Gaussian:
  """Returns CellProfiler's Gaussian of a width, cut off at half of it."""
  return Gaussian(width_px / FWHM, max(int(width_px / 2), 1), False)


def smooth_window(
  read: ReadPlane,
  gaussian: Gaussian,
  window: Window,
  shape: Shape,
  is_single: bool = False,
) -> Plane:
  """Smooths a window of a plane; the result does not depend on the window.

  Outside the plane is zero, and the loss at its edges is made good by the
  filtered plane of ones. A constant plane stays constant unless `is_single`.

  Args:
    read: reads a window of the plane.
    gaussian: what to smooth with.
    window: what is wanted.
    shape: of the whole plane.
    is_single: whether to round to single precision after each direction, as
      CellProfiler does to images of single precision.
  """
  if gaussian.sigma_px == 0:
    return read(window)
  outer = window.expand(gaussian.radius_px, shape)
  plane = np.ascontiguousarray(read(outer))
  if is_single:
    smooth = _smooth_single(plane, gaussian)
  else:
    taps = gaussian.taps
    rows, columns = outer.slices
    weights_y = weigh_edges(shape[0], taps)[rows]
    weights_x = weigh_edges(shape[1], taps)[columns]
    smooth = np.empty(plane.shape)
    zeros = np.zeros((2, plane.shape[1] + 2 * gaussian.radius_px))
    half = taps[gaussian.radius_px :]
    convolve_plane(plane, half, weights_y, weights_x, zeros, smooth)
  return smooth[window.find_inside(outer)]


def weigh_edges(
  size: int, taps: Float64[np.ndarray, " m"]
) -> Float64[np.ndarray, " n"]:
  """Returns the kernel's weight that falls inside a line of `size` pixels."""
  radius = taps.size // 2
  # From each pixel, the kernel's weight up to a number of steps to one side.
  reach = np.minimum(np.arange(size), radius)
  one_side = np.concatenate([[0.0], np.cumsum(taps[radius + 1 :])])[reach]
  return taps[radius] + one_side + one_side[::-1]


def _smooth_single(plane: Plane, gaussian: Gaussian) -> Plane:
  """Smooths to the bit as CellProfiler 4 does; wrong near cut edges."""
  taps = gaussian.taps

  def convolve(values: np.ndarray) -> np.ndarray:
    rows = ndimage.convolve1d(values, taps, axis=0, mode="constant")
    return ndimage.convolve1d(rows, taps, axis=1, mode="constant")

  weights = convolve(np.ones(plane.shape))
  if gaussian.is_normalised:
    weights += np.finfo(float).eps
  return convolve(plane.astype(np.float32)) / weights


@compile_kernel
def convolve_plane(plane, taps, norm_y, norm_x, zeros, smoothed):
  """Convolves rows and columns with a symmetric kernel, zeros outside.

  Args:
    plane: float64 (y, x).
    taps: float64 (r + 1,), the kernel's centre and one half.
    norm_y: float64 (y,), what each row's result is divided by.
    norm_x: float64 (x,), the same for columns.
    zeros: float64 (2, x + 2 r), zeros; the first row is written to.
    smoothed: float64 (y, x); becomes the result, rounded to STEP.
  """
  height, width = plane.shape
  radius = taps.size - 1
  column, outside = zeros[0], zeros[1]
  middle = column[radius : radius + width]
  for y in range(height):
    for x in range(width):
      middle[x] = taps[0] * plane[y, x]
    for k in range(1, radius + 1):
      tap = taps[k]
      above = plane[y - k] if y >= k else outside
      below = plane[y + k] if y + k < height else outside
      for x in range(width):
        middle[x] += tap * (above[x] + below[x])
    row = smoothed[y]
    for x in range(width):
      row[x] = taps[0] * middle[x]
    for k in range(1, radius + 1):
      tap = taps[k]
      left = column[radius - k : radius - k + width]
      right = column[radius + k : radius + k + width]
      for x in range(width):
        row[x] += tap * (left[x] + right[x])
    for x in range(width):
      row[x] = np.rint(row[x] / (norm_y[y] * norm_x[x]) / STEP) * STEP
