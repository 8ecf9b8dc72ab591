import importlib

import numpy as np
import pytest
import viewer_studies


@pytest.fixture
def output(tmp_path):
  return viewer_studies.write_output(tmp_path / "out")


@pytest.fixture
def widget(viewer, wait_until):
  module = importlib.import_module("dicexmbd_jax.viewer.images_widget")
  return module.ImagesWidget(viewer)


def test_a_study_is_stepped_through(widget, viewer, output):
  widget.open_path(output)
  assert widget.stem == "ROI1"
  first = viewer.layers["CD45"].data
  viewer.layers["CD45"].visible = True
  viewer.layers["CD45"].colormap = "red"
  widget.step(1)
  assert widget.stem == "ROI2"
  assert widget.images.currentItem().text() == "ROI2"
  assert not np.array_equal(viewer.layers["CD45"].data, first)
  assert viewer.layers["CD45"].visible
  assert viewer.layers["CD45"].colormap.name == "red"
  assert len(viewer.layers) == 11
  widget.step(1)
  assert widget.stem == "ROI2"


def test_next_leads_past_a_first_image_that_cannot_be_read(
  widget, viewer, output
):
  (output / "img/ROI1.ome.tiff").write_bytes(b"no image")
  widget.open_path(output / "img")
  assert "ROI1" in widget.message.text()
  assert widget.stem == ""
  widget.step(-1)
  assert widget.stem == ""
  widget.step(1)
  assert widget.stem == "ROI2"


def test_hovering_tells_a_cells_row(widget, viewer, output):
  widget.open_path(output)
  layer = viewer.layers["cells"]
  status = layer.get_status((9.0, 9.0), world=True)
  assert "area: 100" in str(status)


def test_unsaved_corrections_are_told_once(widget, viewer, output):
  widget.open_path(output)
  viewer.layers["cells"].data_setitem((np.array([0]), np.array([0])), 9)
  widget.step(1)
  assert widget.stem == "ROI1"
  assert "not saved" in widget.message.text()
  widget.step(1)
  assert widget.stem == "ROI2"


def test_layers_of_others_stay(widget, viewer, output):
  viewer.add_points([[1, 1]], name="mine")
  widget.open_path(output)
  widget.step(1)
  assert "mine" in viewer.layers


def test_a_wrong_path_is_one_line(widget, viewer, tmp_path):
  widget.open_path(tmp_path / "nothing")
  assert "found" in widget.message.text()
  assert len(viewer.layers) == 0


def test_the_reader_gives_napari_layers(viewer, output, tmp_path):
  reader = importlib.import_module("dicexmbd_jax.viewer.reader")
  layer = importlib.import_module("napari.layers").Layer
  found = reader.get_reader(str(output))(str(output))
  assert [layer.create(*one).name for one in found][-1] == "cells"
  assert reader.get_reader(str(tmp_path / "nothing.mcd")) is None
  note = tmp_path / "note.txt"
  note.write_text("no image")
  with pytest.raises(ValueError, match="note.txt: found"):
    reader.get_reader(str(note))([str(note)])
  broken = tmp_path / "broken.mcd"
  broken.write_text("no image")
  with pytest.raises(ValueError, match="broken.mcd: found"):
    reader.get_reader(str(broken))(str(broken))
