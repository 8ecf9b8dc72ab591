"""A picture of validation records: what came in, was wanted, was found."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from dicexmbd_jax.report import overlay
from dicexmbd_jax.types import Image, Labels, Probabilities

Row = tuple[Image, Probabilities, Probabilities, Labels]
LARGEST_PX = 256  # Of a panel: more is cut off, around the centre.
GAP_PX = 4


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


def _draw_row(row: Row) -> UInt8[np.ndarray, "y x 3"]:
  image, target, probabilities, cells = (_cut_centre(field) for field in row)
  tissue = overlay.blend_channels(
    *(overlay.stretch_channel(image[..., index]) for index in (0, 1))
  )
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
