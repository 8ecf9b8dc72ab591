"""One simulated image, from the generator to counts and truth."""

import dataclasses

import numpy as np
from jaxtyping import UInt16
from scipy import ndimage

from dicexmbd_jax.simulate import cells as cells_lib
from dicexmbd_jax.simulate import layout as layout_lib
from dicexmbd_jax.simulate import markers, optics, outline
from dicexmbd_jax.types import Labels

MARGIN_PX = 16  # Cells beyond the edge press on and reach into the image.


@dataclasses.dataclass(frozen=True)
class SimulatedImage:
  """A raw stack and the truth behind it.

  Attributes:
    stack: counts, uint16 (y, x, m).
    channels: the m metal tags.
    names: the m markers' names, unique.
    nuclear: indices of the nuclear channels.
    membrane: indices of the membrane/cytoplasm channels.
    cells: int32 (y, x), 0 = background, ids 1..n.
    nuclei: int32 (y, x), the visible nuclei under their cells' ids.
    style: kind of tissue, a key of `layout.STYLES`.
  """

  stack: UInt16[np.ndarray, "y x m"]
  channels: tuple[str, ...]
  names: tuple[str, ...]
  nuclear: tuple[int, ...]
  membrane: tuple[int, ...]
  cells: Labels
  nuclei: Labels
  style: str


def simulate_image(
  rng: np.random.Generator,
  shape: tuple[int, int],
  channels: tuple[markers.Channel, ...] | None = None,
  style: str | None = None,
) -> SimulatedImage:
  """Simulates one image at one pixel per um.

  Args:
    rng: source of all randomness; the same state gives the same image.
    shape: (y, x), each at least 1.
    channels: the study's panel; drawn from `rng` if not given.
    style: kind of tissue, a key of `layout.STYLES`; drawn if not given.

  Returns:
    The image and its truth. It may have no cells, where the tissue has none.

  Raises:
    ValueError: a side is smaller than 1, or the style is unknown.
  """
  if min(shape) < 1:
    raise ValueError(f"shape: found {shape}, expected sides of at least 1")
  if style is not None and style not in layout_lib.STYLES:
    known = ", ".join(layout_lib.STYLES)
    raise ValueError(f"style: found {style!r}, expected one of {known}")
  channels = channels or markers.draw_channels(rng)
  style = style or str(
    rng.choice(list(layout_lib.STYLES), p=layout_lib.STYLE_WEIGHTS)
  )
  padded = (shape[0] + 2 * MARGIN_PX, shape[1] + 2 * MARGIN_PX)
  layout = layout_lib.make_layout(rng, padded, style)
  cells = cells_lib.place_cells(rng, layout, MARGIN_PX)
  painting = outline.paint_cells(rng, cells, shape)
  has_nucleus = _draw_visible(rng, cells)
  cell_labels, nuclei, _ = outline.cut_labels(painting, has_nucleus)
  hollow = _draw_hollow(rng, cells)
  coverage = outline.cover_pixels(rng, painting, has_nucleus, hollow)
  signal = _sum_signal(rng, channels, cells, coverage, shape)
  signal = _add_tissue(rng, signal, channels, _crop_layout(layout))
  stack = optics.detect_counts(rng, signal, channels)
  return SimulatedImage(
    stack=stack,
    channels=tuple(c.metal for c in channels),
    names=tuple(c.marker.name for c in channels),
    nuclear=tuple(i for i, c in enumerate(channels) if c.is_nuclear),
    membrane=tuple(i for i, c in enumerate(channels) if c.is_membrane),
    cells=cell_labels,
    nuclei=nuclei,
    style=style,
  )


def _draw_visible(
  rng: np.random.Generator, cells: cells_lib.Cells
) -> np.ndarray:
  """Draws which nuclei the section shows; thin sections miss more."""
  hidden = np.array([t.hidden for t in cells_lib.CELL_TYPES])
  chance = hidden[cells.type] * rng.uniform(0.2, 1.6)
  # One more, never visible, stands for the background's index of -1.
  return np.append(rng.uniform(size=len(cells.y)) >= chance, False)


def _draw_hollow(
  rng: np.random.Generator, cells: cells_lib.Cells
) -> np.ndarray:
  """Draws how vesicular nuclei are: large ones show a rim and a pale core."""
  large = ("epithelial", "columnar", "blast", "macrophage")
  is_large = np.isin(cells.type, [cells_lib.TYPE_INDEX[n] for n in large])
  most = np.where(is_large, rng.uniform(0, 0.7), 0.2)
  return np.append(rng.uniform(0, 1, len(most)) * most, 0).astype(np.float32)


def _crop_layout(layout: layout_lib.Layout) -> layout_lib.Layout:
  inside = (slice(MARGIN_PX, -MARGIN_PX),) * 2
  return dataclasses.replace(
    layout,
    compartments=layout.compartments[inside],
    angle=layout.angle[inside],
  )


