"""Paints through the layer, waits for the refit, steps on, saves, reloads."""

import dataclasses
import importlib
import re
import shutil
import threading
import types

import numpy as np
import pytest
import tifffile
import viewer_studies

from configs.default import get_config
from dicexmbd_jax.commands import teach_fit
from dicexmbd_jax.io import write
from dicexmbd_jax.viewer import teaching
from dicexmbd_jax.viewer.study import find_study


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
def widget(hand_out, wait_until, study):
  module = importlib.import_module("dicexmbd_jax.viewer.teach_widget")
  made = module.TeachWidget(hand_out())
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
  cells = viewer.layers["cells"]
  assert cells.data.max() > 0
  assert {"index", "area", "DNA1"} <= set(cells.features)
  # Corrections that are not saved are not lost.
  cells.data_setitem((np.array([0]), np.array([0])), 99)
  widget.find_cells()
  wait_until(lambda: "not saved" in widget.message.text())
  assert viewer.layers["cells"] is cells
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
  widget, viewer, hand_out, wait_until, study, tmp_path
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
  other = type(widget)(hand_out())
  other.images.open_path(study / "img")
  other.load_strokes(tmp_path / "strokes")
  wait_until(lambda: "taken from" in other.message.text() or other.maps)
  other.wait()
  wait_until(lambda: other.maps is not None)
  np.testing.assert_array_equal(viewer.layers["strokes"].data, painted)
  other.wait()


def test_strokes_outlive_another_file(widget, viewer, study, tmp_path):
  first, second = sorted((study / "img").iterdir())
  widget.images.open_path(first)
  paint_all(viewer.layers["strokes"])
  painted = viewer.layers["strokes"].data.copy()
  widget.images.open_path(second)
  assert not viewer.layers["strokes"].data.any()
  widget.images.open_path(first)
  np.testing.assert_array_equal(viewer.layers["strokes"].data, painted)
  widget.wait()


def test_strokes_replace_no_image_and_no_strokes_of_others(
  widget, viewer, wait_until, study, tmp_path
):
  mine = tmp_path / "ROI1.tiff"
  mine.write_bytes((study / "img/ROI1.ome.tiff").read_bytes())
  before = mine.read_bytes()
  paint_all(viewer.layers["strokes"])
  widget.export_strokes(tmp_path)
  wait_until(lambda: "ROI1.tiff: found a file" in widget.message.text())
  assert mine.read_bytes() == before
  assert list(tmp_path.iterdir()) == [mine]
  for _ in range(2):  # Its own files it replaces.
    widget.export_strokes(tmp_path / "strokes")
    assert "found" not in widget.message.text()
  widget.wait()


def test_empty_templates_take_no_strokes_away(widget, viewer, tmp_path):
  layer = viewer.layers["strokes"]
  paint_all(layer)
  painted = layer.data.copy()
  write.write_strokes(tmp_path / "ROI1.tiff", np.zeros_like(painted))
  assert widget.session.load_strokes(tmp_path) == []
  np.testing.assert_array_equal(widget.session.strokes["ROI1"], painted)


def test_what_is_wrong_is_one_line(widget, wait_until, tmp_path):
  widget.save_teacher(tmp_path / "teacher")
  wait_until(lambda: "found no strokes" in widget.message.text())
  widget.load_strokes(tmp_path / "nowhere")
  wait_until(lambda: "nowhere: found" in widget.message.text())
  widget.go_to_place()
  wait_until(lambda: "fewer than two classes" in widget.message.text())


def test_at_twice_the_size_strokes_and_cells_stay_on_the_images_grid(
  widget, viewer, wait_until
):
  paint_all(viewer.layers["strokes"])
  painted = viewer.layers["strokes"].data.copy()
  widget.scale.click()
  shape = viewer_studies.SHAPE
  wait_until(
    lambda: (
      widget.maps is not None and widget.maps.uncertainty.shape == (80, 100)
    )
  )
  np.testing.assert_array_equal(viewer.layers["strokes"].data, painted)
  layer = viewer.layers["live nucleus"]
  assert layer.scale.tolist() == [0.5, 0.5]
  assert layer.translate.tolist() == [-0.25, -0.25]
  assert layer.data[16:24, 16:24].mean() > 0.8
  widget.go_to_place()
  wait_until(lambda: "paint near" in widget.message.text())
  assert "y 0 to 40, x 0 to 50" in widget.message.text()
  widget.find_cells()
  wait_until(lambda: "cells" in viewer.layers)
  assert viewer.layers["cells"].data.shape == shape
  assert viewer.layers["cells"].data.max() > 0


