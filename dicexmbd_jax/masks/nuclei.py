"""Nuclei from the nucleus map: CellProfiler's IdentifyPrimaryObjects."""

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

from dicexmbd_jax.masks.adjacency import list_edge_labels
from dicexmbd_jax.masks.flood import flood_markers
from dicexmbd_jax.masks.holes import fill_object_holes, fill_small_holes
from dicexmbd_jax.masks.peaks import find_peaks, list_disk, shrink_peaks
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.masks.smooth import smooth_plane
from dicexmbd_jax.masks.threshold import find_threshold
from dicexmbd_jax.types import Labels

EIGHT_NEIGHBOURS = np.ones((3, 3), int)
FWHM = 2.35  # Full width at half maximum per sigma, as CellProfiler rounds it.


def smooth_nucleus(
  nucleus: Float64[np.ndarray, "y x"], settings: Settings
) -> Float64[np.ndarray, "y x"]:
  """Smooths the nucleus map on the working grid; clipped to 0..1."""
  sigma = settings.smoothing_px * settings.scale / FWHM
  return np.clip(smooth_plane(nucleus, sigma), 0, 1)


def find_nuclei(
  smooth: Float64[np.ndarray, "y x"], settings: Settings
) -> Labels:
  """Finds the nuclei, those at the border and small ones included.

  Args:
    smooth: the smoothed nucleus map on the working grid, 0..1.
    settings: sizes and thresholds.

  Returns:
    Labels 1..n by their brightest points' raster order; none: all 0.
  """
  cut = settings.nucleus_correction * find_threshold(smooth, settings.threshold)
  sigma = settings.nucleus_threshold_sigma_px * settings.scale
  mask = smooth_plane(smooth, sigma) >= min(max(cut, 0), 1)
  mask = fill_small_holes(
    mask, (settings.max_diameter_px * settings.scale) ** 2
  )
  groups = ndimage.label(mask, EIGHT_NEIGHBOURS)[0]
  markers = mark_centres(smooth, groups, settings)
  return flood_markers(1 - smooth, markers, mask)


def mark_centres(
  smooth: Float64[np.ndarray, "y x"], groups: Labels, settings: Settings
) -> Labels:
  """Marks one point for each nucleus: the maxima of the smoothed map.

  Args:
    smooth: the smoothed nucleus map, 0..1.
    groups: connected foreground; maxima compete within a group only.
    settings: min_diameter_px sets how far.

  Returns:
    int32, 1..n at the points.
  """
  diameter = settings.min_diameter_px * settings.scale
  width = FWHM * diameter / 3.5
  if settings.declump_smoothing_px is not None:
    width = settings.declump_smoothing_px * settings.scale
  blurred = smooth_plane(smooth, width / FWHM, max(int(width / 2), 1))
  radius = max(1.0, diameter / 1.5 - 0.5)
  peaks = find_peaks(blurred, groups, list_disk(radius))
  points = ndimage.label(shrink_peaks(peaks), EIGHT_NEIGHBOURS)[0]
  return points.astype(np.int32)


def select_nuclei(found: Labels, settings: Settings) -> tuple[Labels, Labels]:
  """Drops what is too small or, if so set, at the border; numbers the rest.

  Args:
    found: from find_nuclei.
    settings: keeps_border, min_nucleus_area_px.

  Returns:
    nuclei: 1..n, holes filled.
    seeds: the nuclei and, with ids above n, the objects at the border that
      were discarded. They hold their ground against the cells.
  """
  nuclei = found
  if not settings.keeps_border:
    nuclei = drop_labels(found, list_edge_labels(found))
  nuclei = number_labels(fill_object_holes(nuclei))
  areas = np.bincount(nuclei.ravel())
  min_area = settings.min_nucleus_area_px * settings.scale**2
  nuclei = number_labels(drop_labels(nuclei, np.flatnonzero(areas < min_area)))
  if settings.keeps_border:
    return nuclei, nuclei
  edge = list_edge_labels(found)
  is_rival = np.isin(found, edge[edge > 0]) & (nuclei == 0)
  seeds = np.where(is_rival, found + nuclei.max(initial=0), nuclei)
  return nuclei, seeds.astype(np.int32)


def drop_labels(labels: Labels, dropped: np.ndarray) -> Labels:
  """Turns the named labels into background."""
  kept = np.arange(labels.max(initial=0) + 1, dtype=np.int32)
  kept[dropped] = 0
  return kept[labels]


def number_labels(labels: Labels) -> Labels:
  """Numbers the labels that occur 1..n in their order."""
  occurs = np.bincount(labels.ravel()) > 0
  occurs[0] = False
  numbers = np.where(occurs, np.cumsum(occurs), 0).astype(np.int32)
  return numbers[labels]
