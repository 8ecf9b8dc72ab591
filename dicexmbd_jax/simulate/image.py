"""One simulated image, from the generator to counts and truth."""

import dataclasses

import numpy as np
from jaxtyping import UInt16

from dicexmbd_jax.simulate import cells as cells_lib
from dicexmbd_jax.simulate import layout as layout_lib
from dicexmbd_jax.simulate import optics, outline, staining, study_panel, truth
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
  channels: tuple[study_panel.Channel, ...] | None = None,
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
  channels = channels or study_panel.draw_channels(rng)
  style = style or str(
    rng.choice(list(layout_lib.STYLES), p=layout_lib.STYLE_WEIGHTS)
  )
  padded = (shape[0] + 2 * MARGIN_PX, shape[1] + 2 * MARGIN_PX)
  layout = layout_lib.make_layout(rng, padded, style)
  cells = cells_lib.place_cells(rng, layout, MARGIN_PX)
  painting = outline.paint_cells(rng, cells, shape)
  has_nucleus = _draw_visible(rng, cells)
  cell_labels, nuclei, _ = truth.cut_labels(painting, has_nucleus)
  hollow = _draw_hollow(rng, cells)
  coverage = outline.cover_pixels(rng, painting, has_nucleus, hollow)
  types = np.append(cells.type, 0)  # One more, for the background.
  signal = staining.stain_cells(rng, channels, types, coverage, shape)
  matrix = staining.stain_matrix(rng, channels, _crop_layout(layout))
  signal = signal + matrix
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
  rng: np.random.Generator, cells: cells_lib.DrawnCells
) -> np.ndarray:
  """Draws which nuclei the section shows; thin sections miss more."""
  hidden = np.array([t.hidden for t in cells_lib.CELL_TYPES])
  chance = hidden[cells.type] * rng.uniform(0.2, 1.6)
  # One more, never visible, stands for the background's index of -1.
  return np.append(rng.uniform(size=len(cells.y)) >= chance, False)


def _draw_hollow(
  rng: np.random.Generator, cells: cells_lib.DrawnCells
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