def test_strokes_lie_on_an_image_whose_pixel_size_a_run_was_told(
  widget, viewer, study, tmp_path
):
  shutil.copytree(study, tmp_path, dirs_exist_ok=True)
  cells = viewer_studies.make_cells()
  for stem in ("ROI1", "ROI2"):
    write.write_labels(tmp_path / f"masks/{stem}.tiff", cells)
  record = {"hashes": {"pixel_size_um": "0.5"}}
  write.write_json(tmp_path / "run.json", record)
  widget.images.open_path(tmp_path)
  for name in ("strokes", "DNA1", "cells"):
    assert viewer.layers[name].scale.tolist() == [0.5, 0.5]
  widget.session.change_scale(2)
  widget.session.open_image("ROI1")
  assert widget.session.pixel_um == 0.5


def make_strokes():
  strokes = np.zeros(viewer_studies.SHAPE, np.uint8)
  strokes[10, 8:12], strokes[6, 6:24:2], strokes[2, 2:48:4] = 1, 2, 3
  return strokes


def test_an_ending_that_all_drawings_have_does_not_count(study, tmp_path):
  for stem in ("ROI1", "ROI2"):
    write.write_strokes(tmp_path / f"{stem}_labels.tiff", make_strokes())
  session = teaching.Session(find_study(study / "img"))
  assert session.load_strokes(tmp_path) == []
  assert set(session.strokes) == {"ROI1", "ROI2"}


def test_a_round_tells_which_images_it_left_out(
  hand_out, wait_until, monkeypatch, study, tmp_path
):
  shutil.copytree(study, tmp_path, dirs_exist_ok=True)
  names = viewer_studies.NAMES[:1]  # The panel has others.
  stack = viewer_studies.make_stack()[..., :1]
  write.write_stack(tmp_path / "img/ROI2.ome.tiff", stack, names)
  module = importlib.import_module("dicexmbd_jax.viewer.teach_widget")
  told = []
  monkeypatch.setattr(module, "tell", told.extend)
  widget = module.TeachWidget(hand_out())
  widget.images.open_path(tmp_path / "img")
  paint_all(widget._get_strokes())
  widget.go_to_image()
  wait_until(lambda: told)
  widget.wait()
  assert set(widget.session.history[0]) == {"ROI1"}
  [line] = told
  assert line.startswith("ROI2 is left out: ")
  assert "ROI2.ome.tiff: found 1 channel" in line


def test_a_teacher_replaces_none_of_another_session(study, tmp_path):
  first, second = (
    teaching.Session(find_study(study / "img")) for _ in range(2)
  )
  first.strokes["ROI1"] = make_strokes()
  second.strokes["ROI2"] = np.flipud(make_strokes()).copy()
  folder = tmp_path / "teacher"
  first.save_teacher(folder)
  before = (folder / "forest.npz").read_bytes()
  told = f"{folder / 'teacher.json'}: found a file already there, maybe of "
  with pytest.raises(ValueError, match=re.escape(told)):
    second.save_teacher(folder)
  assert (folder / "forest.npz").read_bytes() == before
  first.strokes["ROI1"][20:24, 30:40] = 3
  first.save_teacher(folder)  # Its own.
  assert (folder / "forest.npz").read_bytes() != before


def test_a_label_of_no_class_is_told_with_its_place(study, tmp_path):
  session = teaching.Session(find_study(study / "img"))
  session.open_image("ROI2")
  strokes = session.strokes["ROI2"] = make_strokes()
  strokes[5, 7] = 4
  told = "ROI2: found the label 4 at y 5, x 7, expected 1 to 3"
  with pytest.raises(ValueError, match=told):
    session.save_teacher(tmp_path)
  with pytest.raises(ValueError, match=told):
    session.learn("ROI2", session.planes, strokes)