def _sum_signal(
  rng: np.random.Generator,
  channels: tuple[markers.Channel, ...],
  cells: cells_lib.Cells,
  coverage: outline.Coverage,
  shape: tuple[int, int],
) -> optics.Signal:
  """Expected counts of all cells, in focus and from the layer below."""
  types = np.append(cells.type, 0)
  in_membrane, in_cytoplasm, in_nucleus = markers.draw_levels(
    rng, channels, types
  )
  flat = coverage.membrane @ in_membrane
  flat += coverage.cytoplasm @ in_cytoplasm
  flat += coverage.nucleus @ in_nucleus
  signal = flat.reshape(*shape, len(channels))
  signal = signal * _draw_patches(rng, channels, shape)
  signal = signal + _shift_layer(rng, signal)
  return optics.blur_signal(signal, rng.uniform(0.25, 0.6))


def _draw_patches(
  rng: np.random.Generator,
  channels: tuple[markers.Channel, ...],
  shape: tuple[int, int],
) -> optics.Signal:
  """Draws factors of uneven staining at the scale of a pixel.

  Chromatin is one and the same for both DNA channels and half so for other
  nuclear stains; membrane and cytoplasm markers vary on their own.
  """
  fields = [_draw_speckle(rng, shape) for _ in range(6)]
  chromatin = rng.uniform(0.15, 0.55)
  # Thickness and intercalation vary over the section.
  slow = layout_lib.make_field(rng, shape, rng.uniform(30, 150))
  slow = np.float32(rng.uniform(0, 0.5)) * slow
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


def _draw_speckle(
  rng: np.random.Generator, shape: tuple[int, int]
) -> layout_lib.Field:
  """Noise of deviation 1, partly from pixel to pixel, partly smoother."""
  white = rng.standard_normal(shape, np.float32)
  smooth = layout_lib.make_field(rng, shape, rng.uniform(1, 2.5))
  share = np.float32(rng.uniform(0.2, 0.9))
  return np.sqrt(share) * white + np.sqrt(1 - share) * smooth


def _shift_layer(
  rng: np.random.Generator, signal: optics.Signal
) -> optics.Signal:
  """Stands in for cells above and below focus: the same tissue, displaced."""
  weight = np.float32(rng.uniform(0, 0.2))
  index = []
  for num in signal.shape[:2]:
    moved = np.arange(num) + rng.choice([-1, 1]) * rng.integers(7, 25)
    index.append(np.clip(np.where(moved < 0, -moved, moved), 0, None))
    over = index[-1] >= num
    index[-1] = np.where(over, 2 * (num - 1) - index[-1], index[-1])
    index[-1] = np.clip(index[-1], 0, num - 1)
  shifted = signal[index[0]][:, index[1]]
  return optics.blur_signal(shifted, rng.uniform(0.8, 2)) * weight


def _add_tissue(
  rng: np.random.Generator,
  signal: optics.Signal,
  channels: tuple[markers.Channel, ...],
  layout: layout_lib.Layout,
) -> optics.Signal:
  """Adds fibres and unspecific background to the cells' signal."""
  compartments = layout.compartments
  is_tissue = (compartments != layout_lib.Compartment.EMPTY).astype(np.float32)
  is_tissue = ndimage.gaussian_filter(is_tissue, 1.5)
  stroma = np.full(len(layout_lib.Compartment), 0.06, np.float32)
  stroma[layout_lib.Compartment.STROMA] = 1
  stroma[layout_lib.Compartment.WALL] = 0.5
  stroma[layout_lib.Compartment.PULP] = rng.uniform(0.05, 0.5)
  stroma[layout_lib.Compartment.EMPTY] = 0
  amount = ndimage.gaussian_filter(stroma[compartments], 2)
  fibres = layout_lib.make_fibres(rng, layout.angle, rng.uniform(1.2, 3))
  fibres = (fibres * amount)[..., None]
  wild = layout.angle + 1.5 * layout_lib.make_field(rng, is_tissue.shape, 9)
  strands = layout_lib.make_fibres(rng, wild, rng.uniform(1.0, 2.0))
  strands = np.maximum(strands - 0.8, 0) * is_tissue
  processes = [
    c.marker.counts
    * rng.uniform(0, 0.5)
    * (c.marker.place == "membrane" and rng.uniform() < 0.35)
    for c in channels
  ]
  strength = [
    c.marker.counts
    * (rng.uniform(0.4, 1.2) if c.marker.place == "fibre" else 0)
    + c.marker.counts * rng.uniform(0, 0.08) * (c.marker.place != "junk")
    for c in channels
  ]
  background = optics.make_background(rng, channels, is_tissue)
  signal = signal + strands[..., None] * np.array(processes, np.float32)
  return signal + background + fibres * np.array(strength, np.float32)
