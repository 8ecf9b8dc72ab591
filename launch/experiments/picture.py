"""Draws the README's picture: places of simulated tissue, and their cells.

usage: python launch/experiments/picture.py MODEL SCORES OUTPUT.png

Left the two channels, right the same with the outlines of cells and nuclei.
SCORES is where launch/experiments/scores.sh simulated its studies.
"""

import pathlib
import sys

import numpy as np
import validation

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.masks import segment
from dicexmbd_jax.report import overlay

# Study, image, and the upper left corner of what is shown, px.
PLACES = ((4, "ROI003", 100, 60), (1, "ROI004", 40, 200))
SHAPE_PX, GAP_PX = (105, 140), 8


def main(
  folder: pathlib.Path, scores: pathlib.Path, output: pathlib.Path
) -> None:
  """Predicts the images, cuts the places out and writes the picture."""
  images = {
    (item.panel.parent.name, item.path.stem): item
    for item in validation.list_simulated(scores)
  }
  judged = [images[f"study_{number}", stem] for number, stem, _, _ in PLACES]
  maps = validation.predict_maps(folder, judged)
  config = config_lib.read_model_config(folder)
  rows = []
  for item, (_, _, y, x) in zip(judged, PLACES, strict=True):
    place = np.s_[y : y + SHAPE_PX[0], x : x + SHAPE_PX[1]]
    image, _ = validation.load_image(item, config.image.to_json())
    found = segment.segment_seen(maps[item], config, image.shape[:2])
    labels = [
      np.ascontiguousarray(one[place]) for one in (found.cells, found.nuclei)
    ]
    none = np.zeros(SHAPE_PX, np.int32)
    pair = [
      np.asarray(overlay.draw_overlay(image[place], *shown).convert("RGB"))
      for shown in ((none, none), labels)
    ]
    gap = np.full((pair[0].shape[0], GAP_PX, 3), 255, np.uint8)
    rows.append(np.concatenate([pair[0], gap, pair[1]], axis=1))
  gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
  write.write_png(output, np.concatenate([rows[0], gap, rows[1]]))


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
