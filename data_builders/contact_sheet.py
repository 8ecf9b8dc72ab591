"""Draws patches side by side, for a look at what a network would learn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_EDGE_PX = 256  # Of a patch on the sheet, at most.
_GAP_PX = 6
_NUM_COLUMNS = 4  # Pairs of image and target.
_PADDING = 64  # Grey of what is no image.


def draw_sheet(patches: Sequence[Mapping[str, Any]]) -> np.ndarray:
  """Draws decoded records, image at the left, target at the right.

  Image: nuclear blue, membrane/cytoplasm green. Target: nucleus blue,
  membrane/cytoplasm green, background black. Padding is grey.

  Args:
    patches: at least one, of one size.

  Returns:
    uint8 (y, x, 3).
  """
  pairs = [draw_pair(patch) for patch in patches]
  height, width, _ = pairs[0].shape
  num_rows = -(-len(pairs) // _NUM_COLUMNS)
  num_columns = min(len(pairs), _NUM_COLUMNS)
  step_y, step_x = height + _GAP_PX, width + _GAP_PX
  shape = (num_rows * step_y + _GAP_PX, num_columns * step_x + _GAP_PX, 3)
  sheet = np.full(shape, 255, np.uint8)
  for i, pair in enumerate(pairs):
    y = _GAP_PX + i // _NUM_COLUMNS * step_y
    x = _GAP_PX + i % _NUM_COLUMNS * step_x
    sheet[y : y + height, x : x + width] = pair
  return sheet


def draw_pair(patch: Mapping[str, Any]) -> np.ndarray:
  """Draws one record, uint8 (y, 2 x + 2, 3)."""
  step = -(-patch["image"].shape[0] // _EDGE_PX)
  zoom = max(1, _EDGE_PX // (2 * patch["image"].shape[0]))
  image, target, valid = (
    patch[name][::step, ::step].repeat(zoom, 0).repeat(zoom, 1)
    for name in ("image", "target", "valid")
  )
  # A root lifts what is dim: few pixels of counts are bright.
  shown = np.sqrt(image / 255)
  views = []
  for nuclear, membrane in (
    (shown[..., 0], shown[..., 1]),
    (target[..., 0], target[..., 1]),
  ):
    view = np.stack([0.35 * nuclear, membrane, nuclear], axis=-1)
    view = np.rint(255 * view).astype(np.uint8)
    view[valid[..., 0] == 0] = _PADDING
    views.append(view)
  gap = np.full((image.shape[0], 2, 3), 255, np.uint8)
  return np.concatenate([views[0], gap, views[1]], axis=1)
