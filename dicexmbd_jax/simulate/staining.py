"""The signal that a simulated tissue sends, before it is detected."""

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from dicexmbd_jax.simulate.layout import Compartment, Layout
from dicexmbd_jax.simulate.levels import draw_levels
from dicexmbd_jax.simulate.noise import Field, make_fibres, make_field
from dicexmbd_jax.simulate.optics import Signal, blur_signal
from dicexmbd_jax.simulate.outline import Coverage
from dicexmbd_jax.simulate.study_panel import Channel


def stain_cells(
  rng: np.random.Generator,
  channels: tuple[Channel, ...],
  types: np.ndarray,
  coverage: Coverage,
  shape: tuple[int, int],
) -> Signal:
  """Sums the expected counts of all cells, in focus and out of it.

  Args:
    rng: source of randomness.
    channels: the m channels.
    types: indices into `cells.CELL_TYPES`, one for each column of `coverage`.
    coverage: who covers how much of each pixel with what.
    shape: (y, x) of the image.

  Returns:
    Expected counts, float32 (y, x, m), under the point spread.
  """
  in_membrane, in_cytoplasm, in_nucleus = draw_levels(rng, channels, types)
  flat = coverage.membrane @ in_membrane
  flat = flat + coverage.cytoplasm @ in_cytoplasm
  flat = flat + coverage.nucleus @ in_nucleus
  signal = flat.reshape(*shape, len(channels))
  signal = signal * _draw_patches(rng, channels, shape)
  signal = signal + _shift_layer(rng, signal)
  # With the pixel's own width this makes a spread of about 1 um.
  return blur_signal(signal, rng.uniform(0.25, 0.6))


def _draw_patches(
  rng: np.random.Generator,
  channels: tuple[Channel, ...],
  shape: tuple[int, int],
) -> Signal:
  """Draws factors of uneven staining at the scale of a pixel.

  Chromatin is one and the same for both DNA channels and half so for other
  nuclear stains; membrane and cytoplasm markers vary on their own.
  """
  fields = [_draw_speckle(rng, shape) for _ in range(6)]
  chromatin = rng.uniform(0.12, 0.5)
  # Thickness and intercalation vary over the section.
  slow = make_field(rng, shape, rng.uniform(30, 150))
  slow = np.float32(rng.uniform(0, 0.4)) * slow
  uneven = rng.uniform(0.2, 0.9, len(channels))
  patches = np.ones((*shape, len(channels)), np.float32)
  for m, channel in enumerate(channels):
    first, second = rng.choice(np.arange(1, len(fields)), 2, replace=False)
    if channel.metal in ("191Ir", "193Ir"):
      log = chromatin * fields[0] + slow
    elif channel.marker.place == "nucleus":
      log = chromatin * (0.6 * fields[0] + 0.6 * fields[first]) + 0.7 * slow
    elif channel.marker.place in ("membrane", "cytoplasm"):
      log = 0.7 * uneven[m] * (fields[first] + fields[second])
    else:
      continue
    patches[..., m] = np.exp(log.astype(np.float32))
  return patches


