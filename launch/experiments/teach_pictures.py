"""Draws the pictures of docs/teaching.md: the widget Teach, and what it shows.

usage: python launch/experiments/teach_pictures.py WORK docs/teaching

with QT_QPA_PLATFORM=offscreen where there is no screen.

Needs the extra `viewer`, no screen and no OpenGL: the layers are drawn here as
napari draws them. WORK is a folder for a study of simulated tissue; strokes are
drawn from its truth.
"""

import pathlib
import sys

import annotator
import numpy as np
from napari.components import ViewerModel
from napari.qt import get_qapp
from qtpy import QtGui
from viewer_pictures import wait

from dicexmbd_jax import __main__
from dicexmbd_jax.io import labels, write
from dicexmbd_jax.report import overlay, strip
from dicexmbd_jax.viewer.teach_widget import TeachWidget

NUM_PX = 240  # Of strokes.
FACTOR = 3
RGB32 = QtGui.QImage.Format.Format_RGB32
COLOURS = np.array([[0] * 3, [255, 0, 0], [0, 255, 0], [30, 144, 255]])


def main(work: pathlib.Path, output: pathlib.Path) -> None:
  """Simulates a study, paints, and draws the pictures."""
  study = work / "study"
  if not study.exists():
    __main__.main(
      ["simulate", f"--output={study}", "--num_images=3", "--size_px=200"]
    )
  get_qapp()
  viewer = ViewerModel()
  widget = TeachWidget(viewer)
  widget.images.open_path(study / "img")
  paint(viewer, study, widget.images.stem)
  wait(lambda: "live uncertainty" in viewer.layers)
  wait(lambda: viewer.layers["live uncertainty"].data.shape == (200, 200))
  widget.wait()
  wait(lambda: True)
  tissue = strip.draw_tissue(widget.session.planes)
  strokes = viewer.layers["strokes"].data
  unsure = viewer.layers["live uncertainty"].data[..., None]
  shown = np.clip(tissue + 0.6 * unsure * [255, 0, 255], 0, 255)
  shown[strokes > 0] = COLOURS[strokes[strokes > 0]]
  save(widget, enlarge(shown), output / "painting.png")
  widget.find_cells()
  wait(lambda: "cells" in viewer.layers)
  cells = viewer.layers["cells"].data
  picture = enlarge(tissue)
  outlines = overlay.find_outlines(cells.repeat(FACTOR, 0).repeat(FACTOR, 1))
  overlay.paint_outline(picture, outlines, overlay.CELL_RGB, 1.0)
  save(widget, picture, output / "cells.png")


def enlarge(rgb: np.ndarray) -> np.ndarray:
  """Makes every pixel a square."""
  return rgb.astype(np.uint8).repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)


def save(widget: TeachWidget, shown: np.ndarray, path: pathlib.Path) -> None:
  """Writes what the canvas shows, beside the widget."""
  widget.resize(360, shown.shape[0])
  picture = widget.grab().toImage().convertToFormat(RGB32)  # Blue, green, red.
  data = np.frombuffer(
    picture.constBits().asstring(picture.sizeInBytes()), "u1"
  )
  panel = data.reshape(picture.height(), picture.width(), 4)[..., 2::-1]
  panel = panel[: shown.shape[0]]
  write.write_png(path, np.concatenate([shown, panel], axis=1))


def paint(viewer: ViewerModel, study: pathlib.Path, stem: str) -> None:
  """Paints as a person would: short lines of each class."""
  cells, nuclei = (
    labels.read_labels(study / f"truth/{kind}/{stem}.tiff")
    for kind in ("masks", "nuclei")
  )
  layer = viewer.layers["strokes"]
  drawn = annotator.draw_strokes(
    annotator.classify_pixels(cells, nuclei),
    np.zeros(cells.shape, np.uint8),
    np.ones(cells.shape, np.float32),
    NUM_PX,
    np.random.default_rng(0),
  )
  for number in (1, 2, 3):
    layer.data_setitem(np.nonzero(drawn == number), number)


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
