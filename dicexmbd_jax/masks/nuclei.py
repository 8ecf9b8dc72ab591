"""Nuclei from the nucleus map: CellProfiler's IdentifyPrimaryObjects."""

import numpy as np
from jaxtyping import Bool, Int32

from dicexmbd_jax import storage
from dicexmbd_jax.masks.blocks import (
  Sides,
  Window,
  cut_blocks,
  solve_blocks,
)
from dicexmbd_jax.masks.components import (
  count_labels,
  label_groups,
  list_edge_labels,
  replace_labels,
)
from dicexmbd_jax.masks.flood import flood_markers
from dicexmbd_jax.masks.holes import fill_object_holes, fill_small_holes
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.peaks import find_peaks, list_disk, shrink_peaks
from dicexmbd_jax.masks.saddles import join_nuclei
from dicexmbd_jax.masks.settings import Settings
from dicexmbd_jax.masks.threshold import find_threshold
from dicexmbd_jax.types import Labels


def find_nuclei(maps: WorkingMaps, settings: Settings) -> Labels:
  """Finds the nuclei, those at the border and small ones included.

  Args:
    maps: on the working grid.
    settings: sizes and thresholds.

  Returns:
    Labels 1..n in raster order of the nuclei's brightest points (of those that
    were joined, the first); all 0 where there is none. Those that are dim are
    left out.
  """
  mask = mask_nuclei(maps, settings)
  markers = mark_centres(maps, mask, settings)

  def flood(window: Window, is_open: Sides, is_retry: bool) -> Labels:
    del is_retry
    depths = maps.round_plane(1 - maps.read_smooth(window))
    return flood_markers(
      # Bit patterns of floats from 0 up are ordered as the floats are.
      np.ascontiguousarray(depths).view(np.int64),
      np.ascontiguousarray(markers[window.slices]),
      np.ascontiguousarray(mask[window.slices]),
      is_open,
      not settings.has_exact_ties,
    )

  # The heap's order depends on all markers, near and far.
  block = max(maps.shape) if settings.has_exact_ties else settings.block
  found = solve_blocks(maps.shape, block, flood)
  return join_nuclei(
    found, maps, settings.min_saddle_depth, settings.min_nucleus_peak
  )


def mask_nuclei(
  maps: WorkingMaps, settings: Settings
) -> Bool[np.ndarray, "y x"]:
  """Marks where nuclei are: the map's threshold, small holes filled."""
  threshold = find_threshold(
    lambda: map(maps.read_smooth, maps.cut_parts()), settings.threshold
  )
  cut = settings.nucleus_correction * threshold
  cut = np.clip(cut, settings.min_nucleus_threshold, 1)
  mask = storage.allocate(maps.shape, bool)
  for part in maps.cut_parts():
    mask[part.slices] = maps.read_thresholded_nucleus(part) >= cut
  max_diameter = settings.max_diameter_px * settings.scale
  return fill_small_holes(mask, max_diameter**2)


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
  groups = label_groups(mask)
  diameter = settings.min_diameter_px * settings.scale
  steps = list_disk(max(1.0, diameter / 1.5 - 0.5))
  peaks = storage.allocate(maps.shape, bool)
  for core in cut_blocks(maps.shape, settings.block):
    window = core.expand(int(np.abs(steps).max()), maps.shape)
    found = find_peaks(
      np.ascontiguousarray(maps.read_blurred(window)),
      np.ascontiguousarray(groups[window.slices]),
      steps,
    )
    peaks[core.slices] = found[core.find_inside(window)]
  return label_groups(shrink_peaks(peaks))


def select_nuclei(
  found: Labels, settings: Settings
) -> tuple[Labels, Int32[np.ndarray, " n"]]:
  """Drops what is too small or, if so set, at the border; fills holes.

  Args:
    found: from find_nuclei.
    settings: keeps_border, min_nucleus_area_px.

  Returns:
    seeds: what holds its ground when cells grow, with the ids of `found`: the
      nuclei, and what was dropped but touches the border.
    numbers: for each id of `found` the nucleus' number, 1..n in their order,
      or 0 for what is not a nucleus.
  """
  ids = np.arange(int(found.max()) + 1, dtype=np.int32)
  at_border = np.isin(ids, list_edge_labels(found)) & (ids > 0)
  inner = found
  if at_border.any() and not settings.keeps_border:
    inner = replace_labels(found, np.where(at_border, 0, ids))
  filled = fill_object_holes(inner)
  areas = count_labels(filled, ids.size)
  is_nucleus = areas >= max(settings.min_nucleus_area_px * settings.scale**2, 1)
  is_nucleus[0] = False
  seeds = replace_labels(filled, np.where(is_nucleus, ids, 0))
  is_rival = at_border & ~is_nucleus
  if is_rival.any():
    rivals = np.where(is_rival, ids, 0)
    for strip in storage.cut_strips(seeds.shape, 16):
      np.copyto(seeds[strip], rivals[found[strip]], where=seeds[strip] == 0)
  return seeds, number_labels(is_nucleus)


def number_labels(
  is_kept: Bool[np.ndarray, " n"],
) -> Int32[np.ndarray, " n"]:
  """Numbers the kept labels 1..n in their order; the others get 0."""
  return np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)
