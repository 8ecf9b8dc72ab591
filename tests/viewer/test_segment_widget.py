import dataclasses
import importlib
import json
import pathlib
import shutil
import threading

import numpy as np
import pytest
import viewer_studies

from dicexmbd_jax import api, config
from dicexmbd_jax.masks.settings import PRESETS
from dicexmbd_jax.viewer import layers as layers_lib
from dicexmbd_jax.viewer import segmentation

SIZE = 64
NAMES = ("CD45", "DNA1", "Ki67")
# One view, one size: what the network needs least time for.
QUICK = {"views": 1, "magnification": 1.0}


def make_stack():
  """Round nuclei of 6 px on a grid of 16 px, in cells of 12 px."""
  y, x = np.mgrid[:SIZE, :SIZE]
  far = np.hypot(y % 16 - 8, x % 16 - 8)
  planes = [30 * (far < 6), 60 * (far < 3.2), 0 * far]
  return np.stack(planes).astype(np.float32)


@pytest.fixture(scope="module")
def job():
  return segmentation.SegmentJob(
    layers_lib.LayerOrigin(pathlib.Path("image"), "image", ""),
    make_stack(),
    NAMES,
    ("DNA1",),
    ("CD45",),
    1.0,
    **QUICK,
  )


@pytest.fixture(scope="module")
def cells(job):
  return segmentation.segment(job, lambda share: None)


@pytest.fixture
def widget(viewer, wait_until):
  for name, plane in zip(NAMES, make_stack(), strict=True):
    viewer.add_image(plane, name=name)
  module = importlib.import_module("dicexmbd_jax.viewer.segment_widget")
  made = module.SegmentWidget(viewer)
  made.views.setCurrentText("1")
  made.magnification.setText("1.0")
  yield made
  wait_until(lambda: not made.is_busy())


@pytest.fixture
def quick(monkeypatch):
  """Puts the nuclear channel in the network's place; gives the jobs."""
  jobs = []

  def find(job, progress):
    jobs.append(job)
    progress(1.0)
    plane = job.stack[job.names.index(job.nuclear[0])]
    maps = np.stack([plane / 60, 0.5 - plane / 120], -1)
    settings = {f"segment.{name}": value for name, value in job.live.items()}
    return api.segment_probabilities(maps, job.pixel_size_um, settings)

  monkeypatch.setattr(segmentation, "segment", find)
  return jobs


def test_the_job_is_what_the_api_does(cells):
  found = api.segment(
    make_stack(),
    ["DNA1"],
    ["CD45"],
    NAMES,
    settings={"predict.views": 1, "predict.magnification": 1.0},
  )
  np.testing.assert_array_equal(cells.masks, found.masks)
  assert len(cells.table) >= 9


def test_progress_comes_to_one_and_can_stop_the_work(job):
  seen = []
  segmentation.segment(job, seen.append)
  assert seen[-1] == 1.0
  assert seen == sorted(seen)

  def refuse(share):
    raise InterruptedError

  with pytest.raises(InterruptedError):
    segmentation.segment(job, refuse)


def test_live_settings_give_what_a_whole_run_gives(job, cells):
  live = {"max_growth_um": 3.0}
  later = dataclasses.replace(job, live=live)
  again = segmentation.segment_again(later, cells)
  whole = segmentation.segment(later, lambda share: None)
  np.testing.assert_array_equal(again.masks, whole.masks)
  assert (again.masks > 0).sum() > (cells.masks > 0).sum()
  assert list(again.table) == list(whole.table)
  assert again.warnings == whole.warnings


def test_live_settings_keep_what_was_told_of_the_image(job, cells):
  warned = (*cells.warnings, "DNA1: found noise alone")
  again = segmentation.segment_again(
    job, dataclasses.replace(cells, warnings=warned)
  )
  assert set(again.warnings) == set(warned)


def test_a_models_numbers_are_not_rounded(widget, monkeypatch):
  found = segmentation.read_live("")
  found |= {"min_nucleus_threshold": 0.0005, "min_nucleus_area_px": 1234.5}
  found |= {"nucleus_correction": 1 / 3}
  monkeypatch.setattr(segmentation, "read_live", lambda *_: found)
  widget.model.setText("a model")
  assert widget.read_settings() == {}
  assert widget.live["min_nucleus_threshold"].text() == "0.0005"
  widget.live["min_nucleus_threshold"].setValue(0.00025)
  assert widget.read_settings() == {"min_nucleus_threshold": 0.00025}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_at_once_gives_what_a_whole_run_gives(job, cells, preset):
  later = dataclasses.replace(job, live={"preset": preset})
  again = segmentation.segment_again(later, cells)
  whole = segmentation.segment(later, lambda share: None)
  np.testing.assert_array_equal(again.masks, whole.masks)
  np.testing.assert_array_equal(again.nuclei, whole.nuclei)


