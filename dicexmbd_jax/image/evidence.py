"""Cells end where the image goes dark, whatever the network says of it.

A network that has seen few gaps between cells takes dark ones for membrane or
cytoplasm, and its probability of background is flat there, so that no threshold
finds them. The image itself tells: next to cells, where neither a nucleus nor
membrane is stained, there is nothing that could be measured.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from dicexmbd_jax import storage
from dicexmbd_jax.types import Image, Probabilities

Plane = Float32[np.ndarray, "y x"]

# All in pixels of the network, which shows a nucleus with about 5.4.
SMOOTHING_PX = 1.0  # Ions and texture are no gaps.
REACH_PX = 2  # How far the brightest signal of a pixel's own cell may lie.
BLEND_PX = 1.25  # From one cell's brightest signal to the next one's.
_TRUNCATE = 4.0  # Where a Gaussian ends, in standard deviations.
_RADIUS_PX = int(_TRUNCATE * SMOOTHING_PX + 0.5)
_MARGIN_PX = _RADIUS_PX + REACH_PX + int(_TRUNCATE * BLEND_PX + 0.5)
# Levels of an image that stand for dark and bright, percent of its pixels.
DARK_PERCENT, BRIGHT_PERCENT = 2.0, 99.0
# Of what lies between these two: the brightest signal around counts as no less,
# so that noise in empty places is no cell.
FLOOR = 0.05
_BINS = 4096  # Of the grey levels 0 to 256.


def limit_foreground(
  probabilities: Probabilities,
  image: Image,
  nuclear_share: float,
  membrane_share: float,
) -> Probabilities:
  """Takes from the foreground what the image does not bear out.

  Each channel is smoothed, and its signal above the image's dark level compared
  with the brightest around. Where that is less than the channel's share in both
  channels, nucleus and membrane/cytoplasm lose in proportion, and background
  gains what they lose. Without any membrane signal nothing tells where
  cytoplasm ends: then nucleus alone loses, and membrane/cytoplasm gains it.

  Args:
    probabilities: nucleus, membrane/cytoplasm, background; changed in place.
    image: what the network saw, 0..255.
    nuclear_share: of the brightest signal around, from which on a pixel is
      borne out by the nuclear channel; above 0.
    membrane_share: the same of the membrane/cytoplasm channel.

  Returns:
    The probabilities.
  """
  ranges = measure_ranges(image)
  shares = (nuclear_share, membrane_share)
  used = [i for i, (dark, bright) in enumerate(ranges) if bright > dark]
  if not used:  # Nothing is darker than anything else.
    return probabilities
  for part, inner, strip in _cut_strips(image):
    borne_out = np.zeros(strip.shape[:2], np.float32)
    for i in used:
      level = measure_level(strip[..., i], *ranges[i])
      np.maximum(borne_out, level / np.float32(shares[i]), out=borne_out)
    kept = np.minimum(borne_out[inner], 1)[..., None]
    pixels = probabilities[part]
    if used == [0]:
      # The network's three need not sum to 1.
      moved = pixels[..., 1:2] + pixels[..., :1] * (1 - kept)
      pixels[..., 1:2] = np.minimum(moved, 1)
      pixels[..., :1] *= kept
    else:
      pixels[..., 2:] += (1 - pixels[..., 2:]) * (1 - kept)
      pixels[..., :2] *= kept
  return probabilities


def measure_ranges(image: Image) -> list[tuple[float, float]]:
  """Returns each smoothed channel's dark and bright level, 0..255.

  They are the same where a channel is even.
  """
  counts = np.zeros((2, _BINS), np.int64)
  for _, inner, strip in _cut_strips(image):
    for i in range(2):
      bins = (_smooth(strip[..., i])[inner] * (_BINS / 256)).astype(np.int32)
      counts[i] += np.bincount(bins.ravel(), minlength=_BINS)[:_BINS]
  ranges = []
  for count in counts:
    below = np.cumsum(count) / count.sum()
    dark, bright = (
      float(np.searchsorted(below, percent / 100)) * 256 / _BINS
      for percent in (DARK_PERCENT, BRIGHT_PERCENT)
    )
    if bright <= dark:  # So few cells that they are no percent of it.
      bright = float(np.flatnonzero(count)[-1]) * 256 / _BINS
    ranges.append((dark, bright))
  return ranges


def measure_level(channel: Plane, dark: float, bright: float) -> Plane:
  """Returns a channel's signal relative to the brightest around, 0 or more.

  Args:
    channel: grey levels, 0..255.
    dark: level that is no signal.
    bright: level of the image's brightest places.
  """
  smooth = _smooth(channel)
  around = ndimage.maximum_filter(smooth, 2 * REACH_PX + 1, mode="nearest")
  around = ndimage.gaussian_filter(
    around, BLEND_PX, mode="nearest", truncate=_TRUNCATE
  )
  least = np.float32(FLOOR * (bright - dark))
  signal = np.maximum(smooth - np.float32(dark), 0)
  return signal / np.maximum(around - np.float32(dark), least)


def _smooth(channel: Plane) -> Plane:
  return ndimage.gaussian_filter(
    channel, SMOOTHING_PX, mode="nearest", truncate=_TRUNCATE
  )


def _cut_strips(image: Image) -> Iterator[tuple[slice, slice, Image]]:
  """Yields strips of rows, where they lie in what is seen, and what is seen.

  What is seen reaches as far beyond a strip as its answer depends on.
  """
  height = image.shape[0]
  for part in storage.cut_strips(image.shape[:2], 32):
    top = max(part.start - _MARGIN_PX, 0)
    bottom = min(part.stop + _MARGIN_PX, height)
    yield part, slice(part.start - top, part.stop - top), image[top:bottom]
