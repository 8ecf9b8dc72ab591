"""Probability maps on the working grid, computed window by window."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from dicexmbd_jax.masks.blocks import Shape, Window, cut_blocks
from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.masks.smooth import (
  FWHM,
  Gaussian,
  Plane,
  ReadPlane,
  make_declumping_gaussian,
  make_gaussian,
  smooth_window,
)

# Planes up to this many working pixels are computed once and kept.
_MAX_KEPT_PX = 2**22
# Edge of what is worked on at a time: small enough for the processor's cache.
_PART_PX = 512


class WorkingMaps:
  """Two maps, enlarged to the working grid and smoothed, by window.

  Attributes:
    shape: rows and columns of the working grid.
  """

  def __init__(
    self, pixels: np.ndarray, settings: Settings, adds_nucleus: bool = True
  ):
    """Takes the maps; computes nothing yet.

    Args:
      pixels: (y, x, c), nucleus and membrane/cytoplasm first; of uint8 and
        uint16 the highest value stands for 1, floats are taken as they are.
      settings: of the pipeline.
      adds_nucleus: whether the foreground is the sum of the two maps, or the
        second alone.
    """
    self._divisor = np.float32(1)
    if pixels.dtype in (np.uint8, np.uint16):  # Small: convert when needed.
      self._divisor = np.float32(np.iinfo(pixels.dtype).max)
    elif pixels.dtype != np.float32:
      pixels = pixels.astype(np.float32)
    self._pixels = pixels
    self._settings = settings
    self._adds_nucleus = adds_nucleus
    self._factor = settings.scale // settings.map_scale
    height, width = pixels.shape[:2]
    self.shape: Shape = (height * self._factor, width * self._factor)
    self._is_kept = height * width * self._factor**2 <= _MAX_KEPT_PX
    self._kept: dict[str, dict[Window, Plane]] = {}

  def cut_parts(self) -> Iterator[Window]:
    """Cuts the working grid into parts; the cut depends on its shape alone."""
    return cut_blocks(self.shape, _PART_PX)

  def read_smooth(self, window: Window) -> Plane:
    """Returns the smoothed nucleus map, 0..1."""
    return self._keep("smooth", self._smooth_nucleus, window)

  def read_foreground(self, window: Window) -> Plane:
    """Returns the foreground, nucleus plus membrane/cytoplasm, 0..1."""
    return self._keep("foreground", self._add_planes, window)

  def read_thresholded_nucleus(self, window: Window) -> Plane:
    """Returns what the threshold of the nucleus map is compared with."""
    sigma = self._settings.nucleus_threshold_sigma_px * self._settings.scale
    return self._smooth(self.read_smooth, make_gaussian(sigma), window)

  def read_thresholded_foreground(self, window: Window) -> Plane:
    """Returns what the threshold of the foreground is compared with."""
    sigma = self._settings.cell_threshold_sigma_px * self._settings.scale
    return self._smooth(self.read_foreground, make_gaussian(sigma), window)

  def read_blurred(self, window: Window) -> Plane:
    """Returns the nucleus map whose maxima are the nuclei's centres."""
    settings = self._settings
    width = settings.declump_smoothing_px
    if width is None:
      width = FWHM * settings.min_diameter_px / 3.5
    gaussian = make_declumping_gaussian(width * settings.scale)
    blurred = self._smooth(self.read_smooth, gaussian, window)
    return self.round_plane(blurred)

  def round_plane(self, plane: Plane) -> Plane:
    """Rounds to what CellProfiler stores, where ties are to be exact."""
    if not self._settings.has_exact_ties:
      return plane
    return plane.astype(np.float32).astype(np.float64)

  def _keep(self, name: str, compute: ReadPlane, window: Window) -> Plane:
    """Puts a window together from the parts that are kept, or computes it.

    A window that is a part is no copy.
    """
    if not self._is_kept:
      return compute(window)
    if name not in self._kept:
      self._kept[name] = {part: compute(part) for part in self.cut_parts()}
    parts = self._kept[name]
    if window in parts:
      return parts[window]
    plane = np.empty(window.shape)
    for part, values in parts.items():
      shared = part.intersect(window)
      if shared is not None:
        inside = values[shared.find_inside(part)]
        plane[shared.find_inside(window)] = inside
    return plane

  def _smooth_nucleus(self, window: Window) -> Plane:
    gaussian = make_gaussian(
      self._settings.smoothing_px * self._settings.scale / FWHM
    )

    def read(part: Window) -> Plane:
      return self._enlarge(part, 0)

    return np.clip(self.round_plane(self._smooth(read, gaussian, window)), 0, 1)

  def _smooth(
    self, read: ReadPlane, gaussian: Gaussian, window: Window
  ) -> Plane:
    return smooth_window(
      read, gaussian, window, self.shape, self._settings.has_exact_ties
    )

  def _add_planes(self, window: Window) -> Plane:
    plane = self._enlarge(window, 1)
    if self._adds_nucleus:
      plane = plane + self._enlarge(window, 0)
    return np.clip(self.round_plane(plane), 0, 1)

  def _enlarge(self, window: Window, channel: int) -> Plane:
    """Enlarges what lies under a window of the working grid."""
    factor = self._factor
    outer = Window(
      window.top // factor * factor,
      -(-window.bottom // factor) * factor,
      window.left // factor * factor,
      -(-window.right // factor) * factor,
    )
    shape = self._pixels.shape[:2]
    inner = Window(*(edge // factor for edge in dataclasses.astuple(outer)))
    read = inner.expand(1, shape)
    pixels = self._pixels[*read.slices, channel].astype(np.float32)
    pixels /= self._divisor
    missing = [
      (1 - inner.top + read.top, 1 + inner.bottom - read.bottom),
      (1 - inner.left + read.left, 1 + inner.right - read.right),
    ]
    padded = np.pad(pixels, missing, "edge").astype(np.float64)
    enlarged = np.empty(outer.shape)
    enlarge_rows(padded, factor, np.empty(padded.shape[1]), enlarged)
    return enlarged[window.find_inside(outer)]


@compile_kernel
def enlarge_rows(padded, factor, line, enlarged):
  """Enlarges a plane.

  Pixel centres stay in place, as in scikit-image's resize with order 1 and
  mode "symmetric".

  Args:
    padded: float64 (y + 2, x + 2), a pixel more on all sides.
    factor: whole number, 1 or more.
    line: float64 (x + 2,), room for a row.
    enlarged: float64 (y * factor, x * factor); is written to.
  """
  height, width = padded.shape[0] - 2, padded.shape[1] - 2
  for y in range(height):
    for phase_y in range(factor):
      # Where this centre lies, in pixels after the centre of pixel y.
      shift_y = (phase_y + 0.5) / factor - 0.5
      above = padded[y if shift_y < 0 else y + 1]
      below = padded[y + 2 if shift_y > 0 else y + 1]
      part_y = shift_y if shift_y >= 0 else 1 + shift_y
      for index in range(line.size):
        line[index] = (1 - part_y) * above[index] + part_y * below[index]
      row = enlarged[y * factor + phase_y]
      for phase_x in range(factor):
        shift_x = (phase_x + 0.5) / factor - 0.5
        first = 0 if shift_x < 0 else 1
        part_x = shift_x if shift_x >= 0 else 1 + shift_x
        near = line[first:]
        far = line[first + (part_x > 0) :]
        part = row[phase_x:]
        for index in range(width):
          value = (1 - part_x) * near[index] + part_x * far[index]
          part[index * factor] = value
  return enlarged
