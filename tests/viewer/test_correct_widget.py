import importlib
import types

import numpy as np
import pandas as pd
import pytest
import viewer_studies

from dicexmbd_jax.io import labels, tiff, write
from dicexmbd_jax.viewer import layers as layers_lib
from dicexmbd_jax.viewer.study import find_study


@pytest.fixture
def output(tmp_path):
  return viewer_studies.write_output(tmp_path / "out")


@pytest.fixture
def widget(viewer, wait_until, output):
  layer = importlib.import_module("napari.layers").Layer
  for one in layers_lib.list_layers(find_study(output), "ROI1")[0]:
    viewer.add_layer(layer.create(*one))
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  return module.CorrectWidget(viewer)


def drag(viewer, *positions):
  """Presses, moves and releases the mouse, as napari's canvas does."""
  mouse = importlib.import_module("napari.utils.interactions")
  event = types.SimpleNamespace(handled=False, modifiers=(), is_dragging=True)
  steps = [mouse.mouse_press_callbacks]
  steps += [mouse.mouse_move_callbacks] * (len(positions) - 1)
  kinds = ["mouse_press"] + ["mouse_move"] * (len(positions) - 1)
  for step, kind, position in zip(steps, kinds, positions, strict=True):
    event.type, event.position = kind, position
    step(viewer, event)
  event.type = "mouse_release"
  mouse.mouse_release_callbacks(viewer, event)


def use(widget, viewer, tool, *positions):
  widget.tools[tool].click()
  drag(viewer, *positions)


def test_cells_come_before_nuclei(widget):
  assert widget.layer.name == "cells"
  assert [widget.layers.itemText(k) for k in range(2)] == ["cells", "nuclei"]


def test_three_cells_are_corrected_saved_and_read_again(widget, viewer, output):
  use(widget, viewer, "Merge", (10, 10), (10, 15), (10, 20))
  assert "taken up 2" in widget.message.text()
  use(widget, viewer, "Split", (18, 10), (28, 10.5), (37, 10.5))
  use(widget, viewer, "Delete", (30, 40))
  assert "line" not in viewer.layers
  assert layers_lib.is_unsaved(widget.layer)
  widget.save()
  assert not layers_lib.is_unsaved(widget.layer)
  assert "1 merged" in widget.message.text()
  table = pd.read_csv(output / "corrected/ROI1.csv")
  assert table[["id", "action", "from_ids"]].to_numpy().tolist() == [
    [1, "merged", "1;2"],
    [3, "split", "3"],
    [4, "deleted", "4"],
    [5, "split", "3"],
  ]
  saved = labels.read_labels(output / "corrected/ROI1.tiff")
  np.testing.assert_array_equal(saved, widget.layer.data)
  masks = labels.read_labels(output / "masks/ROI1.tiff")
  np.testing.assert_array_equal(masks, viewer_studies.make_cells())
  shown, _ = layers_lib.list_layers(find_study(output), "ROI1")
  np.testing.assert_array_equal(shown[-1][0], saved)


def test_rows_of_cells_are_measured_anew(widget, viewer):
  use(widget, viewer, "Merge", (10, 10), (10, 20))
  widget.save()
  features = widget.layer.features
  assert features["index"].tolist() == [1, 3, 4]
  assert features["area"].tolist() == [200, 150, 225]
  assert {"CD45", "DNA1", "Ki67"} < set(features)


def test_whatever_was_done_can_be_undone(widget, viewer, output):
  use(widget, viewer, "Merge", (10, 10), (10, 20))
  use(widget, viewer, "Split", (18, 10), (37, 10))
  widget.undo()
  widget.undo()
  np.testing.assert_array_equal(widget.layer.data, viewer_studies.make_cells())
  widget.save()
  assert "no change" in widget.message.text()
  assert len(pd.read_csv(output / "corrected/ROI1.csv")) == 0


def test_an_image_can_be_said_to_be_right(widget, viewer, output):
  assert not widget.checked.isChecked()
  use(widget, viewer, "Delete", (25, 10))
  widget.checked.setChecked(True)
  widget.save()
  assert "Saved: 1 deleted, the whole image checked" in widget.message.text()
  table = pd.read_csv(output / "corrected/ROI1.csv")
  assert table[["id", "action"]].to_numpy().tolist() == [
    [0, "checked"],
    [3, "deleted"],
  ]
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  again = module.CorrectWidget(viewer)
  assert again.checked.isChecked()
  again.checked.setChecked(False)
  again.save()
  assert not module.CorrectWidget(viewer).checked.isChecked()


