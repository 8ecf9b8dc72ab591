"""One channel at a time: hot pixels, clipping, range; per image, not per tile.

Every function takes counts and returns an array; none edits its argument.
An empty channel (all zeros) or a constant one never gives NaN.
"""

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from dicexmbd_jax import storage

Channel = Float32[np.ndarray, "y x"]

# Of the pixels that tell about where a percentile lies; odd, so that they are
# not all of a few columns.
_SAMPLE_STEP = 31
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
  if channel.max() <= threshold_counts:  # No mean is negative.
    return channel
  cleaned = storage.allocate(channel.shape, np.float32)
  # As uniform_filter does it: an axis after the other, whole lines each.
  for part in storage.cut_strips(channel.shape[::-1], 4):
    ndimage.uniform_filter1d(
      channel[:, part], 5, 0, cleaned[:, part], mode="mirror"
    )
  for part in storage.cut_strips(channel.shape, 8):
    mean = ndimage.uniform_filter1d(cleaned[part], 5, 1, mode="mirror")
    counts = channel[part]
    cleaned[part] = np.where(counts - mean > threshold_counts, mean, counts)
  return cleaned


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
