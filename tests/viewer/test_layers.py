import json
import sys

import mcd_files
import numpy as np
import pytest
import viewer_studies

from dicexmbd_jax import __main__ as program
from dicexmbd_jax.io import write
from dicexmbd_jax.viewer import layers
from dicexmbd_jax.viewer.study import find_study


@pytest.fixture
def output(tmp_path):
  return viewer_studies.write_output(tmp_path / "out")


def read_layers(path, stem):
  found, lines = layers.list_layers(find_study(path), stem)
  assert lines == []
  return {settings["name"]: (data, settings) for data, settings, _ in found}


def test_an_output_folder_gives_everything_in_order(output):
  shown = read_layers(output, "ROI1")
  assert list(shown) == [
    *("nuclear", "membrane", "CD45", "DNA1", "Ki67"),
    *(f"probability of {name}" for name in ("nucleus", "membrane")),
    *("probability of background", "uncertainty", "nuclei", "cells"),
  ]
  is_visible = [name for name, (_, s) in shown.items() if s.get("visible", 1)]
  assert is_visible == ["nuclear", "membrane", "cells"]
  assert shown["nuclear"][1]["colormap"] == "blue"
  assert shown["membrane"][1]["colormap"] == "green"
  np.testing.assert_array_equal(
    shown["DNA1"][0], viewer_studies.make_stack()[..., 1]
  )


def test_maps_lie_where_the_tissue_is(output):
  """Pixels of 2 um: the middle of the first is half a pixel further in."""
  _, settings = read_layers(output, "ROI1")["probability of nucleus"]
  assert settings["scale"] == (2.0, 2.0)
  assert settings["translate"] == (0.5, 0.5)
  assert settings["contrast_limits"] == (0.0, 65535.0)


def test_cells_have_their_rows(output):
  features = read_layers(output, "ROI1")["cells"][1]["features"]
  assert features["index"].tolist() == [1, 2, 3, 4]
  assert {"area", "is_border", "DNA1"} - set(features) == {"is_border"}
  assert features["area"].tolist() == [100, 100, 150, 225]


def test_corrected_cells_are_shown_in_place_of_the_masks(output):
  cells = viewer_studies.make_cells()
  cells[cells == 2] = 1
  write.write_labels(output / "corrected/ROI1.tiff", cells)
  shown, settings = read_layers(output, "ROI1")["cells"]
  np.testing.assert_array_equal(shown, cells)
  origin = settings["metadata"][layers.KEY]
  np.testing.assert_array_equal(origin.original, viewer_studies.make_cells())
  np.testing.assert_array_equal(origin.saved, cells)


def test_rows_of_corrected_cells_are_measured(output):
  """The tables are of the masks."""
  cells = viewer_studies.make_cells()
  cells[cells == 2] = 1
  write.write_labels(output / "corrected/ROI1.tiff", cells)
  features = read_layers(output, "ROI1")["cells"][1]["features"]
  assert features["index"].tolist() == [1, 3, 4]
  assert features["area"].tolist() == [200, 150, 225]
  stack = viewer_studies.make_stack(0)
  expected = [stack[cells == k, 0].mean() for k in (1, 3, 4)]
  np.testing.assert_allclose(features["CD45"], expected, rtol=1e-6)
  (output / "img/ROI1.ome.tiff").unlink()
  features = read_layers(output, "ROI1")["cells"][1]["features"]
  assert features["area"].tolist() == [200, 150, 225]


@pytest.mark.parametrize("rows", ["4,deleted,4", "0,checked,\n4,deleted,4"])
def test_corrections_of_other_masks_are_told(output, rows):
  masks = viewer_studies.make_cells()
  cells = np.where(masks == 4, 0, masks)
  write.write_labels(output / "corrected/ROI1.tiff", cells)
  record = output / "corrected/ROI1.csv"
  record.write_text(f"id,action,from_ids,user,time\n{rows},ada,now\n")
  found, lines = layers.list_layers(find_study(output), "ROI1")
  assert lines == []
  np.testing.assert_array_equal(get_original(found), masks)
  # Made anew: nobody changed cell 1 by hand.
  write.write_labels(output / "masks/ROI1.tiff", np.roll(masks, 1, 0))
  found, lines = layers.list_layers(find_study(output), "ROI1")
  assert len(lines) == 1
  assert str(record) in lines[0]
  np.testing.assert_array_equal(get_original(found), cells)
  np.testing.assert_array_equal(found[-1][0], cells)


def get_original(found):
  return found[-1][1]["metadata"][layers.KEY].original


def test_roles_are_guessed_without_a_panel(output):
  (output / "panel.csv").unlink()
  shown = read_layers(output, "ROI1")
  assert shown["nuclear"][0].max() > 200
  nuclear = shown["nuclear"][0]
  assert nuclear[9, 9] > 200 > 50 > nuclear[9, 20]


def test_an_mcd_has_a_name_per_acquisition(tmp_path):
  counts = np.random.default_rng(0).poisson(5, (6, 8, 2)).astype(np.float32)
  path = tmp_path / "slide.mcd"
  block = mcd_files.make_block
  mcd_files.write_mcd(path, [block(counts), block(counts + 1)])
  study = find_study(path)
  assert list(study.images) == ["slide_001", "slide_002"]
  found, lines = layers.list_layers(study, "slide_002")
  shown = {settings["name"]: data for data, settings, _ in found}
  dna = shown["DNA1_Ir191"]
  np.testing.assert_array_equal(dna, counts[..., 1] + 1)
  assert lines == []


