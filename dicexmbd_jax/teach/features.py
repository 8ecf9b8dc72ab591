"""What the forest sees of a pixel: Ilastik's filters at Ilastik's scales.

Ilastik (1.3, 1.4) smooths a plane first and then filters with a small kernel:
for a scale sigma above 1 px it smooths with sqrt(sigma^2 - 1) and filters at 1;
at or below 1 px it smooths with sigma and filters at sigma. Kernels end at 3.5
sigma where it smooths first, at 2 sigma where it filters, rounded to whole
pixels; borders are mirrored at the pixels' centres. Of the structure tensor,
its library takes the two scales in turned order: the gradient is taken at half
the scale, and its products are smoothed at the whole. All this is held by
tests/teach/test_parity.py, where a forest that Ilastik trained sees these
features and gives Ilastik's own maps.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Float64
from scipy import ndimage

from dicexmbd_jax.sections import show

Planes = Float32[np.ndarray, "y x c"]
Plane = Float32[np.ndarray, "y x"]
Features = Float32[np.ndarray, "y x n"]

SCALES_PX = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
_SMOOTHING_WINDOW = 3.5  # Sigmas, to either side.
_FILTER_WINDOW = 2.0  # Sigmas, to either side.
_FILTER_SCALE_PX = 1.0  # Larger scales are smoothed first.
_SMALLER = 0.66  # Second sigma of the difference of Gaussians, to the first.
_INNER = 0.5  # Sigma of the structure tensor's gradient, to its scale.


@dataclasses.dataclass(frozen=True)
class Feature:
  """One filter at one scale.

  Attributes:
    name: a key of FILTERS, as Ilastik's projects spell it.
    scale_px: its sigma, in pixels of the image.
  """

  name: str
  scale_px: float


Selection = Sequence[Feature]


def compute_features(
  planes: Planes,
  selection: Selection,
  part: tuple[slice, slice] = (slice(None), slice(None)),
) -> Features:
  """Computes the features of every pixel.

  Args:
    planes: any channels, on any scale; finite.
    selection: the filters; see list_features.
    part: rows and columns wanted; the others are only looked at.

  Returns:
    One column per feature, channel and, of the tensors, eigenvalue (the larger
    first), in this order: Ilastik's. A constant plane gives its value for the
    Gaussian and 0 elsewhere, up to rounding. Mirrored borders make any size
    possible, down to one pixel.

  Raises:
    ValueError: not (y, x, c), no pixels, or a feature that is unknown.
  """
  check_planes(planes)
  check_selection(selection)
  num_channels = planes.shape[2]
  num_rows, num_columns = planes.shape[:2]
  part = (
    slice(*part[0].indices(num_rows)[:2]),
    slice(*part[1].indices(num_columns)[:2]),
  )
  height, width = planes[(*part, 0)].shape
  counts = [num_channels * FILTERS[one.name][1] for one in selection]
  found = np.empty((sum(counts), height, width), np.float32)
  starts = np.cumsum([0, *counts])
  for scale_px in sorted({one.scale_px for one in selection}):
    # Small filters look at little around the part.
    halo = measure_halo([one for one in selection if one.scale_px == scale_px])
    rows, inner_rows = add_halo(part[0], halo, num_rows)
    lines, inner_lines = add_halo(part[1], halo, num_columns)
    for channel in range(num_channels):
      plane = FilteredPlane(planes[rows, lines, channel], scale_px)
      for one, start in zip(selection, starts, strict=False):
        if one.scale_px == scale_px:
          compute, depth = FILTERS[one.name]
          columns = start + channel * depth + np.arange(depth)
          for column, value in zip(columns, compute(plane), strict=True):
            found[column] = value[inner_rows, inner_lines]
  # Each was written as a whole; one by one into a pixel's columns is slow.
  return np.ascontiguousarray(found.transpose(1, 2, 0))


def list_features(
  scales_px: Sequence[float] = SCALES_PX, names: Sequence[str] | None = None
) -> tuple[Feature, ...]:
  """Lists what Ilastik offers, in its order: every filter at every scale.

  Scales that are too small for a filter are left out: 0.3 px is for the
  Gaussian alone.
  """
  return tuple(
    Feature(name, float(scale_px))
    for name in (names or FILTERS)
    for scale_px in scales_px
    if scale_px >= _get_smallest_scale(name)
  )


def count_columns(selection: Selection, num_channels: int) -> int:
  """Returns the number of columns that compute_features gives."""
  return num_channels * sum(FILTERS[one.name][1] for one in selection)


def measure_halo(selection: Selection) -> int:
  """Returns how far, in pixels, a feature looks beyond its pixel."""
  largest = max(one.scale_px for one in selection)
  small = min(largest, _FILTER_SCALE_PX)
  reach = _count_radius(small, _FILTER_WINDOW)
  inner = _count_radius(small * _INNER, _FILTER_WINDOW)
  smoothing = _count_radius(_choose_presmoothing(largest), _SMOOTHING_WINDOW)
  return smoothing + reach + inner


def add_halo(part: slice, halo: int, size: int) -> tuple[slice, slice]:
  """Returns a slice with its halo, and where in it the slice itself lies.

  Args:
    part: of an axis, from start to stop.
    halo: pixels to either side.
    size: of the axis, where the halo ends.
  """
  start, stop = max(part.start - halo, 0), min(part.stop + halo, size)
  return slice(start, stop), slice(part.start - start, part.stop - start)


def check_planes(planes: np.ndarray) -> None:
  """Raises a ValueError if these are not planes of pixels."""
  if planes.ndim != 3 or 0 in planes.shape:
    raise ValueError(
      f"planes: found shape {planes.shape}, expected (y, x, channels) with "
      "pixels"
    )


def check_selection(selection: Selection) -> None:
  """Raises a ValueError if there is no feature, or an unknown one."""
  if not selection:
    raise ValueError("selection: found no feature, expected at least one")
  for one in selection:
    if one.name not in FILTERS:
      raise ValueError(
        f"selection: found the feature {show(one.name)}, expected one of "
        f"{', '.join(FILTERS)}"
      )
    smallest = _get_smallest_scale(one.name)
    if not smallest <= one.scale_px < math.inf:
      raise ValueError(
        f"selection: found {one.name} at {one.scale_px} px, expected a scale "
        f"of {smallest} px or more"
      )


class FilteredPlane:
  """A plane at a scale, and what was made of it with Gaussian kernels.

  Filters share most of their passes over the pixels, which take the time.

  Attributes:
    plane: smoothed as far as the filters at this scale leave to be done.
    sigma: of the filters, in pixels.
  """

  def __init__(self, plane: Plane, scale_px: float):
    """Smooths a plane of any real values for a scale in pixels."""
    presmoothing = _choose_presmoothing(scale_px)
    kernel = make_kernel(presmoothing, 0, _SMOOTHING_WINDOW)
    self.plane = _convolve(np.asarray(plane, np.float32), kernel, kernel)
    self.sigma = min(scale_px, _FILTER_SCALE_PX)
    self._rows: dict[int, Plane] = {}
    self._planes: dict[tuple[int, int], Plane] = {}

  def derive(self, down: int, right: int) -> Plane:
    """Returns the derivative of these orders, 0 to 2, along the axes."""
    if (down, right) not in self._planes:
      if right not in self._rows:
        self._rows[right] = _correlate(self.plane, self._make(right), 1)
      found = _correlate(self._rows[right], self._make(down), 0)
      self._planes[down, right] = found
    return self._planes[down, right]

  def _make(self, order: int) -> np.ndarray:
    return make_kernel(self.sigma, order, _FILTER_WINDOW)


def make_kernel(
  sigma: float, order: int, window: float
) -> Float64[np.ndarray, " n"]:
  """Samples a Gaussian or one of its first two derivatives.

  Args:
    sigma: in pixels.
    order: 0, 1 or 2.
    window: half the kernel's length, in sigmas.

  Returns:
    Weights for a correlation, scaled so that order 0 keeps a constant, order 1
    gives the slope of a ramp, and order 2 gives 1 for x^2 / 2 and 0 for a
    constant.
  """
  radius = _count_radius(sigma, window)
  x = np.arange(-radius, radius + 1, dtype=np.float64)
  bell = np.exp(-0.5 * (x / sigma) ** 2)
  if order == 0:
    return bell / bell.sum()
  if order == 1:
    slope = x * bell
    return slope / (slope @ x)
  curve = ((x / sigma) ** 2 - 1) * bell
  curve -= curve.mean()
  return curve / (curve @ x**2 / 2)


def _smooth(one: FilteredPlane) -> tuple[Plane, ...]:
  return (one.derive(0, 0),)


def _measure_laplacian(one: FilteredPlane) -> tuple[Plane, ...]:
  return (one.derive(2, 0) + one.derive(0, 2),)


def _measure_gradient(one: FilteredPlane) -> tuple[Plane, ...]:
  return (np.hypot(one.derive(1, 0), one.derive(0, 1)),)


def _subtract_gaussians(one: FilteredPlane) -> tuple[Plane, ...]:
  kernel = make_kernel(one.sigma * _SMALLER, 0, _FILTER_WINDOW)
  return (one.derive(0, 0) - _convolve(one.plane, kernel, kernel),)


def _measure_structure(one: FilteredPlane) -> tuple[Plane, ...]:
  bell, slope = (
    make_kernel(one.sigma * _INNER, n, _FILTER_WINDOW) for n in (0, 1)
  )
  down = _convolve(one.plane, slope, bell)
  right = _convolve(one.plane, bell, slope)
  outer = make_kernel(one.sigma, 0, _FILTER_WINDOW)
  products = (down * down, down * right, right * right)
  return _find_eigenvalues(
    *(_convolve(each, outer, outer) for each in products)
  )


def _measure_hessian(one: FilteredPlane) -> tuple[Plane, ...]:
  return _find_eigenvalues(one.derive(2, 0), one.derive(1, 1), one.derive(0, 2))


# Name -> (function of a plane at a scale, number of planes it gives).
FILTERS: dict[str, tuple[Callable[[FilteredPlane], tuple[Plane, ...]], int]] = {
  "GaussianSmoothing": (_smooth, 1),
  "LaplacianOfGaussian": (_measure_laplacian, 1),
  "GaussianGradientMagnitude": (_measure_gradient, 1),
  "DifferenceOfGaussians": (_subtract_gaussians, 1),
  "StructureTensorEigenvalues": (_measure_structure, 2),
  "HessianOfGaussianEigenvalues": (_measure_hessian, 2),
}


def _find_eigenvalues(
  first: Plane, mixed: Plane, second: Plane
) -> tuple[Plane, Plane]:
  """Returns the eigenvalues of symmetric 2 x 2 matrices, the larger first."""
  middle = (first + second) / 2
  spread = np.hypot((first - second) / 2, mixed)
  return middle + spread, middle - spread


def _get_smallest_scale(name: str) -> float:
  # Below, kernels of derivatives have no pixel beside their centre.
  return 0.3 if name == "GaussianSmoothing" else 0.7


def _choose_presmoothing(scale_px: float) -> float:
  if scale_px > _FILTER_SCALE_PX:
    return math.sqrt(scale_px**2 - _FILTER_SCALE_PX**2)
  return scale_px


def _count_radius(sigma: float, window: float) -> int:
  return math.floor(window * sigma + 0.5)


def _convolve(plane: Plane, down: np.ndarray, right: np.ndarray) -> Plane:
  return _correlate(_correlate(plane, right, 1), down, 0)


def _correlate(plane: Plane, kernel: np.ndarray, axis: int) -> Plane:
  return ndimage.correlate1d(plane, kernel, axis=axis, mode="mirror")