def test_a_drawing_replaces_no_strokes_that_lie_in_no_file(study, tmp_path):
  session = teaching.Session(find_study(study / "img"))
  drawn = make_strokes()
  write.write_strokes(tmp_path / "drawn/ROI1.tiff", drawn)
  painted = session.strokes["ROI1"] = np.flipud(drawn).copy()
  before = painted.copy()
  [line] = session.load_strokes(tmp_path / "drawn")
  assert "ROI1.tiff: found strokes on ROI1 that were not exported" in line
  np.testing.assert_array_equal(session.strokes["ROI1"], before)
  with pytest.raises(ValueError, match="found a file already there"):
    session.export_strokes(tmp_path / "drawn")
  session.export_strokes(tmp_path / "mine")
  assert session.load_strokes(tmp_path / "drawn") == []
  np.testing.assert_array_equal(session.strokes["ROI1"], drawn)
  # What was loaded lies in a file; what is painted on it does not.
  session.strokes["ROI1"][20, 20] = 1
  assert len(session.load_strokes(tmp_path / "mine")) == 1


def test_no_two_drawings_of_one_image_are_exported(study, tmp_path):
  """Of two none would be read."""
  session = teaching.Session(find_study(study / "img"))
  drawn = make_strokes()
  write.write_png(tmp_path / "drawn/ROI1.png", drawn)
  assert session.load_strokes(tmp_path / "drawn") == []
  session.strokes["ROI1"][30, 30] = 3
  with pytest.raises(ValueError, match=r"ROI1.tiff: found ROI1.png beside it"):
    session.export_strokes(tmp_path / "drawn")
  assert session.load_strokes(tmp_path / "drawn") != []
  session.export_strokes(tmp_path / "mine")
  again = teaching.Session(find_study(study / "img"))
  assert again.load_strokes(tmp_path / "mine") == []
  np.testing.assert_array_equal(again.strokes["ROI1"], session.strokes["ROI1"])


def test_cells_of_others_stay(widget, viewer):
  mine = viewer.add_labels(viewer_studies.make_cells(), name="cells")
  for highest in (1, 2):
    cells = np.minimum(viewer_studies.make_cells(), highest)
    widget._show_cells(widget.session, "ROI1", cells)
    found = [one for one in viewer.layers if one.name.startswith("cells")]
    assert [one.data.max() for one in found] == [4, highest]
  assert found[0] is mine
  found[1].data_setitem((np.array([0]), np.array([0])), 9)
  widget._show_cells(widget.session, "ROI1", cells)
  assert "cells [1]: the corrections are not saved" in widget.message.text()


@pytest.mark.parametrize("scale", [1, 2])
def test_a_teacher_has_the_pixel_size_that_a_run_was_told(study, scale):
  told = dataclasses.replace(find_study(study / "img"), pixel_size_um=0.5)
  session = teaching.Session(told)
  session.change_scale(scale)
  session.open_image("ROI1")
  session.strokes["ROI1"][10, 8:12] = 1
  session.strokes["ROI1"][2, 2:48] = 3
  assert session.fit_teacher().view.pixel_size_um == 0.5 / scale


def test_cells_at_twice_the_size_grow_as_far_where_no_file_tells_its_pixels(
  study, tmp_path
):
  """Such pixels are taken to be of 1 um, which the other file tells."""
  stack = np.moveaxis(viewer_studies.make_stack(), -1, 0)
  tifffile.imwrite(tmp_path / "ROI1.tiff", stack, photometric="minisblack")
  shutil.copy(study / "panel.csv", tmp_path)
  strokes = np.zeros(viewer_studies.SHAPE, np.uint8)
  strokes[10, 8:12], strokes[6, 6:24:2], strokes[2, 2:48:4] = 1, 2, 3
  found = []
  for folder in (study / "img", tmp_path):
    session = teaching.Session(find_study(folder))
    session.change_scale(2)
    session.strokes["ROI1"] = strokes
    found.append(session.find_cells("ROI1", lambda told: None))
  assert found[0].max() > 0
  np.testing.assert_array_equal(*found)


def test_what_is_at_work_can_be_cancelled(widget, viewer, wait_until):
  paint_all(viewer.layers["strokes"])
  widget.wait()
  shown = widget.images.stem
  started, go = threading.Event(), threading.Event()
  measure = widget.session.engine.measure

  def wait_for_cancel(*arguments):
    started.set()
    go.wait(30)
    return measure(*arguments)

  widget.session.engine.measure = wait_for_cancel
  widget.go_to_image()
  wait_until(started.is_set)
  assert widget.cancel.isEnabled()
  widget.cancel.click()
  go.set()
  wait_until(lambda: widget.message.text() == "Stopped.")
  wait_until(lambda: not widget.cancel.isEnabled())
  assert widget.images.stem == shown
  assert not widget.session.history


