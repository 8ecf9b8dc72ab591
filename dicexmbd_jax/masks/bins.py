"""Histograms that keep sums, compiled: all a threshold needs of a large map."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def add_to_bins(values, counts, sums):
  """Adds values of 0..1 to a histogram.

  Args:
    values: float64 (y, x).
    counts: int64 (n,), changed in place.
    sums: float64 (n,), the values' sums; changed in place.
  """
  num_bins = counts.size
  for row in values:
    # Neighbours are alike: add up in registers while the bin stays the same.
    index, count, total = 0, 0, 0.0
    for value in row:
      following = min(int(value * num_bins), num_bins - 1)
      if following != index:
        counts[index] += count
        sums[index] += total
        index, count, total = following, 0, 0.0
      count += 1
      total += value
    counts[index] += count
    sums[index] += total


@compile_kernel
def pick_values(values, is_wanted):
  """Returns the values (float64, in order) that fall into the wanted bins."""
  num_bins = is_wanted.size
  picked = np.empty(1024)
  count = 0
  for row in values:
    if count + row.size > picked.size:
      picked = np.append(picked, np.empty(picked.size + row.size))
    for value in row:
      if is_wanted[min(int(value * num_bins), num_bins - 1)]:
        picked[count] = value
        count += 1
  return picked[:count].copy()


@compile_kernel
def stretch_ranges(values, ranges):
  """Widens each bin's least and greatest value, float64 (n, 2), in place."""
  num_bins = ranges.shape[0]
  for row in values:
    for value in row:
      index = min(int(value * num_bins), num_bins - 1)
      ranges[index, 0] = min(ranges[index, 0], value)
      ranges[index, 1] = max(ranges[index, 1], value)
