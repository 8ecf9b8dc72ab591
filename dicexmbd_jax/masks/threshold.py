"""Minimum cross entropy (Li) thresholds, as two CellProfilers compute them."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float64, Int64

from dicexmbd_jax.masks.compiler import compile_kernel

Parts = Iterable[Float64[np.ndarray, "_ _"]]

# Maps that vary by less are constant: a fifteenth of a step of 16 bits.
MIN_RANGE = 1e-6
# Means this near the least value are that value, but for rounding.
_MIN_MEAN = 1e-12
_MAX_TURNS = 1000  # Some ten are usual.
_NUM_BINS = 4096  # Few enough to stay in the processor's nearest cache.


@dataclasses.dataclass
class Histogram:
  """A map's values in bins, and one by one where that was needed.

  Attributes:
    low: the least value.
    high: the greatest value.
    counts: pixels per bin of 0..1.
    sums: their sums.
    single: all values of some bins, sorted.
    missing: bins whose single values would have been needed.
  """

  low: float
  high: float
  counts: Int64[np.ndarray, " n"]
  sums: Float64[np.ndarray, " n"]
  single: dict[int, Float64[np.ndarray, " _"]]
  missing: set[int]

  def find_mean(self) -> float:
    """Returns the mean, counted from the least value."""
    return float(self.sums.sum() / self.counts.sum()) - self.low

  def balance_means(self, cut: float) -> float | None:
    """Returns (a - b) / (ln a - ln b) of the means below and above a cut.

    Args:
      cut: values up to here are below; like the means, from `low` on.

    Returns:
      0 where all values below are the least; None where no value is above.
    """
    low_sum, low_count = self._add_below(cut + self.low)
    high_count = int(self.counts.sum()) - low_count
    if high_count == 0:
      return None
    below = low_sum / max(low_count, 1) - self.low
    above = (float(self.sums.sum()) - low_sum) / high_count - self.low
    if below < _MIN_MEAN:
      return 0.0
    return float((below - above) / (np.log(below) - np.log(above)))

  def _add_below(self, cut: float) -> tuple[float, int]:
    """Returns sum and count of the values up to a cut."""
    index = min(int(cut * _NUM_BINS), _NUM_BINS - 1)
    count = int(self.counts[:index].sum())
    total = float(self.sums[:index].sum())
    if index not in self.single:
      self.missing.add(index)
      return total, count
    values = self.single[index]
    inside = values[: np.searchsorted(values, cut, "right")]
    return total + float(inside.sum()), count + inside.size


def find_threshold(read: Callable[[], Parts], method: str) -> float:
  """Finds the value that parts background and foreground.

  The map is read a few times, part by part, and never held as a whole.

  Args:
    read: returns the map anew, in parts that are always the same, 0..1.
    method: "cellprofiler3" (scikit-image 0.14) or "cellprofiler4" (today's).

  Returns:
    The threshold, at most the map's greatest value. A map that varies by less
    than MIN_RANGE has none: 0, all foreground, where it lies at or above one
    half, else 1, all background.
  """
  histogram = bin_values(read())
  if histogram.high - histogram.low < MIN_RANGE:
    return 0.0 if histogram.high >= 0.5 else 1.0
  if method == "cellprofiler3":
    tolerance = (histogram.high - histogram.low) / 512
    iterate = iterate_fixed_step
  else:
    tolerance = find_tolerance(read())
    iterate = iterate_to_gap
  while True:
    threshold = iterate(histogram, tolerance) + histogram.low
    if not histogram.missing:
      return min(threshold, histogram.high)
    add_single_values(histogram, read())


def bin_values(parts: Parts) -> Histogram:
  """Fills a histogram."""
  counts = np.zeros(_NUM_BINS, np.int64)
  sums = np.zeros(_NUM_BINS)
  low, high = np.inf, -np.inf
  for part in parts:
    ends = add_to_bins(np.ascontiguousarray(part), counts, sums)
    low, high = min(low, ends[0]), max(high, ends[1])
  return Histogram(low, high, counts, sums, {}, set())


def add_single_values(histogram: Histogram, parts: Parts) -> None:
  """Adds the missing single values to a histogram."""
  is_wanted = np.zeros(_NUM_BINS, bool)
  is_wanted[list(histogram.missing)] = True
  values = np.empty(histogram.counts[is_wanted].sum())
  count = 0
  for part in parts:
    count = pick_values(np.ascontiguousarray(part), is_wanted, values, count)
  values.sort()
  bins = np.minimum((values * _NUM_BINS).astype(int), _NUM_BINS - 1)
  for index in histogram.missing:
    first, last = np.searchsorted(bins, [index, index + 1])
    histogram.single[index] = values[first:last]
  histogram.missing.clear()


def find_tolerance(parts: Parts) -> float:
  """Returns half the least gap between values, at least half of 1/65536."""
  ranges = np.tile([np.inf, -np.inf], (65536, 1))
  for part in parts:
    stretch_ranges(np.ascontiguousarray(part), ranges)
  ranges = ranges[np.isfinite(ranges[:, 0])]
  if (ranges[:, 0] < ranges[:, 1]).any():  # Two values in one bin.
    return 0.5 / 65536
  return max(float(np.diff(ranges[:, 0]).min()), 1 / 65536) / 2


def iterate_fixed_step(histogram: Histogram, tolerance: float) -> float:
  """Finds Li's threshold with the steps of scikit-image 0.14.

  Args:
    histogram: of a map that is not constant.
    tolerance: added to each estimate, and where to stop.

  Returns:
    The last cut, counted from the least value.
  """
  estimate = histogram.find_mean()
  for _ in range(_MAX_TURNS):
    cut = estimate + tolerance
    following = histogram.balance_means(cut)
    if following is None:
      break
    following += tolerance if following >= 0 else -tolerance
    if abs(following - estimate) <= tolerance:
      break
    estimate = following
  return cut


def iterate_to_gap(histogram: Histogram, tolerance: float) -> float:
  """Finds Li's threshold as scikit-image does from 0.15 on.

  Args:
    histogram: of a map that is not constant.
    tolerance: where to stop.

  Returns:
    The fixed point, counted from the least value.
  """
  estimate, previous = histogram.find_mean(), np.inf
  for _ in range(_MAX_TURNS):
    if abs(estimate - previous) <= tolerance:
      break
    previous = estimate
    following = histogram.balance_means(previous)
    if not following:  # One value alone lies below, and has no logarithm.
      break
    estimate = following
  return estimate


@compile_kernel
def add_to_bins(values, counts, sums):
  """Adds values of 0..1 to a histogram.

  Args:
    values: float64 (y, x).
    counts: int64 (n,), changed in place.
    sums: float64 (n,), the values' sums; changed in place.

  Returns:
    The least and the greatest value.
  """
  num_bins = counts.size
  low, high = np.inf, -np.inf
  for row in values:
    # Neighbours are alike: add up in registers while the bin stays the same.
    index, count, total = 0, 0, 0.0
    for value in row:
      following = int(value * num_bins)
      if following >= num_bins:
        following = num_bins - 1
      if following != index:
        counts[index] += count
        sums[index] += total
        index, count, total = following, 0, 0.0
      count += 1
      total += value
      low = value if value < low else low
      high = value if value > high else high
    counts[index] += count
    sums[index] += total
  return low, high


@compile_kernel
def pick_values(values, is_wanted, picked, count):
  """Picks the values that fall into the wanted bins, in order.

  Args:
    values: float64 (y, x).
    is_wanted: bool (n,), by bin.
    picked: float64; is written to, from `count` on.
    count: how many values it has.

  Returns:
    How many values it has now.
  """
  num_bins = is_wanted.size
  for row in values:
    for value in row:
      index = int(value * num_bins)
      if is_wanted[index if index < num_bins else num_bins - 1]:
        picked[count] = value
        count += 1
  return count


@compile_kernel
def stretch_ranges(values, ranges):
  """Widens each bin's least and greatest value, float64 (n, 2), in place."""
  num_bins = ranges.shape[0]
  for row in values:
    for value in row:
      index = min(int(value * num_bins), num_bins - 1)
      ranges[index, 0] = min(ranges[index, 0], value)
      ranges[index, 1] = max(ranges[index, 1], value)