def test_images_are_found_where_the_run_had_them(output, tmp_path):
  (output / "img").rename(tmp_path / "elsewhere")
  (output / "panel.csv").rename(tmp_path / "panel.csv")
  assert find_study(output).images == {"ROI1": None, "ROI2": None}
  call = "dicexmbd predict --images elsewhere --panel=panel.csv"
  (output / "run.json").write_text(json.dumps({"command": call}))
  study = find_study(output)
  assert study.images["ROI2"].path == tmp_path / "elsewhere/ROI2.ome.tiff"
  assert study.panel.path == tmp_path / "panel.csv"


def test_the_pixel_size_that_a_run_was_told_goes_before_the_files(
  output, tmp_path, monkeypatch
):
  """The files say 1 um; of 40 x 50 px of 0.5 um the tissue has 20 x 25 um."""
  run = tmp_path / "run"
  paths = [f"--images={output / 'img'}", f"--panel={output / 'panel.csv'}"]
  words = ["--method=distance", "--pixel_size_um=0.5", "--num_workers=0"]
  words = ["predict", *paths, *words, f"--output={run}"]
  monkeypatch.setattr(sys, "argv", ["dicexmbd", *words])  # For run.json.
  assert program.main(words) == 0
  maps = np.full((20, 25, 3), 0.25, np.float32)
  write.write_probabilities(run / "probabilities/ROI1.tiff", maps, 1.0)
  for num_layers in (10, 5):  # With the image, and the results alone.
    shown = read_layers(run, "ROI1")
    assert len(shown) == num_layers
    for data, settings in shown.values():
      assert np.multiply(data.shape, settings["scale"]).tolist() == [20, 25]
    if (output / "img").exists():
      (output / "img").rename(tmp_path / "elsewhere")


@pytest.mark.parametrize("size", ["None", "nan", "0", "half", None])
def test_a_run_that_was_told_no_pixel_size_leaves_it_to_the_files(output, size):
  record = {"command": "dicexmbd predict", "hashes": {"pixel_size_um": size}}
  (output / "run.json").write_text(json.dumps(record))
  assert find_study(output).pixel_size_um is None
  assert read_layers(output, "ROI1")["cells"][1]["scale"] == (1.0, 1.0)


def test_images_are_those_beside_the_results_not_of_the_working_folder(
  tmp_path, monkeypatch
):
  for project in ("a", "b"):
    viewer_studies.write_output(tmp_path / project)
    (tmp_path / project / "out").mkdir()
  out = tmp_path / "a/out"
  (tmp_path / "a/masks").rename(out / "masks")
  record = {"command": "dicexmbd predict --images=img --output=out"}
  (out / "run.json").write_text(json.dumps(record))
  monkeypatch.chdir(tmp_path / "b")
  assert find_study(out).place == str(tmp_path / "a/img")
  monkeypatch.chdir(tmp_path / "a")
  assert find_study("out").place == str(tmp_path / "a/img")


def test_markers_of_two_files_of_one_name_are_kept_apart(tmp_path, viewer):
  for slide in ("a", "b"):
    viewer_studies.write_output(tmp_path / slide)
    for data, settings, kind in layers.list_layers(
      find_study(tmp_path / slide / "img/ROI1.ome.tiff"), "ROI1"
    )[0]:
      assert kind == "image"
      viewer.add_image(data, **settings)
  shown = layers.list_markers(viewer.layers)
  assert [one.name for one in shown] == list(viewer_studies.NAMES)


def test_masks_alone_are_shown_and_what_lacks_is_told(output, tmp_path):
  (output / "img").rename(tmp_path / "elsewhere")
  study = find_study(output)
  assert "found no images" in study.warnings[0]
  found, _ = layers.list_layers(study, "ROI1")
  assert found[-1][1]["name"] == "cells"


def test_tables_of_steinbock_go_with_their_masks(output):
  for kind in ("masks", "regionprops"):
    (output / kind).rename(output / f"{kind}_deepcell")
  settings = read_layers(output, "ROI1")["cells_deepcell"][1]
  assert len(settings["features"]) == 4


def test_a_damaged_file_costs_one_line(output):
  (output / "masks/ROI1.tiff").write_bytes(b"no TIFF")
  (output / "img/ROI2.ome.tiff").write_bytes(b"no TIFF")
  for stem, lost in (("ROI1", "masks/ROI1"), ("ROI2", "img/ROI2")):
    found, lines = layers.list_layers(find_study(output), stem)
    assert found
    assert any(lost in line and "expected" in line for line in lines)


def test_a_folder_of_nothing_is_refused(tmp_path):
  (tmp_path / "note.pdf").write_text("x")
  with pytest.raises(ValueError, match="found"):
    find_study(tmp_path)


@pytest.mark.parametrize(
  ("plane", "high"),
  [
    (np.zeros((4, 4), np.float32), 1.0),
    (np.full((4, 4), np.nan, np.float32), 1.0),
    (np.full((4, 4), 0.25, np.float32), 0.25),
    (np.eye(600, dtype=np.float32) * 7, 7.0),
  ],
)
def test_a_contrast_is_always_above_zero(plane, high):
  assert layers.find_contrast(plane) == high
