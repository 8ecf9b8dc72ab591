"""Paints through the layer, waits for the refit, steps on, saves, reloads."""

import importlib
import types

import numpy as np
import pytest
import viewer_studies

from configs.default import get_config
from dicexmbd_jax.commands import teach_fit
from dicexmbd_jax.io import write


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  folder = tmp_path_factory.mktemp("study")
  for seed, stem in enumerate(("ROI1", "ROI2")):
    stack = viewer_studies.make_stack(seed)
    path = folder / f"img/{stem}.ome.tiff"
    write.write_stack(path, stack, viewer_studies.NAMES)
  panel = "channel,name,keep,deepcell\n,CD45,1,2\n,DNA1,1,1\n,Ki67,1,\n"
  (folder / "panel.csv").write_text(panel)
  return folder


@pytest.fixture
def widget(viewer, wait_until, study):
  module = importlib.import_module("dicexmbd_jax.viewer.teach_widget")
  made = module.TeachWidget(viewer)
  made.images.open_path(study / "img")
  yield made
  made.wait()


def paint(layer, number, row, columns):
  """Paints as the mouse does: through the layer's own brush."""
  layer.selected_label = number
  for column in columns:
    layer.paint((row, column), number)


def paint_all(layer):
  paint(layer, 1, 10, range(8, 12))  # DNA.
  paint(layer, 2, 6, range(6, 24, 2))  # Round it.
  paint(layer, 3, 2, range(2, 48, 4))  # Nothing.


def test_the_loop(widget, viewer, wait_until, study, tmp_path):
  layer = viewer.layers["strokes"]
  assert layer.brush_size == 1
  assert layer.mode == "paint"
  paint(layer, 1, 10, range(8, 12))
  paint(layer, 3, 2, range(2, 48, 4))
  wait_until(lambda: widget.maps is not None)
  widget.wait()
  wait_until(lambda: "live uncertainty" in viewer.layers)
  assert viewer.layers[-1] is layer  # Above its maps.
  assert viewer.layers.selection.active is layer
  nucleus = viewer.layers["live nucleus"]
  assert nucleus.data[8:12, 8:12].mean() > 0.8
  assert nucleus.data[36:, :20].mean() < 0.3
  # One more class: the maps follow where it was painted.
  membrane = viewer.layers["live membrane"].data[6, 6:14].mean()
  paint(layer, 2, 6, range(6, 24, 2))
  widget.wait()
  wait_until(
    lambda: viewer.layers["live membrane"].data[6, 6:14].mean() > membrane + 0.4
  )
  # Where to paint next.
  widget.go_to_place()
  wait_until(lambda: "paint near" in widget.message.text())
  # A round: every image is measured, the most uncertain is shown.
  widget.go_to_image()
  wait_until(lambda: "annotate next" in widget.message.text())
  assert len(widget.session.history[0]) == 2
  assert not widget.curve.pixmap().isNull()
  # Cells, teacher, strokes.
  widget.find_cells()
  wait_until(lambda: "cells" in viewer.layers)
  assert viewer.layers["cells"].data.max() > 0
  widget.save_teacher(tmp_path / "teacher")
  wait_until(lambda: "saved" in widget.message.text())
  widget.export_strokes(tmp_path / "strokes")
  # The teacher is that of `teach fit` on the strokes.
  flags = types.SimpleNamespace(
    images=str(study / "img"),
    panel=str(study / "panel.csv"),
    annotations=str(tmp_path / "strokes"),
    output=str(tmp_path / "again"),
    channels=None,
    scale=1,
    seed=0,
    keep_forest=False,
    num_workers=0,
    config=get_config(),
  )
  assert teach_fit.run(flags) == 0
  first, second = (
    (tmp_path / name / "forest.npz").read_bytes()
    for name in ("teacher", "again")
  )
  assert first == second


def test_images_keep_their_strokes_and_a_session_comes_back(
  widget, viewer, wait_until, study, tmp_path
):
  paint_all(viewer.layers["strokes"])
  painted = viewer.layers["strokes"].data.copy()
  widget.images.step(1)
  assert widget.images.stem == "ROI2"
  assert not viewer.layers["strokes"].data.any()
  # What was painted on the first tells of the second.
  wait_until(lambda: widget.maps is not None)
  assert viewer.layers["live nucleus"].data[8:12, 8:12].mean() > 0.8
  widget.images.step(-1)
  np.testing.assert_array_equal(viewer.layers["strokes"].data, painted)
  widget.export_strokes(tmp_path / "strokes")
  widget.wait()
  # Another session.
  viewer.layers.clear()
  other = type(widget)(viewer)
  other.images.open_path(study / "img")
  other.load_strokes(tmp_path / "strokes")
  wait_until(lambda: "taken from" in other.message.text() or other.maps)
  other.wait()
  wait_until(lambda: other.maps is not None)
  np.testing.assert_array_equal(viewer.layers["strokes"].data, painted)
  other.wait()


def test_what_is_wrong_is_one_line(widget, wait_until, tmp_path):
  widget.save_teacher(tmp_path / "teacher")
  wait_until(lambda: "found no strokes" in widget.message.text())
  widget.load_strokes(tmp_path / "nowhere")
  wait_until(lambda: "nowhere: found" in widget.message.text())
  widget.go_to_place()
  wait_until(lambda: "fewer than two classes" in widget.message.text())
