"""Pictures side by side: validation records, and where to annotate next."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8

from dicexmbd_jax.report import overlay
from dicexmbd_jax.types import Image, Labels, Probabilities

Row = tuple[Image, Probabilities, Probabilities, Labels]
LARGEST_PX = 256  # Of a panel: more is cut off, around the centre.
GAP_PX = 4
PREVIEW_FACTOR = 4  # Single pixels are painted: they must be seen.
PREVIEW_GAP_PX = 8


def draw_strip(rows: Sequence[Row]) -> UInt8[np.ndarray, "y x 3"]:
  """Draws one row of four panels for each record.

  From left to right: the two channels (nuclear blue, membrane green), target
  and probabilities in the same colours (background black), and the channels
  with the outlines of the cells found.

  Args:
    rows: image (p, p, 2) of any range; target and probabilities (p, p, 3) in
      0..1; cells (p, p).

  Returns:
    uint8 RGB. Without rows, one grey pixel.
  """
  pictures = [_draw_row(row) for row in rows]
  if not pictures:
    return np.full((1, 1, 3), 128, np.uint8)
  return np.concatenate(pictures)[:-GAP_PX]


def draw_preview(
  image: Image,
  uncertainty: Float32[np.ndarray, "y x"],
  part: tuple[slice, slice],
) -> overlay.Rgb:
  """Draws a part of an image, enlarged: the tissue, beside it the uncertainty.

  The tissue is stretched over the whole image, as a person would see it;
  uncertainty is grey, white for 1.
  """
  grey = np.rint(255 * uncertainty[part]).astype(np.uint8)
  tissue, unsure = (
    rgb.repeat(PREVIEW_FACTOR, axis=0).repeat(PREVIEW_FACTOR, axis=1)
    for rgb in (
      draw_tissue(image, part),
      np.repeat(grey[..., None], 3, axis=2),
    )
  )
  gap = np.full((tissue.shape[0], PREVIEW_GAP_PX, 3), 255, np.uint8)
  return np.concatenate([tissue, gap, unsure], axis=1)


def draw_tissue(
  image: Image, part: tuple[slice, slice] = (slice(None), slice(None))
) -> overlay.Rgb:
  """Draws a part of an image, pixel by pixel: nuclear blue, membrane green."""
  nuclear, membrane = (
    overlay.stretch_channel(image[..., index])[part] for index in (0, 1)
  )
  return overlay.blend_channels(nuclear, membrane)


def _draw_row(row: Row) -> UInt8[np.ndarray, "y x 3"]:
  image, target, probabilities, cells = (_cut_centre(field) for field in row)
  tissue = draw_tissue(image)
  outlined = tissue.copy()
  outlines = overlay.find_outlines(cells)
  overlay.paint_outline(outlined, outlines, overlay.CELL_RGB, 1.0)
  panels = (tissue, _colour(target), _colour(probabilities), outlined)
  gap = ((0, GAP_PX), (0, GAP_PX), (0, 0))
  framed = [np.pad(panel, gap, constant_values=255) for panel in panels]
  return np.concatenate(framed, axis=1)[:, :-GAP_PX]


def _cut_centre(field: np.ndarray) -> np.ndarray:
  starts = [max(0, (size - LARGEST_PX) // 2) for size in field.shape[:2]]
  return field[
    starts[0] : starts[0] + LARGEST_PX, starts[1] : starts[1] + LARGEST_PX
  ]


def _colour(maps: Float[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y x 3"]:
  colours = np.array([overlay.NUCLEAR_RGB, overlay.MEMBRANE_RGB], np.float32)
  return np.clip(np.rint(maps[..., :2] @ colours), 0, 255).astype(np.uint8)