def test_corrections_that_are_not_shown_stay(widget, viewer, output):
  widget.checked.setChecked(True)
  use(widget, viewer, "Delete", (25, 10))
  widget.save()
  before = labels.read_labels(output / "corrected/ROI1.tiff")
  # The same cells once more, as Segment finds them on another day.
  cells = viewer_studies.make_cells()
  origin = layers_lib.LayerOrigin(output, "ROI1", "cells", output, cells, cells)
  layer = viewer.add_labels(
    cells.copy(), name="again", metadata={layers_lib.KEY: origin}
  )
  widget.layers.setCurrentIndex(widget.layers.findText("again"))
  assert widget.layer is layer
  assert not widget.checked.isChecked()
  use(widget, viewer, "Delete", (30, 40))
  widget.save()
  assert "corrections of ROI1 that are not shown" in widget.message.text()
  after = labels.read_labels(output / "corrected/ROI1.tiff")
  np.testing.assert_array_equal(after, before)


def test_labels_begun_in_napari_are_of_the_image_shown(
  viewer, wait_until, output
):
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  shown = importlib.import_module("dicexmbd_jax.viewer.images_widget")
  images = shown.ImagesWidget(viewer)
  images.open_path(output / "img")
  for stem in ("ROI1", "ROI2"):
    images.show_image(stem)
    widget = module.CorrectWidget(viewer)
    empty = np.zeros(viewer_studies.SHAPE, np.int32)
    layer = viewer.add_labels(empty, name="Labels")
    layer.data_setitem((np.array([5, 5]), np.array([5, 6])), 1)
    widget.save()
    assert f"corrected/{stem}.tiff" in widget.message.text()
    viewer.layers.remove(layer)


def test_labels_begun_in_napari_are_unsaved_until_they_are_saved(
  viewer, wait_until, output
):
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  shown = importlib.import_module("dicexmbd_jax.viewer.images_widget")
  images = shown.ImagesWidget(viewer)
  images.open_path(output / "img")
  layer = viewer.add_labels(viewer_studies.make_cells(), name="Labels")
  widget = module.CorrectWidget(viewer)  # Opened when they are painted.
  images.show_image("ROI2")
  assert "Labels: the corrections are not saved" in images.message.text()
  widget.save()
  assert not layers_lib.is_unsaved(layer)
  images.show_image("ROI2")
  assert images.stem == "ROI2"


def test_nuclei_go_beside_what_was_opened(widget, output):
  widget.layers.setCurrentIndex(widget.layers.findText("nuclei"))
  assert widget.folder.text() == str(output / "segmented")


def test_strokes_are_no_cells(viewer, wait_until, output):
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  teach = importlib.import_module("dicexmbd_jax.viewer.teach_widget")
  made = teach.TeachWidget(viewer)
  made.images.open_path(output / "img")
  assert module.CorrectWidget(viewer).layer is None
  strokes = viewer.layers["strokes"]
  strokes.data_setitem((np.array([5]), np.array([5])), 1)
  made.images.show_image("ROI2")
  assert made.images.stem == "ROI2"
  made.wait()


def test_added_cells_have_new_ids_and_spare_others(widget):
  widget.tools["Add"].click()
  layer = widget.layer
  assert (layer.mode, layer.selected_label) == ("polygon", 5)
  layer.paint_polygon([(16, 8), (16, 12), (24, 12), (24, 8)], 5)
  assert layer.selected_label == 6
  assert (layer.data[17:20, 9:12] == 5).all()
  assert (layer.data == 3).sum() == 150


def test_a_cell_is_redrawn_under_its_id(widget, viewer, output):
  use(widget, viewer, "Redraw", (25, 10))
  layer = widget.layer
  assert (layer.mode, layer.selected_label) == ("polygon", 3)
  assert not (layer.data == 3).any()
  layer.paint_polygon([(20, 5), (20, 10), (30, 10), (30, 5)], 3)
  assert layer.mode == "pan_zoom"
  assert (layer.data[21:30, 6:10] == 3).all()
  assert layer.data[25, 13] == 0
  widget.save()
  table = pd.read_csv(output / "corrected/ROI1.csv")
  assert table[["id", "action"]].to_numpy().tolist() == [[3, "redrawn"]]


