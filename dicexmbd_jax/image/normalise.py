"""One channel at a time: hot pixels, clipping, range; per image, not per tile.

Every function takes counts and returns an array; none edits its argument.
An empty channel (all zeros) or a constant one never gives NaN.
"""

import numpy as np
from jaxtyping import Float32, Int64
from scipy import ndimage

from dicexmbd_jax import storage

Channel = Float32[np.ndarray, "y x"]

# Of the pixels that tell about where a percentile lies; odd, so that they are
# not all of a few columns.
_SAMPLE_STEP = 31
# Where fewer than one in so many pixels can be hot, these are looked at alone,
# if counts are whole and below 2**24.
_RARE_SHARE = 30
_MAX_EXACT = 2**24
# The eight neighbours of a pixel, without the pixel itself.
NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)


def remove_hot_pixels_mean(
  channel: Channel, threshold_counts: float
) -> Channel:
  """Replaces hot pixels by a 5x5 low-pass filter (paper, section 2.4.1).

  The filter is the mean of the 5x5 neighbourhood, the pixel included. Beyond
  the border the image is mirrored about its outermost pixels ("mirror"), so
  that a hot border pixel enters its own mean once and is cleaned as well.

  Args:
    channel: counts of zero or more, float32 (y, x).
    threshold_counts: a pixel above its mean by more than this is hot; one
      above it by exactly this stays.

  Returns:
    Counts, float32 (y, x); only hot pixels differ. A constant channel and a
    single pixel come back unchanged; a channel without a pixel above the
    threshold is returned itself.
  """
  highest = channel.max()
  if highest <= threshold_counts:  # No mean is negative.
    return channel
  bright = np.concatenate(
    [
      part.start * channel.shape[1]
      + np.flatnonzero(channel[part] > threshold_counts)
      for part in storage.cut_strips(channel.shape, 8)
    ]
  )
  is_rare = len(bright) * _RARE_SHARE < channel.size
  if is_rare and highest < _MAX_EXACT and _is_whole(channel):
    cleaned = storage.allocate(channel.shape, np.float32)
    cleaned[...] = channel
    # Of each pixel, its window and where that lies.
    for part in storage.cut_strips(bright.shape, 400):
      some = bright[part]
      counts, mean = cleaned.ravel()[some], _find_means(channel, some)
      is_hot = counts - mean > threshold_counts
      np.put(cleaned, some[is_hot], mean[is_hot])
    return cleaned
  cleaned = storage.allocate(channel.shape, np.float32)
  # As uniform_filter does it: an axis after the other, whole lines each.
  for part in storage.cut_strips(channel.shape[::-1], 8):
    # A copy: columns of a file would be fetched once for each.
    columns = channel[:, part].copy()
    cleaned[:, part] = ndimage.uniform_filter1d(columns, 5, 0, mode="mirror")
  for part in storage.cut_strips(channel.shape, 8):
    mean = ndimage.uniform_filter1d(cleaned[part], 5, 1, mode="mirror")
    counts = channel[part]
    cleaned[part] = np.where(counts - mean > threshold_counts, mean, counts)
  return cleaned


def _is_whole(channel: Channel) -> bool:
  return all(
    np.array_equal(channel[part], np.rint(channel[part]))
    for part in storage.cut_strips(channel.shape, 8)
  )