def test_a_preset_takes_the_place_of_what_the_weights_ask_for():
  shipped = segmentation.read_live("")
  assert shipped["min_nucleus_area_px"] == 4.5
  other = segmentation.read_live("", "dice_xmbd")
  assert other["min_nucleus_area_px"] == 1.25
  assert (shipped["parts_cells"], other["parts_cells"]) == (False, True)


def test_settings_are_told_where_they_are_not_the_models(widget):
  assert widget.read_settings() == {}
  widget.live["max_growth_um"].setValue(3.0)
  assert widget.read_settings() == {"max_growth_um": 3.0}
  widget.preset.setCurrentText("dice_xmbd")
  assert widget.live["parts_cells"].isChecked()
  assert widget.read_settings() == {"preset": "dice_xmbd"}


@pytest.mark.parametrize("text", ["large", "1,5"])
def test_a_wrong_magnification_is_one_line(text):
  assert segmentation.parse_magnification(" Auto") == "auto"
  assert segmentation.parse_magnification("1.5") == 1.5
  with pytest.raises(ValueError, match="magnification: found"):
    segmentation.parse_magnification(text)


def test_channels_are_guessed_and_can_be_changed(widget):
  assert widget._list_chosen() == {"nuclear": ["DNA1"], "membrane": ["CD45"]}
  state = importlib.import_module("qtpy.QtCore").Qt.CheckState
  widget.channels.topLevelItem(2).setCheckState(1, state.Checked)
  assert widget._list_chosen()["nuclear"] == ["DNA1", "Ki67"]


def test_a_channel_whose_layer_gets_another_name_keeps_its_ticks(
  widget, viewer, wait_until, quick
):
  viewer.layers["DNA1"].name = "Channel 7"
  viewer.layers["CD45"].name = "Channel 8"
  widget.run.click()
  wait_until(lambda: not widget.is_busy())
  assert quick[0].nuclear == ("Channel 7",)
  assert quick[0].membrane == ("Channel 8",)


def test_ticks_hold_for_a_studys_other_images(viewer, wait_until, tmp_path):
  output = viewer_studies.write_output(tmp_path / "out")
  modules = [
    importlib.import_module(f"dicexmbd_jax.viewer.{name}_widget")
    for name in ("images", "segment")
  ]
  images = modules[0].ImagesWidget(viewer)
  images.open_path(output)
  widget = modules[1].SegmentWidget(viewer)
  state = importlib.import_module("qtpy.QtCore").Qt.CheckState
  for item in widget._list_items():
    ticked = state.Checked if item.text(0) == "Ki67" else state.Unchecked
    item.setCheckState(1, ticked)
  images.step(1)
  assert widget._list_chosen() == {"nuclear": ["Ki67"], "membrane": ["CD45"]}
  roles = layers_lib.list_roles(viewer.layers)
  assert roles == {"CD45": "membrane", "DNA1": "", "Ki67": "nuclear"}


def test_cells_are_found_and_follow_the_settings(
  widget, viewer, wait_until, cells
):
  widget.run.click()
  assert not widget.run.isEnabled()
  wait_until(lambda: not widget.is_busy())
  layer = viewer.layers["segmented cells"]
  np.testing.assert_array_equal(layer.data, cells.masks)
  assert layer.features["index"].tolist() == cells.table["Object"].tolist()
  assert {"area", "DNA1"} < set(layer.features)
  num_layers = len(viewer.layers)
  widget.live["max_growth_um"].setValue(3.0)
  area = int((layer.data > 0).sum())
  wait_until(lambda: int((layer.data > 0).sum()) > area)
  assert len(viewer.layers) == num_layers
  assert not layers_lib.is_unsaved(layer)


def test_a_setting_turned_during_the_first_run_is_followed(
  widget, wait_until, quick, monkeypatch
):
  is_started, may_go = threading.Event(), threading.Event()

  def find_late(job, progress, find=segmentation.segment):
    is_started.set()
    may_go.wait(60)
    return find(job, progress)

  monkeypatch.setattr(segmentation, "segment", find_late)
  widget.run.click()
  wait_until(is_started.is_set)
  widget.live["max_growth_um"].setValue(3.0)
  wait_until(lambda: not widget._timer.isActive())
  may_go.set()
  wait_until(lambda: not widget.is_busy())
  wait_until(lambda: widget._job.live == {"max_growth_um": 3.0}, longest_s=10.0)


