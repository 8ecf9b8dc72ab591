"""From expected signal to detected ion counts, artefacts included."""

import numpy as np
from jaxtyping import Float32, UInt16
from scipy import ndimage

from dicexmbd_jax.simulate.study_panel import Channel

Signal = Float32[np.ndarray, "y x m"]
Counts = UInt16[np.ndarray, "y x m"]


def make_spillover(
  rng: np.random.Generator, channels: tuple[Channel, ...]
) -> Float32[np.ndarray, "m m"]:
  """Draws a spill-over matrix: row = true channel, column = where it counts.

  Neighbouring masses receive up to 2 % (abundance sensitivity, impure
  isotopes), mass + 16 up to 3 % (oxides); the diagonal is 1.
  """
  mass = np.array([c.mass for c in channels])
  is_junk = np.array([not c.is_kept for c in channels])
  gap = mass[None, :] - mass[:, None]
  matrix = rng.uniform(0, 0.02, gap.shape) * (np.abs(gap) == 1)
  matrix += rng.uniform(0, 0.03, gap.shape) * (gap == 16)
  matrix[is_junk] = 0
  return (matrix + np.eye(len(mass))).astype(np.float32)


def blur_signal(signal: Signal, sigma_px: float) -> Signal:
  """Applies a Gaussian point spread to every channel."""
  sigmas = (sigma_px, sigma_px, 0)
  return ndimage.gaussian_filter(signal, sigmas, mode="nearest", truncate=3)


def detect_counts(
  rng: np.random.Generator, signal: Signal, channels: tuple[Channel, ...]
) -> Counts:
  """Turns expected counts into a raw stack.

  Args:
    rng: source of randomness.
    signal: expected counts, not negative.
    channels: the m channels, for masses and junk.

  Returns:
    uint16 counts of the same shape: spill-over, uneven gain between ablated
    lines, soft saturation, Poisson noise, aggregates of antibody, hot pixels.
  """
  signal = signal @ make_spillover(rng, channels)
  ablated = _smear_lines(rng, signal) * _draw_line_gain(rng, signal.shape)
  ablated = _saturate(rng, ablated)
  # Gas comes with the plasma, whatever the laser does.
  signal = np.where([c.is_kept for c in channels], ablated, signal)
  signal = signal + _scatter_aggregates(rng, signal.shape, channels)
  counts = rng.poisson(np.maximum(signal, 0))
  counts = _add_hot_pixels(rng, counts)
  return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)


def _smear_lines(rng: np.random.Generator, signal: Signal) -> Signal:
  """Leaves some of each laser shot's plume to the next pixel of its line."""
  carried = np.float32(rng.uniform(0, 0.2) * (rng.uniform() < 0.7))
  smeared = signal * (1 - carried)
  smeared[:, 1:] += carried * signal[:, :-1]
  return smeared


def _draw_line_gain(
  rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
  """Gain of each ablated line, (y, 1, 1): noise, drift, a few weak lines."""
  num = shape[0]
  strength = rng.choice([0.0, 0.02, 0.05, 0.12], p=[0.3, 0.4, 0.24, 0.06])
  gain = np.exp(strength * rng.standard_normal(num))
  gain *= 1 + 0.3 * strength * (-1.0) ** np.arange(num)
  gain *= np.exp(rng.normal(0, 0.1) * np.linspace(-1, 1, num))
  if rng.uniform() < 0.08:
    gain[rng.integers(0, num, max(num // 150, 1))] *= rng.uniform(0.1, 0.8)
  return gain.astype(np.float32)[:, None, None]


def _saturate(rng: np.random.Generator, signal: np.ndarray) -> np.ndarray:
  """Bends a few channels towards a ceiling that they cannot exceed."""
  if signal.size == 0:
    return signal
  ceiling = np.full(signal.shape[2], np.inf, np.float32)
  picked = rng.uniform(size=len(ceiling)) < 0.08
  peak = np.percentile(signal[::4, ::4], 98, axis=(0, 1)) + 1
  ceiling[picked] = (peak * rng.uniform(0.7, 2, len(peak)))[picked]
  return signal / (1 + signal / ceiling)


def _scatter_aggregates(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  channels: tuple[Channel, ...],
) -> np.ndarray:
  """Antibody clumps: bright specks of one to a few pixels."""
  specks = np.zeros(shape, np.float32)
  rate = 10 ** rng.uniform(-5, -3.2, shape[2])
  for m, channel in enumerate(channels):
    if not channel.is_kept:
      continue
    num = rng.poisson(rate[m] * shape[0] * shape[1])
    y, x = rng.integers(0, shape[0], num), rng.integers(0, shape[1], num)
    height = channel.marker.counts * rng.lognormal(0.5, 0.7, num)
    np.add.at(specks[..., m], (y, x), height)
    wide = rng.uniform(size=num) < 0.5
    right = np.minimum(x[wide] + 1, shape[1] - 1)
    np.add.at(specks[..., m], (y[wide], right), 0.6 * height[wide])
  return specks


def _add_hot_pixels(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
  """Adds single pixels of hundreds of counts, some in all channels at once.

  An image has at least one, as no instrument is free of them.
  """
  counts = counts.copy()
  num_pixels = counts.shape[0] * counts.shape[1]
  for rate, share in ((10 ** rng.uniform(-5, -3.2), 0.5), (1e-4, 0.08)):
    for _ in range(1 + rng.poisson(rate * num_pixels)):
      y, x = rng.integers(0, counts.shape[0]), rng.integers(0, counts.shape[1])
      hit = np.asarray(rng.uniform(size=counts.shape[2]) < share)
      hit[rng.integers(0, counts.shape[2])] = True
      height = rng.lognormal(5, 0.9)
      counts[y, x, hit] += rng.poisson(height, int(hit.sum())) + 60
  return counts