def test_a_closed_widgets_strokes_are_in_the_next(
  widget, viewer, hand_out, wait_until
):
  paint_all(viewer.layers["strokes"])
  widget.images.step(1)
  other = type(widget)(hand_out())
  assert other.images.stem == "ROI2"
  other.images.step(-1)
  assert viewer.layers["strokes"].data.any()
  assert widget.session is None
  assert [one.name for one in viewer.layers].count("strokes") == 1
  other.wait()


def test_the_images_list_of_the_window_leads_the_widget(
  widget, viewer, hand_out, wait_until, study
):
  module = importlib.import_module("dicexmbd_jax.viewer.images_widget")
  images = module.ImagesWidget(hand_out())
  images.list_study(module.find_study(study / "img"), "ROI1")
  paint_all(viewer.layers["strokes"])
  images.step(1)
  assert widget.images.stem == "ROI2"
  assert not viewer.layers["strokes"].data.any()
  widget.images.step(-1)
  assert images.stem == "ROI1"
  assert viewer.layers["strokes"].data.any()


def test_maps_leave_the_chosen_layer_alone(widget, viewer, wait_until):
  layer = viewer.layers["strokes"]
  paint_all(layer)
  wait_until(lambda: "live uncertainty" in viewer.layers)
  widget.wait()
  wait_until(lambda: True)
  other = viewer.add_labels(np.zeros(viewer_studies.SHAPE, int), name="mine")
  widget.maps = None
  paint(layer, 1, 11, range(8, 12))
  wait_until(lambda: widget.maps is not None)
  assert viewer.layers.selection.active is other
  assert viewer.layers[-1] is other


def test_a_layer_of_others_is_no_strokes(widget, viewer):
  layer = viewer.layers["strokes"]
  mine = viewer.add_labels(np.full((7, 9), 2), name="other")
  layer.name, mine.name = "mine", "strokes"
  paint_all(layer)
  painted = layer.data.copy()
  widget.images.step(1)
  assert mine in viewer.layers
  assert layer not in viewer.layers
  widget.choose_class(2)
  assert viewer.layers.selection.active.data.shape == viewer_studies.SHAPE
  np.testing.assert_array_equal(widget.session.strokes["ROI1"], painted)
  widget.wait()


def test_nobody_paints_where_the_image_cannot_be_read(
  widget, viewer, study, tmp_path
):
  shutil.copytree(study, tmp_path, dirs_exist_ok=True)
  path = tmp_path / "img/ROI3.ome.tiff"
  write.write_stack(path, viewer_studies.make_stack(), ("CD45", "Xx", "Ki67"))
  widget.images.open_path(tmp_path / "img")
  paint_all(viewer.layers["strokes"])
  widget.images.show_image("ROI3")
  assert "DNA1" in widget.message.text()
  assert "strokes" not in viewer.layers
  assert "ROI3" not in widget.session.strokes
  widget.wait()


def test_undo_and_fill_are_learned(widget, viewer, wait_until):
  layer = viewer.layers["strokes"]
  paint_all(layer)
  painted = layer.data.copy()
  learned = []
  widget.session.learn = lambda stem, planes, one: learned.append(one)
  layer.fill((30, 30), 3)
  wait_until(lambda: learned and np.array_equal(learned[-1], layer.data))
  layer.undo()
  wait_until(lambda: np.array_equal(learned[-1], painted))
  widget.wait()


def test_a_scale_changed_while_another_image_is_shown(
  widget, viewer, wait_until
):
  paint_all(viewer.layers["strokes"])
  widget.change_scale(2)
  widget.images.step(1)
  layer = viewer.layers["strokes"]
  wait_until(lambda: viewer.layers["strokes"] is not layer)
  layer, strokes = viewer.layers["strokes"], widget.session.strokes
  assert layer.data is strokes["ROI2"]
  assert layer.data is not strokes["ROI1"]
  assert not layer.data.any()
  widget.wait()


def test_what_was_found_in_another_study_is_not_shown(
  widget, viewer, wait_until, study, tmp_path
):
  """Its image has the same name."""
  shutil.copytree(study, tmp_path, dirs_exist_ok=True)
  (tmp_path / "img/ROI2.ome.tiff").unlink()
  first = widget.session
  widget.images.open_path(tmp_path / "img")
  assert widget.images.stem == "ROI1"
  widget._show_cells(first, "ROI1", viewer_studies.make_cells())
  assert "cells" not in viewer.layers
  widget._end_round(first, {"ROI1": 0.5, "ROI2": 0.6})
  assert widget.session.history == []
  assert len(first.history) == 1
  widget.wait()