def test_settings_of_another_model_do_not_change_the_cells(
  widget, viewer, wait_until, quick, tmp_path
):
  widget.run.click()
  wait_until(lambda: not widget.is_busy())
  before = viewer.layers["segmented cells"].data
  # The same weights, fitted otherwise, as a fine-tuning leaves them.
  folder = config.find_model(config.SHIPPED_MODEL)
  shutil.copytree(folder, tmp_path / "fitted")
  values = json.loads((folder / "config.json").read_text())
  values["segment"]["nucleus_correction"] = 1.4
  (tmp_path / "fitted/config.json").write_text(json.dumps(values))
  widget.model.setText(str(tmp_path / "fitted"))
  assert widget.live["nucleus_correction"].value() == 1.4
  widget.live["max_growth_um"].setValue(3.0)
  wait_until(lambda: "another model" in widget.message.text(), longest_s=10.0)
  assert viewer.layers["segmented cells"].data is before


def test_corrections_are_not_overwritten(widget, viewer, wait_until):
  widget.run.click()
  wait_until(lambda: not widget.is_busy())
  layer = viewer.layers["segmented cells"]
  layer.data_setitem((np.array([0]), np.array([0])), 99)
  widget.run.click()
  wait_until(lambda: not widget.is_busy())
  assert "not saved" in widget.message.text()
  assert layer.data[0, 0] == 99


def test_cells_are_not_put_on_another_image_of_the_same_names(
  widget, viewer, wait_until, quick
):
  widget.run.click()
  wait_until(lambda: not widget.is_busy())
  before = viewer.layers["segmented cells"].data
  for name, plane in zip(NAMES, make_stack(), strict=True):
    viewer.layers.remove(name)
    viewer.add_image(np.roll(plane, 4, 0), name=name)
  widget.live["max_growth_um"].setValue(3.0)
  wait_until(lambda: "Another image" in widget.message.text())
  assert viewer.layers["segmented cells"].data is before


def test_cells_lie_where_the_image_lies(viewer, wait_until, quick):
  viewer.add_image(make_stack()[0], name="CD45")  # Of another pixel size.
  place = {"scale": (500, -500), "translate": (1e4, 2e4), "rotate": 30}
  viewer.add_image(make_stack()[1], name="DNA1", units="nm", **place)
  module = importlib.import_module("dicexmbd_jax.viewer.segment_widget")
  widget = module.SegmentWidget(viewer)
  widget.run.click()
  assert "CD45: found 64 x 64 pixels of 1 x 1 pixel" in widget.message.text()
  assert quick == []
  viewer.layers.remove("CD45")
  widget.run.click()
  wait_until(lambda: not widget.is_busy())
  assert quick[0].pixel_size_um == 0.5
  for name in ("cells", "probability of nucleus"):
    layer = viewer.layers[f"segmented {name}"]
    np.testing.assert_allclose(
      layer.data_to_world((3, 5)),
      np.divide(viewer.layers["DNA1"].data_to_world((3, 5)), 1000),
    )


def test_pixels_that_are_not_square_are_one_line(viewer, app):
  viewer.add_image(make_stack()[1], name="DNA1", scale=(0.5, 1.0))
  module = importlib.import_module("dicexmbd_jax.viewer.segment_widget")
  widget = module.SegmentWidget(viewer)
  widget.run.click()
  assert "expected square pixels" in widget.message.text()


def test_work_can_be_cancelled(widget, viewer, wait_until, monkeypatch):
  is_started = threading.Event()
  may_go = threading.Event()

  def wait_for_tiles(job, progress):
    is_started.set()
    may_go.wait(60)
    progress(0.5)
    raise AssertionError("went on")

  monkeypatch.setattr(segmentation, "segment", wait_for_tiles)
  widget.run.click()
  wait_until(is_started.is_set)
  widget.cancel.click()
  may_go.set()
  wait_until(lambda: not widget.is_busy())
  assert "Stopped" in widget.message.text()
  assert "segmented cells" not in viewer.layers
  assert widget.run.isEnabled()


@pytest.mark.parametrize(
  ("part", "text"),
  [("magnification", "large"), ("magnification", "99"), ("model", "/nowhere")],
)
def test_what_cannot_be_meant_is_one_line(widget, wait_until, part, text):
  getattr(widget, part).setText(text)
  widget.run.click()
  wait_until(lambda: not widget.is_busy())
  assert "found" in widget.message.text()
  assert "\n" not in widget.message.text()


def test_a_stack_of_channels_is_one_line(viewer):
  module = importlib.import_module("dicexmbd_jax.viewer.segment_widget")
  widget = module.SegmentWidget(viewer)
  viewer.add_image(make_stack(), name="stack")
  widget.run.click()
  assert widget.message.text().startswith("stack: found (3, 64, 64), expected")


def test_an_empty_viewer_is_one_line(viewer, wait_until):
  module = importlib.import_module("dicexmbd_jax.viewer.segment_widget")
  widget = module.SegmentWidget(viewer)
  widget.run.click()
  assert "Found no channels" in widget.message.text()