def _find_means(
  channel: Channel, places: Int64[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
  """Returns the low-pass filter at a few pixels, to the bit.

  Of whole counts below _MAX_EXACT all sums are exact in float64, whatever their
  order: columns' sums are whole, and their means multiples of 2**-26.

  Args:
    channel: whole counts, float32 (y, x).
    places: of the pixels, in raster order.
  """
  steps = np.arange(-2, 3)
  rows, columns = (
    _mirror(place[:, None] + steps, size)
    for place, size in zip(
      np.divmod(places, channel.shape[1]), channel.shape, strict=True
    )
  )
  window = channel[rows[:, :, None], columns[:, None, :]]
  means = (window.sum(1, np.float64) / 5).astype(np.float32)
  return (means.sum(1, np.float64) / 5).astype(np.float32)


def _mirror(places: np.ndarray, size: int) -> np.ndarray:
  """Returns places beyond an axis' ends mirrored about its outermost pixels."""
  period = max(2 * (size - 1), 1)
  places = np.abs(places) % period
  return np.minimum(places, period - places) % size


def remove_hot_pixels_max(channel: Channel, threshold_counts: float) -> Channel:
  """Replaces hot pixels by their largest neighbour (published code).

  The eight neighbours count, the pixel itself does not. Beyond the border the
  image is repeated ("reflect"), as published: a border pixel then is its own
  neighbour and is never cleaned.

  Args:
    channel: counts, float32 (y, x).
    threshold_counts: a pixel above its largest neighbour by more than this is
      hot; one above it by exactly this stays.

  Returns:
    Counts, float32 (y, x); only hot pixels differ.
  """
  cleaned = storage.allocate(channel.shape, np.float32)
  for part in storage.cut_strips(channel.shape, 8):
    first = max(part.start - 1, 0)
    largest = ndimage.maximum_filter(
      channel[first : part.stop + 1], footprint=NEIGHBOURS, mode="reflect"
    )[part.start - first :][: part.stop - part.start]
    counts = channel[part]
    is_hot = counts - largest > threshold_counts
    cleaned[part] = np.where(is_hot, largest, counts)
  return cleaned


def clip_percentile(channel: Channel, percentile: float) -> Channel:
  """Cuts values above a percentile of all pixels down to it.

  Args:
    channel: counts, float32 (y, x).
    percentile: 0 to 100, interpolated linearly between the nearest pixels.

  Returns:
    Counts, float32 (y, x). A channel with signal in fewer pixels than the
    percentile leaves above itself becomes all zeros.
  """
  highest = find_percentile(channel, percentile)
  clipped = storage.allocate(channel.shape, np.float32)
  return np.minimum(channel, highest, out=clipped)


def find_percentile(channel: Channel, percentile: float) -> np.float32:
  """Returns np.percentile of all pixels, to the bit.

  A high one is told by the few pixels above a guess, which takes a tenth of the
  time of parting all pixels.

  Args:
    channel: float32 (y, x), finite, at least one pixel.
    percentile: 0 to 100, interpolated linearly between the nearest pixels.
  """
  pixels = channel.ravel()
  place = (pixels.size - 1) * (percentile / 100)
  num_above = pixels.size - int(place)  # That pixel included.
  some = pixels[::_SAMPLE_STEP]
  # Three times as many as are wanted, so that the guess is hardly ever high.
  rank = max(some.size - 8 - 3 * num_above // _SAMPLE_STEP, 0)
  guess = np.partition(some, rank)[rank]
  parts = map(pixels.__getitem__, storage.cut_strips(pixels.shape, 4))
  few = np.concatenate([part[part > guess] for part in parts])
  if few.size < num_above:
    few = pixels
  index = few.size - num_above
  following = min(index + 1, few.size - 1)
  few = np.partition(few, (index, following))
  low, high, part = few[index], few[following], place - int(place)
  # From the nearer end, as NumPy does.
  step = high - low
  return low + step * part if part < 0.5 else high - step * (1 - part)


def scale_min_max(channel: Channel) -> Channel:
  """Stretches a channel to 0..255 (paper, equation 1).

  Returns:
    Float32 (y, x); the smallest value is exactly 0, the largest exactly 255.
    A constant channel gives zeros.
  """
  smallest, largest = channel.min(), channel.max()
  if smallest == largest:
    return np.zeros_like(channel)
  # Divided first: the largest value is then exactly 1, and 255 at the end.
  scaled = storage.allocate(channel.shape, np.float32)
  np.subtract(channel, smallest, out=scaled)
  scaled /= largest - smallest
  scaled *= np.float32(255)
  return scaled