def test_a_cell_that_is_not_drawn_anew_comes_back(widget, viewer):
  use(widget, viewer, "Redraw", (25, 10))
  widget.tools["Merge"].click()
  np.testing.assert_array_equal(widget.layer.data, viewer_studies.make_cells())


def test_a_tool_that_is_laid_down_leaves_the_mouse_to_napari(widget, viewer):
  use(widget, viewer, "Delete", (0, 0))
  assert not widget.layer.mouse_pan
  widget.tools["Delete"].click()
  assert widget.layer.mouse_pan
  drag(viewer, (25, 10))
  np.testing.assert_array_equal(widget.layer.data, viewer_studies.make_cells())


def test_a_wrong_folder_is_one_line(widget, viewer, output):
  (output / "note").write_text("x")
  widget.folder.setText(str(output / "note"))
  widget.save()
  assert "note" in widget.message.text()
  use(widget, viewer, "Delete", (25, 10))
  widget.folder.setText(str(output))
  other = np.where(viewer_studies.make_cells() == 1, 0, 5)
  write.write_labels(output / "masks/ROI1.tiff", other)
  widget.save()
  assert "found other cells" in widget.message.text()


def test_labels_of_others_can_be_corrected(viewer, wait_until, tmp_path):
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  widget = module.CorrectWidget(viewer)
  widget.tools["Merge"].click()
  assert "Found no cells" in widget.message.text()
  viewer.add_labels(viewer_studies.make_cells(), name="mine")
  widget.folder.setText(str(tmp_path))
  use(widget, viewer, "Merge", (10, 10), (10, 20))
  widget.save()
  assert (tmp_path / "corrected/mine.csv").is_file()
  assert (tmp_path / "masks/mine.tiff").is_file()


def test_pixels_of_half_a_um_are_hit(viewer, wait_until):
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  widget = module.CorrectWidget(viewer)
  viewer.add_labels(viewer_studies.make_cells(), scale=(0.5, 0.5))
  use(widget, viewer, "Delete", (5, 10))
  assert not (widget.layer.data == 2).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_new_ids_go_on_beyond_those_of_small_numbers(viewer, wait_until, dtype):
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  highest = np.iinfo(dtype).max
  cells = np.where(viewer_studies.make_cells() == 3, highest, 0).astype(dtype)
  layer = viewer.add_labels(cells.copy(), name="mine")
  layer.data_setitem((np.array([0]), np.array([0])), 7)
  widget = module.CorrectWidget(viewer)
  use(widget, viewer, "Split", (18, 10), (28, 10.5), (37, 10.5))
  assert np.unique(layer.data).tolist() == [0, 7, highest, highest + 1]
  widget.tools["Add"].click()
  assert layer.selected_label == highest + 2
  widget.undo()
  widget.undo()
  np.testing.assert_array_equal(layer.data, cells)


@pytest.mark.parametrize(
  ("scale", "unit", "size_um"),
  [
    ((500, 500), "nm", 0.5),
    ((-2, 2), "um", 2.0),
    ((3, 3), "pixel", 3.0),
    ((1, 2), "um", None),
  ],
)
def test_the_pixel_size_is_in_um(
  viewer, wait_until, tmp_path, scale, unit, size_um
):
  module = importlib.import_module("dicexmbd_jax.viewer.correct_widget")
  cells = viewer_studies.make_cells()
  viewer.add_labels(cells, name="mine", scale=scale, units=(unit, unit))
  widget = module.CorrectWidget(viewer)
  widget.folder.setText(str(tmp_path))
  widget.save()
  for folder in ("masks", "corrected"):
    found = tiff.read_pixel_size(tmp_path / f"{folder}/mine.tiff")
    assert found == pytest.approx(size_um)


def test_a_record_without_its_columns_is_one_line(widget, viewer, output):
  use(widget, viewer, "Delete", (25, 10))
  widget.save()
  record = output / "corrected/ROI1.csv"
  record.write_text("a,b\n1,2\n")
  use(widget, viewer, "Delete", (10, 10))
  widget.save()
  told = f"{record}: found the columns a, b, expected id, action"
  assert told in widget.message.text()
