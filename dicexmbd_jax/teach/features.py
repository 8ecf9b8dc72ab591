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
  height, width = planes[(*part, 0)].shape
  counts = [num_channels * FILTERS[one.name][1] for one in selection]
  result = np.empty((height, width, sum(counts)), np.float32)
  starts = np.cumsum([0, *counts])
  for scale_px in sorted({one.scale_px for one in selection}):
    for channel in range(num_channels):
      smooth = presmooth_plane(planes[..., channel], scale_px)
      for one, start in zip(selection, starts, strict=False):
        if one.scale_px == scale_px:
          compute, depth = FILTERS[one.name]
          columns = start + channel * depth + np.arange(depth)
          values = compute(smooth, min(scale_px, _FILTER_SCALE_PX))
          for column, value in zip(columns, values, strict=True):
            result[..., column] = value[part]
  return result


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


def presmooth_plane(plane: Plane, scale_px: float) -> Plane:
  """Smooths a plane as far as the filters at this scale leave to be done."""
  sigma = _choose_presmoothing(scale_px)
  kernel = make_kernel(sigma, 0, _SMOOTHING_WINDOW)
  return _convolve(np.asarray(plane, np.float32), kernel, kernel)


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


def _smooth(plane: Plane, sigma: float) -> tuple[Plane, ...]:
  kernel = make_kernel(sigma, 0, _FILTER_WINDOW)
  return (_convolve(plane, kernel, kernel),)


def _measure_laplacian(plane: Plane, sigma: float) -> tuple[Plane, ...]:
  bell, curve = (make_kernel(sigma, n, _FILTER_WINDOW) for n in (0, 2))
  return (_convolve(plane, curve, bell) + _convolve(plane, bell, curve),)


def _measure_gradient(plane: Plane, sigma: float) -> tuple[Plane, ...]:
  return (np.hypot(*_derive(plane, sigma)),)


def _subtract_gaussians(plane: Plane, sigma: float) -> tuple[Plane, ...]:
  (wide,), (narrow,) = _smooth(plane, sigma), _smooth(plane, sigma * _SMALLER)
  return (wide - narrow,)


def _measure_structure(plane: Plane, sigma: float) -> tuple[Plane, ...]:
  down, right = _derive(plane, sigma * _INNER)
  outer = make_kernel(sigma, 0, _FILTER_WINDOW)
  products = (down * down, down * right, right * right)
  return _find_eigenvalues(*(_convolve(one, outer, outer) for one in products))


def _measure_hessian(plane: Plane, sigma: float) -> tuple[Plane, ...]:
  bell, slope, curve = (make_kernel(sigma, n, _FILTER_WINDOW) for n in range(3))
  return _find_eigenvalues(
    _convolve(plane, curve, bell),
    _convolve(plane, slope, slope),
    _convolve(plane, bell, curve),
  )


# Name -> (function of a smoothed plane and a sigma, number of planes it gives).
FILTERS: dict[str, tuple[Callable[[Plane, float], tuple[Plane, ...]], int]] = {
  "GaussianSmoothing": (_smooth, 1),
  "LaplacianOfGaussian": (_measure_laplacian, 1),
  "GaussianGradientMagnitude": (_measure_gradient, 1),
  "DifferenceOfGaussians": (_subtract_gaussians, 1),
  "StructureTensorEigenvalues": (_measure_structure, 2),
  "HessianOfGaussianEigenvalues": (_measure_hessian, 2),
}


def _derive(plane: Plane, sigma: float) -> tuple[Plane, Plane]:
  bell, slope = (make_kernel(sigma, n, _FILTER_WINDOW) for n in (0, 1))
  return _convolve(plane, slope, bell), _convolve(plane, bell, slope)


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
  rows = ndimage.correlate1d(plane, right, axis=1, mode="mirror")
  return ndimage.correlate1d(rows, down, axis=0, mode="mirror")
