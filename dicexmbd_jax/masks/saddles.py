"""Joins nuclei between which the nucleus map hardly falls; drops dim ones.

Every small maximum of the map becomes a nucleus of its own, also where noise
made it; large nuclei then are cut to pieces. How far the map falls between two
maxima (their dynamics, Grimaud 1992; the h-maxima of mathematical morphology)
tells noise from a gap. What has no clear maximum once it is joined is no
nucleus.
"""

import numpy as np
from jaxtyping import Float64, Int32, Int64

from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.components import (
  find_root,
  number_roots,
  replace_labels,
)
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.types import Labels


def join_nuclei(
  found: Labels, maps: WorkingMaps, min_depth: float, min_peak: float = 0.0
) -> Labels:
  """Joins nuclei whose saddle is less than `min_depth` below their peaks.

  A nucleus' peak is its highest value of the smoothed nucleus map; the saddle
  of two that touch (8-neighbours) is the highest value that a path from one
  to the other must go down to. Highest saddles come first, and joined nuclei
  have the higher peak.

  Args:
    found: nuclei 1..n, 0 = none.
    maps: on the same grid; read part by part.
    min_depth: how far below the lower peak a saddle must lie, 0..1, so that
      both stay; 0 joins none.
    min_peak: nuclei, joined ones as one, whose peak is lower are dropped.

  Returns:
    Labels 1..m, in the order of the first nucleus of each.
  """
  count = int(found.max(initial=0))
  if count == 0 or (min_depth <= 0 and min_peak <= 0):
    return found
  peaks = np.zeros(count + 1)
  pairs, saddles = find_saddles(found, maps, peaks)
  # Equal saddles in the order of the labels, whatever the parts were.
  order = np.lexsort((pairs, -saddles))
  parent = np.arange(count + 1, dtype=np.int32)
  join_pairs(pairs[order], saddles[order], peaks.copy(), min_depth, parent)
  number_roots(parent, count, 0)
  return replace_labels(found, drop_dim(parent, peaks, min_peak))


def drop_dim(
  numbers: Int32[np.ndarray, " n"],
  peaks: Float64[np.ndarray, " n"],
  min_peak: float,
) -> Int32[np.ndarray, " n"]:
  """Returns the numbers of nuclei, 0 where the highest peak is too low.

  Args:
    numbers: of join_pairs.
    peaks: by label.
    min_peak: a nucleus with a peak of just this stays.
  """
  highest = np.zeros(int(numbers.max()) + 1)
  np.maximum.at(highest, numbers, peaks)
  is_kept = highest >= min_peak
  is_kept[0] = False
  return np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)[numbers]


def find_saddles(
  found: Labels, maps: WorkingMaps, peaks: Float64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " p"], Float64[np.ndarray, " p"]]:
  """Finds the saddle of each touching pair, and fills in the peaks.

  Returns:
    Pairs, lower label * 2**32 + higher label, rising; and their saddles.
  """
  all_pairs, all_values = [], []
  for core in maps.cut_parts():
    window = core.expand(1, found.shape)
    rows, columns = core.find_inside(window)
    labels = np.ascontiguousarray(found[window.slices])
    pairs = np.empty(4 * labels.size, np.int64)
    values = np.empty(4 * labels.size)
    used = fill_contacts(
      labels,
      np.ascontiguousarray(maps.read_smooth(window)),
      np.array([rows.start, rows.stop, columns.start, columns.stop]),
      peaks,
      pairs,
      values,
    )
    pairs, values = keep_highest(pairs[:used], values[:used])
    all_pairs.append(pairs)
    all_values.append(values)
  return keep_highest(np.concatenate(all_pairs), np.concatenate(all_values))


def keep_highest(
  pairs: Int64[np.ndarray, " n"], values: Float64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " p"], Float64[np.ndarray, " p"]]:
  """Returns each pair once, rising, and the highest of its values."""
  distinct, places = np.unique(pairs, return_inverse=True)
  highest = np.zeros(distinct.size)
  np.maximum.at(highest, places.ravel(), values)
  return distinct, highest


@compile_kernel
def fill_contacts(labels, plane, core, peaks, pairs, values):
  """Lists where two nuclei touch; raises `peaks`, in place, to what is there.

  Args:
    labels: int32 (y, x).
    plane: float (y, x), the map.
    core: int64 (4,), first and last row and column to look at, the lasts out;
      neighbours may lie outside.
    peaks: float64, by label.
    pairs: int64, four for each pixel; becomes lower label * 2**32 + higher
      label.
    values: float64, likewise; becomes the lower of the two pixels.

  Returns:
    The number of pairs.
  """
  height, width = labels.shape
  used = 0
  for y in range(core[0], core[1]):
    for x in range(core[2], core[3]):
      here = labels[y, x]
      if here == 0:
        continue
      value = plane[y, x]
      if value > peaks[here]:
        peaks[here] = value
      for turn in range(4):  # Right; below left, below, below right.
        other_y = y + (turn > 0)
        other_x = x + 1 if turn == 0 else x + turn - 2
        if other_y >= height or other_x < 0 or other_x >= width:
          continue
        there = labels[other_y, other_x]
        if there == 0 or there == here:
          continue
        low, high = (here, there) if here < there else (there, here)
        pairs[used] = np.int64(low) << 32 | np.int64(high)
        other = plane[other_y, other_x]
        values[used] = other if other < value else value
        used += 1
  return used


@compile_kernel
def join_pairs(pairs, saddles, peaks, min_depth, parent):
  """Joins pair by pair.

  Args:
    pairs: int64 (p,), lower label * 2**32 + higher label.
    saddles: float64 (p,), falling.
    peaks: float64 (n + 1,), by label; raised in place.
    min_depth: see join_nuclei.
    parent: int32 (n + 1,), each label itself; becomes, where a label is to be
      joined with others, a lower one of them.
  """
  for i in range(pairs.size):
    first = find_root(parent, np.int32(pairs[i] >> 32))
    second = find_root(parent, np.int32(pairs[i] & 0xFFFFFFFF))
    if first == second:
      continue
    low, high = (first, second) if first < second else (second, first)
    lower = peaks[high] if peaks[high] < peaks[low] else peaks[low]
    if lower - saddles[i] < min_depth:
      parent[high] = low
      if peaks[high] > peaks[low]:
        peaks[low] = peaks[high]
