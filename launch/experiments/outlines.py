"""Draws what two models find on each labelled source, side by side.

usage: python launch/experiments/outlines.py BEFORE AFTER DATA SCORES OUTPUT

A window in the middle of up to three images of each source (labelled.py), as
`predict` segments them: the two channels (nuclear blue, membrane green), the
same with the outlines that BEFORE finds, and with AFTER's; the reference's are
white, the models' yellow. Nuclei where the reference shows nuclei alone, else
cells. Writes OUTPUT/SOURCE.png and prints each image's F1 at IoU 0.5, before
and after. SCORES: where scores.sh simulated its studies.
"""

import pathlib
import sys

import gallery
import labelled
import numpy as np
import validation
from sources import Judge

from dicexmbd_jax import magnification
from dicexmbd_jax.io import write
from dicexmbd_jax.report import overlay
from dicexmbd_jax.scores import match
from dicexmbd_jax.types import Labels

WINDOW_UM = 70.0
NUM_SHOWN, GAP_PX = 3, 8
EDGE_PX = 480  # Of a panel; windows of few pixels are enlarged.


def find_objects(judge: Judge, item: labelled.Labelled) -> Labels:
  """Returns what a model finds of the reference's kind, as `predict` does."""
  factor = magnification.choose_magnification(
    judge.magnify(item, 1.0), judge.config, judge.first_pass
  )
  masks = judge.segment(item, factor)
  return masks.nuclei if item.has_nuclei else masks.cells


def cut_middle(item: labelled.Labelled) -> tuple[slice, slice]:
  """Returns the middle WINDOW_UM of an image, or all of a smaller one."""
  edge = round(WINDOW_UM / item.pixel_size_um)
  rows, columns = (
    slice(max((size - edge) // 2, 0), max((size - edge) // 2, 0) + edge)
    for size in item.reference.shape
  )
  return rows, columns


def draw_row(item: labelled.Labelled, found: list[Labels]) -> np.ndarray:
  """Draws the window without outlines, then with those of each model."""
  place = cut_middle(item)
  rows = item.reference[place].shape[0]
  factor = 2 ** max(round(np.log2(EDGE_PX / rows)), 0)
  channels = [
    overlay.stretch_channel(item.image[..., i])[place] for i in (0, 1)
  ]
  plain = overlay.blend_channels(
    *(overlay.enlarge_channel(channel, factor) for channel in channels)
  )
  panels = [plain]
  for cells in found:
    panel = plain.copy()
    for labels, colour in (
      (item.reference, gallery.REFERENCE_RGB),
      (cells, gallery.FOUND_RGB),
    ):
      cut = np.ascontiguousarray(labels[place])
      enlarged = overlay.enlarge_labels(cut, factor)
      edges = overlay.find_outlines(enlarged)
      overlay.paint_outline(panel, edges, colour, 1.0)
    panels.append(panel)
  gap = np.full((plain.shape[0], GAP_PX, 3), 255, np.uint8)
  return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def stack_rows(rows: list[np.ndarray]) -> np.ndarray:
  """Puts pictures below each other, white beside the narrower ones."""
  width = max(row.shape[1] for row in rows)
  filled = [
    np.pad(
      row,
      ((0, GAP_PX), (0, width - row.shape[1]), (0, 0)),
      constant_values=255,
    )
    for row in rows
  ]
  return np.concatenate(filled)[:-GAP_PX]


def main(before, after, data, scores, output) -> None:
  """Draws a picture for each source."""
  judges = [Judge(before), Judge(after)]
  rows: dict[str, list[np.ndarray]] = {}
  for item in labelled.list_labelled(data, scores, judges[0].config.image):
    drawn = rows.setdefault(item.source, [])
    if len(drawn) == NUM_SHOWN:
      continue
    found = [find_objects(judge, item) for judge in judges]
    drawn.append(draw_row(item, found))
    f1 = [
      match.score_f1(cells, item.reference, validation.IOU) for cells in found
    ]
    print(f"{item.source} {item.name}: {f1[0]:.3f}, {f1[1]:.3f}", flush=True)
  output.mkdir(parents=True, exist_ok=True)
  for source, drawn in rows.items():
    write.write_png(output / f"{source}.png", stack_rows(drawn))


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
