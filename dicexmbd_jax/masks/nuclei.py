"""Nuclei from the nucleus map: CellProfiler's IdentifyPrimaryObjects."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from dicexmbd_jax.masks.adjacency import list_edge_labels
from dicexmbd_jax.masks.blocks import Window, cut_blocks, solve_blocks
from dicexmbd_jax.masks.flood import flood_markers
from dicexmbd_jax.masks.holes import fill_object_holes, fill_small_holes
from dicexmbd_jax.masks.lookup import count_labels, replace_labels
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.peaks import find_peaks, list_disk, shrink_peaks
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.masks.threshold import find_threshold
from dicexmbd_jax.types import Labels

EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def find_nuclei(maps: WorkingMaps, settings: Settings) -> Labels:
  """Finds the nuclei, those at the border and small ones included.

  Args:
    maps: on the working grid.
    settings: sizes and thresholds.

  Returns:
    Labels 1..n in raster order of the nuclei's brightest points; all 0 where
    there is none.
  """
  mask = mask_nuclei(maps, settings)
  markers = mark_centres(maps, mask, settings)

  def flood(window: Window, is_open: Bool[np.ndarray, "4"]) -> Labels:
    # Bit patterns of floats from 0 up are ordered as the floats are.
    levels = np.ascontiguousarray(1 - maps.read_smooth(window)).view(np.int64)
    return flood_markers(
      levels,
      np.ascontiguousarray(markers[window.slices]),
      np.ascontiguousarray(mask[window.slices]),
      is_open,
    )

  return solve_blocks(maps.shape, settings.block, flood)


def mask_nuclei(
  maps: WorkingMaps, settings: Settings
) -> Bool[np.ndarray, "y x"]:
  """Marks where nuclei are: the map's threshold, small holes filled."""
  threshold = find_threshold(
    lambda: map(maps.read_smooth, maps.cut_strips()), settings.threshold
  )
  cut = np.clip(settings.nucleus_correction * threshold, 0, 1)
  mask = np.empty(maps.shape, bool)
  for strip in maps.cut_strips():
    mask[strip.slices] = maps.read_thresholded_nucleus(strip) >= cut
  return fill_small_holes(
    mask, (settings.max_diameter_px * settings.scale) ** 2
  )


def mark_centres(
  maps: WorkingMaps, mask: Bool[np.ndarray, "y x"], settings: Settings
) -> Labels:
  """Marks one point for each nucleus: the maxima of the blurred map.

  Args:
    maps: on the working grid.
    mask: from mask_nuclei; maxima compete inside a connected group only.
    settings: min_diameter_px sets how far.

  Returns:
    1..n at the points; touching maxima count as one.
  """
  groups = ndimage.label(mask, EIGHT_NEIGHBOURS)[0]
  diameter = settings.min_diameter_px * settings.scale
  steps = list_disk(max(1.0, diameter / 1.5 - 0.5))
  peaks = np.empty(maps.shape, bool)
  for core in cut_blocks(maps.shape, settings.block):
    window = core.expand(int(np.abs(steps).max()), maps.shape)
    found = find_peaks(
      np.ascontiguousarray(maps.read_blurred(window)),
      np.ascontiguousarray(groups[window.slices]),
      steps,
    )
    peaks[core.slices] = found[core.find_inside(window)]
  return ndimage.label(shrink_peaks(peaks), EIGHT_NEIGHBOURS)[0]


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
  size = int(found.max()) + 1
  edge = list_edge_labels(found)
  at_border = np.zeros(size, bool)
  at_border[edge[edge > 0]] = not settings.keeps_border
  inner = found
  if at_border.any():
    inner = replace_labels(
      found, np.where(at_border, 0, np.arange(size, dtype=np.int32))
    )
  filled = fill_object_holes(inner)
  areas = count_labels(filled, size)
  is_nucleus = areas >= max(settings.min_nucleus_area_px * settings.scale**2, 1)
  is_nucleus[0] = False
  numbers = number_labels(is_nucleus)
  nuclei = replace_labels(filled, numbers)
  if not at_border.any():
    return nuclei, nuclei
  rivals = np.where(at_border, np.arange(size) + numbers.max(), 0)
  rival_seeds = replace_labels(found, rivals.astype(np.int32))
  return nuclei, np.where(nuclei > 0, nuclei, rival_seeds)


def number_labels(is_kept: Bool[np.ndarray, "n"]) -> Labels:
  """Numbers the kept labels 1..n in their order; the others get 0."""
  return np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)