def _draw_speckle(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
  """Noise of deviation 1, partly from pixel to pixel, partly smoother."""
  white = rng.standard_normal(shape, np.float32)
  smooth = make_field(rng, shape, rng.uniform(1, 2.5))
  share = np.float32(rng.uniform(0.2, 0.9))
  return np.sqrt(share) * white + np.sqrt(1 - share) * smooth


def _shift_layer(rng: np.random.Generator, signal: Signal) -> Signal:
  """Stands in for cells above and below focus: the same tissue, displaced."""
  weight = np.float32(rng.uniform(0, 0.2))
  index = []
  for num in signal.shape[:2]:
    shift = int(rng.choice([-1, 1]) * rng.integers(7, 25))
    # Reflected at the edges, as often as it takes.
    folded = np.abs((np.arange(num) + shift) % max(2 * num - 2, 1))
    index.append(np.where(folded < num, folded, 2 * num - 2 - folded))
  shifted = signal[index[0]][:, index[1]]
  return blur_signal(shifted, rng.uniform(0.8, 2)) * weight


def stain_matrix(
  rng: np.random.Generator, channels: tuple[Channel, ...], layout: Layout
) -> Signal:
  """Sums the expected counts of what is no cell.

  Args:
    rng: source of randomness.
    channels: the m channels.
    layout: the tissue, of the image's size.

  Returns:
    Expected counts of fibres, of thin processes between the cells and of the
    background, float32 (y, x, m).
  """
  is_tissue = (layout.compartments != Compartment.EMPTY).astype(np.float32)
  is_tissue = ndimage.gaussian_filter(is_tissue, 1.5)
  fibres = _draw_fibres(rng, layout)
  wild = layout.angle + 1.5 * make_field(rng, is_tissue.shape, 9)
  strands = make_fibres(rng, wild, rng.uniform(1.0, 2.0))
  strands = np.maximum(strands - 0.8, 0) * is_tissue
  in_fibres = [_draw_fibre_counts(rng, c) for c in channels]
  in_strands = [_draw_strand_counts(rng, c) for c in channels]
  return (
    _draw_background(rng, channels, is_tissue)
    + fibres[..., None] * np.array(in_fibres, np.float32)
    + strands[..., None] * np.array(in_strands, np.float32)
  )


def _draw_fibres(rng: np.random.Generator, layout: Layout) -> Field:
  """Fibres, most of them in stroma and vessel walls."""
  share = np.full(len(Compartment), 0.06, np.float32)
  share[Compartment.STROMA] = 1
  share[Compartment.WALL] = 0.5
  share[Compartment.PULP] = rng.uniform(0.05, 0.5)
  share[Compartment.EMPTY] = 0
  amount = ndimage.gaussian_filter(share[layout.compartments], 2)
  return make_fibres(rng, layout.angle, rng.uniform(1.2, 3)) * amount


def _draw_fibre_counts(rng: np.random.Generator, channel: Channel) -> float:
  """Counts on a fibre: its own stains', and a little of all others."""
  if channel.marker.place == "junk":
    return 0.0
  own = rng.uniform(0.4, 1.2) * (channel.marker.place == "fibre")
  return channel.marker.counts * (own + rng.uniform(0, 0.08))


def _draw_strand_counts(rng: np.random.Generator, channel: Channel) -> float:
  """Counts on processes of cells whose bodies lie elsewhere."""
  is_shown = channel.marker.place == "membrane" and rng.uniform() < 0.35
  return channel.marker.counts * rng.uniform(0, 0.5) * is_shown


def _draw_background(
  rng: np.random.Generator,
  channels: tuple[Channel, ...],
  is_tissue: Float32[np.ndarray, "y x"],
) -> Signal:
  """Unspecific staining, gas and oxides: more in tissue, slowly varying."""
  shape = (is_tissue.shape[0], is_tissue.shape[1])
  planes = []
  haze = rng.lognormal(0, 0.6)
  drift = [make_field(rng, shape, 120) for _ in range(2)]
  for channel in channels:
    mix = drift[0] * rng.normal(0, 1) + drift[1] * rng.normal(0, 1)
    slow = np.exp(np.float32(0.15) * mix)
    if channel.marker.place == "junk":
      slow = slow ** np.float32(0.03)
      planes.append(np.float32(channel.marker.counts) * slow)
      continue
    counts = channel.marker.counts
    spread = 3 if channel.is_nuclear else 1  # Out-of-focus nuclei.
    tissue = counts * spread * haze * 10 ** rng.uniform(-2.8, -1.4)
    glass = counts * haze * 10 ** rng.uniform(-4, -2.5)
    planes.append((np.float32(glass) + np.float32(tissue) * is_tissue) * slow)
  return np.stack(planes, axis=-1).astype(np.float32)
