"""Draws the worst places of each source: docs/failures/SOURCE.png.

usage: python launch/experiments/gallery.py MODEL DATA SCORES OUTPUT

The windows with the lowest F1, of the images that are reported (for
imc_testdata: of the crops that choices were made on). Left the two channels
(nuclear blue, membrane green); right the same with the reference's outlines in
white and the model's in yellow.
"""

import pathlib
import sys

import numpy as np
import validation

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.report import overlay
from dicexmbd_jax.scores import match

WINDOW_PX, FACTOR, NUM_SHOWN, GAP_PX = 64, 4, 3, 4
MIN_CELLS = 8
REFERENCE_RGB, FOUND_RGB = (255, 255, 255), (255, 220, 0)


def score_windows(found, reference) -> list[tuple[float, int, int]]:
  """Returns (F1, y, x) of each window that has cells, worst first."""
  scores = []
  height, width = (max(1, edge - WINDOW_PX + 1) for edge in found.shape)
  for y in range(0, height, WINDOW_PX):
    for x in range(0, width, WINDOW_PX):
      place = np.s_[y : y + WINDOW_PX, x : x + WINDOW_PX]
      matching = match.match_cells(found[place], reference[place], 0.5)
      if matching.tp + matching.fn >= MIN_CELLS:
        scores.append((matching.f1, y, x))
  return sorted(scores)


def draw_window(image, found, reference, y: int, x: int) -> np.ndarray:
  """Draws one window twice, plain and with outlines."""
  place = np.s_[y : y + WINDOW_PX, x : x + WINDOW_PX]
  channels = [overlay.stretch_channel(image[..., i])[place] for i in (0, 1)]
  rgb = overlay.blend_channels(
    *(overlay.enlarge_channel(channel, FACTOR) for channel in channels)
  )
  outlined = rgb.copy()
  for cells, colour in ((reference, REFERENCE_RGB), (found, FOUND_RGB)):
    enlarged = overlay.enlarge_labels(
      np.ascontiguousarray(cells[place]), FACTOR
    )
    outlines = overlay.find_outlines(enlarged)
    overlay.paint_outline(outlined, outlines, colour, 1.0)
  gap = np.full((rgb.shape[0], GAP_PX, 3), 255, np.uint8)
  return np.concatenate([rgb, gap, outlined], axis=1)


def main(folder, data, scores, output) -> None:
  """Writes one picture for each source and prints the windows' F1."""
  judged = validation.list_reported(data, scores) + validation.list_crops(data)
  maps = validation.predict_maps(folder, judged)
  config = config_lib.read_model_config(folder)
  worst: dict[str, list] = {}
  for item, probabilities in maps.items():
    found, reference = validation.find_cells(item, probabilities, config)
    image, _ = validation.load_image(item, config.image.to_json())
    for f1, y, x in score_windows(found, reference)[:NUM_SHOWN]:
      picture = draw_window(image, found, reference, y, x)
      entry = (f1, item.path.stem, y, x, picture)
      worst.setdefault(item.source, []).append(entry)
  for source, entries in worst.items():
    shown = sorted(entries, key=lambda entry: entry[:4])[:NUM_SHOWN]
    for f1, stem, y, x, _ in shown:
      print(f"{source}: {stem} at y {y}, x {x}: F1 {f1:.2f}")
    width = max(entry[-1].shape[1] for entry in shown)
    rows = [
      np.pad(
        picture,
        ((0, GAP_PX), (0, width - picture.shape[1]), (0, 0)),
        constant_values=255,
      )
      for *_, picture in shown
    ]
    write.write_png(output / f"{source}.png", np.concatenate(rows)[:-GAP_PX])


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
