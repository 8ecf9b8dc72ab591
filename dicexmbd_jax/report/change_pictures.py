"""Pictures of what a new model finds otherwise than the one before."""

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax.report import overlay
from dicexmbd_jax.scores import match
from dicexmbd_jax.types import Image, Labels

WINDOW_PX = 128  # Edge of the part that is shown.
_FACTOR = 4
_GAP_PX = 8
RIGHT_RGB, WRONG_RGB, MISSED_RGB = (
  (255, 246, 214),
  (255, 150, 40),
  (230, 60, 60),
)
_STEP_PX = 16


def draw_change(
  image: Image, wanted: Labels, before: Labels, after: Labels
) -> overlay.Rgb:
  """Draws the part of an image in which most has changed, three times.

  From left to right: what was labelled, what was found before, and after. Of
  what was found, objects that match a label (IoU 0.5) are light, others
  orange; labels that nothing matches are red.

  Args:
    image: (y, x, 2), any range.
    wanted: labels of people, 0 = background.
    before: objects of the model before.
    after: objects of the new model.
  """
  ours = [find_right(found, wanted) for found in (before, after)]
  part = choose_window(wanted.shape, ours[0] != ours[1])
  tissue = _draw_tissue(image, part)
  nothing = np.zeros(wanted.shape, bool)
  panels = [_paint(tissue, [(wanted[part], RIGHT_RGB)])]
  for found in (before, after):
    is_right = find_right(found, wanted)
    is_missed = (wanted > 0) & ~find_right(wanted, found)
    layers = [
      (np.where(is_missed | nothing, wanted, 0)[part], MISSED_RGB),
      (np.where(is_right, 0, found)[part], WRONG_RGB),
      (np.where(is_right, found, 0)[part], RIGHT_RGB),
    ]
    panels.append(_paint(tissue, layers))
  gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
  return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def find_right(found: Labels, wanted: Labels) -> Bool[np.ndarray, "y x"]:
  """Returns the pixels of objects that have a partner at IoU 0.5."""
  cells = match.overlap(found, wanted)
  pairs = match.match_overlap(cells, 0.5)
  is_right = np.zeros(int(found.max(initial=0)) + 1, bool)
  is_right[cells.predicted_ids[pairs.predicted]] = True
  return is_right[found]


def choose_window(
  shape: tuple[int, ...], is_changed: Bool[np.ndarray, "y x"]
) -> tuple[slice, slice]:
  """Returns the window with most changed pixels, the first of equals."""
  total = np.pad(is_changed.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
  best, place = -1, (0, 0)
  for y in range(0, max(shape[0] - WINDOW_PX, 0) + 1, _STEP_PX):
    for x in range(0, max(shape[1] - WINDOW_PX, 0) + 1, _STEP_PX):
      bottom, right = min(y + WINDOW_PX, shape[0]), min(x + WINDOW_PX, shape[1])
      count = int(
        total[bottom, right] - total[y, right] - total[bottom, x] + total[y, x]
      )
      if count > best:
        best, place = count, (y, x)
  y, x = place
  return slice(y, y + WINDOW_PX), slice(x, x + WINDOW_PX)


def _draw_tissue(image: Image, part: tuple[slice, slice]) -> overlay.Rgb:
  # Stretched over the whole image, as a person would see it.
  nuclear, membrane = (
    overlay.enlarge_channel(
      np.ascontiguousarray(overlay.stretch_channel(image[..., i])[part]),
      _FACTOR,
    )
    for i in (0, 1)
  )
  return overlay.blend_channels(nuclear, membrane)


def _paint(tissue: overlay.Rgb, layers) -> overlay.Rgb:
  """Returns the tissue with outlines, the last layer on top."""
  rgb = tissue.copy()
  for labels, colour in layers:
    enlarged = overlay.enlarge_labels(np.ascontiguousarray(labels), _FACTOR)
    overlay.paint_outline(rgb, overlay.find_outlines(enlarged), colour, 1.0)
  return rgb
