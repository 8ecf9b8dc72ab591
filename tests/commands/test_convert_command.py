"""`convert`: what each format holds, and wrong calls."""

import json
import math
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from dicexmbd_jax import __main__ as program
from dicexmbd_jax.io import ome_zarr_writer, spatial_data, write
from tests import finished_runs


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  return finished_runs.make_output(tmp_path_factory.mktemp("study"))


def convert(study, output, *more):
  return program.main(
    ["convert", f"--results={study / 'OUT'}", f"--output={output}", *more]
  )


def measure_area(polygons):
  total = 0
  for ring in (ring for polygon in polygons for ring in polygon):
    x, y = np.array(ring).T
    total += np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2
  return total


def test_geojson_has_cells_nuclei_and_measurements(study, tmp_path):
  assert convert(study, tmp_path, "--format=geojson") == 0
  assert json.loads((tmp_path / "EMPTY.geojson").read_text())["features"] == []
  whole = json.loads((tmp_path / "ROI-1.geojson").read_text())
  features = whole["features"]
  assert len({feature["id"] for feature in features}) == 24
  first, second = features[:2]
  assert first["geometry"]["type"] == "MultiPolygon"
  assert measure_area(first["geometry"]["coordinates"]) == 36
  assert second["geometry"]["type"] == "Polygon"
  assert measure_area([second["geometry"]["coordinates"]]) == 36
  assert "nucleusGeometry" not in second
  assert measure_area([features[2]["nucleusGeometry"]["coordinates"]]) == 16
  counts = pd.read_csv(study / "OUT/intensities/ROI-1.csv")
  for index, feature in enumerate(features):
    properties = feature["properties"]
    assert properties["objectType"] == "cell"
    values = properties["measurements"]
    assert values["CD45: Cell: Mean"] == counts["CD45"][index]
    assert values["Cell: area"] == 36
    assert all(math.isfinite(value) for value in values.values())


def test_steinbock_project(study, tmp_path):
  images = f"--images={study / 'study'}"
  assert convert(study, tmp_path, "--format=steinbock", images) == 0

  def list_stems(folder):
    return sorted(path.name for path in (tmp_path / folder).iterdir())

  every = ["EMPTY.tiff", "ROI-1.tiff", "ROI2.tiff"]
  for folder in ("img", "masks", "masks_deepcell"):
    assert list_stems(folder) == every
  assert list_stems("ome") == ["ROI-1.ome.tiff", "ROI2.ome.tiff"]
  for folder in ("intensities", "regionprops", "neighbors"):
    assert list_stems(folder) == ["ROI-1.csv", "ROI2.csv"]
  stack = tifffile.imread(study / "study/ROI2.ome.tiff")
  np.testing.assert_array_equal(
    tifffile.imread(tmp_path / "img/ROI2.tiff"), stack
  )
  obs = anndata.read_h5ad(tmp_path / "cells.h5ad").obs
  assert list(obs["image"]) == list(obs["Image"])
  assert len(pd.read_csv(tmp_path / "images.csv")) == 3
  # Whoever writes into the project leaves the results alone.
  table = tmp_path / "regionprops/ROI2.csv"
  table.write_text("")
  assert (study / "OUT/regionprops/ROI2.csv").stat().st_size


def test_images_of_a_project_have_the_channels_of_its_panel(study, tmp_path):
  panel = tmp_path / "other.csv"
  header, first, second = finished_runs.PANEL.splitlines()
  panel.write_text("\n".join((header, second, first)))
  more = ("--format=steinbock", f"--images={study / 'study'}")
  project = tmp_path / "project"
  assert convert(study, project, *more, f"--panel={panel}") == 0
  np.testing.assert_array_equal(
    tifffile.imread(project / "img/ROI2.tiff"),
    tifffile.imread(study / "study/ROI2.ome.tiff"),
  )
  assert (project / "panel.csv").read_text() == finished_runs.PANEL


def test_a_panel_without_the_markers_of_the_results(study, tmp_path, caplog):
  panel = tmp_path / "other.csv"
  panel.write_text("".join(finished_runs.PANEL.splitlines(True)[:2]))
  more = ("--format=steinbock", f"--images={study / 'study'}")
  assert convert(study, tmp_path / "P", *more, f"--panel={panel}") == 1
  assert "ROI2: found the channels DNA1, expected also CD45" in caplog.text
  assert not (tmp_path / "P/img").exists()


PROJECT_FILES = (
  *("cells.h5ad", "images.csv", "panel.csv", "img/ROI2.tiff"),
  *("masks/other.tiff", "masks_deepcell/a.tiff", "ome/ROI2.ome.tiff"),
  *("intensities/a.csv", "regionprops/a.csv", "neighbors/a.csv"),
)


@pytest.mark.parametrize("name", PROJECT_FILES)
def test_a_project_that_is_there_is_left_alone(study, tmp_path, caplog, name):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_text("mine")
  more = ("--format=steinbock", f"--images={study / 'study'}")
  assert convert(study, tmp_path, *more) == 2
  (told,) = [line for line in caplog.messages if "found" in line]
  assert "--overwrite replaces it" in told
  assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
  assert path.read_text() == "mine"
  assert convert(study, tmp_path, *more, "--overwrite") == 0


@pytest.mark.parametrize("name", ["img/ROI2.tiff", "ome/ROI2.ome.tiff"])
def test_a_project_never_replaces_the_images_it_is_of(
  study, tmp_path, caplog, name
):
  path = tmp_path / name
  path.parent.mkdir()
  shutil.copyfile(study / "study/ROI2.ome.tiff", path)
  before = path.read_bytes()
  more = ("--format=steinbock", f"--images={path.parent}", "--overwrite")
  assert convert(study, tmp_path, *more) == 2
  assert f"{path}: found images or results that are read" in caplog.text
  assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
  assert path.read_bytes() == before


def test_a_folder_that_is_no_store_is_not_replaced(study, tmp_path, caplog):
  path = tmp_path / "ROI2.ome.zarr"
  path.mkdir()
  more = ("--format=ome-zarr", f"--images={study / 'study'}", "--overwrite")
  assert convert(study, tmp_path, *more) == 0  # Nothing is in it.
  shutil.rmtree(path)
  path.mkdir()
  (path / "notes.txt").write_text("mine")
  assert convert(study, tmp_path, *more) == 1
  assert f"{path}: found a folder that is no Zarr store" in caplog.text
  assert [one.name for one in path.iterdir()] == ["notes.txt"]


def test_a_store_never_replaces_an_image_it_is_of(tmp_path, caplog):
  study = finished_runs.make_output(tmp_path)
  more = ("--format=ome-zarr", f"--images={tmp_path / 'study'}")
  stores = tmp_path / "stores"
  assert convert(study, stores, *more) == 0
  keeper = stores / "ROI2.ome.zarr/notes.txt"
  keeper.write_text("mine")
  more = ("--format=ome-zarr", f"--images={stores}", "--overwrite")
  assert convert(study, stores, *more) == 2
  assert "found images or results that are read" in caplog.text
  assert keeper.read_text() == "mine"


@pytest.mark.parametrize("inner", ["OUT", "study"])
def test_a_store_never_replaces_what_it_is_made_from(tmp_path, caplog, inner):
  study = finished_runs.make_output(tmp_path / "all")
  store = tmp_path / "study.zarr"
  store.mkdir()
  (store / ".zgroup").write_text("{}")
  (study / inner).rename(store / inner)
  places = {name: study / name for name in ("OUT", "study")}
  places[inner] = store / inner
  words = ["convert", f"--results={places['OUT']}", f"--output={store}"]
  words += [f"--images={places['study']}", "--overwrite"]
  assert program.main(words) == 2
  assert f"{store}: found images or results that are read" in caplog.text
  assert list((store / inner).iterdir())


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(study, tmp_path, version):
  images = f"--images={study / 'study'}"
  more = ("--format=ome-zarr", images, f"--ngff={version}")
  assert convert(study, tmp_path, *more) == 0
  root = zarr.open_group(tmp_path / "ROI2.ome.zarr", mode="r")
  attributes = root.attrs["ome"] if version == "0.5" else root.attrs
  (scales,) = attributes["multiscales"]
  assert [axis["name"] for axis in scales["axes"]] == ["c", "y", "x"]
  (level,) = scales["datasets"]
  assert level["coordinateTransformations"] == [
    {"type": "scale", "scale": [1.0, 0.5, 0.5]}
  ]
  labels = [channel["label"] for channel in attributes["omero"]["channels"]]
  assert labels == list(finished_runs.NAMES)
  stack = tifffile.imread(study / "study/ROI2.ome.tiff")
  np.testing.assert_array_equal(root["0"][...], stack)
  np.testing.assert_array_equal(
    root["labels/cells/0"][...], finished_runs.make_cells()
  )
  group = root["labels/nuclei"]
  described = group.attrs["ome"] if version == "0.5" else group.attrs
  colours = described["image-label"]["colors"]
  assert colours[0] == {"label-value": 0, "rgba": [255, 89, 89, 0]}
  assert len({tuple(colour["rgba"]) for colour in colours}) == len(colours)


def test_large_images_are_pyramids(tmp_path):
  stack = np.arange(2100 * 6, dtype=np.float32).reshape(2100, 3, 2)
  labels = np.arange(2100 * 3, dtype=np.int32).reshape(2100, 3)
  path = tmp_path / "A.ome.zarr"
  ome_zarr_writer.write_ome_zarr(path, stack, "ab", 1.0, {"cells": labels})
  root = zarr.open_group(path, mode="r")
  shapes = [root[f"{level}"].shape for level in range(3)]
  assert shapes == [(2, 2100, 3), (2, 1050, 2), (2, 525, 1)]
  assert root["1"][0, 0, 0] == stack[:2, :2, 0].mean()
  assert set(root["labels/cells/2"][...].ravel()) <= set(labels.ravel())
  levels = root.attrs["multiscales"][0]["datasets"]
  sizes = [one["coordinateTransformations"][0]["scale"][1] for one in levels]
  assert sizes == [1, 2, 4]


def test_spatialdata_store(study, tmp_path):
  spatialdata = pytest.importorskip("spatialdata")
  path, images = tmp_path / "study.zarr", f"--images={study / 'study'}"
  assert convert(study, path, images) == 0
  store = spatialdata.read_zarr(path)
  cells = finished_runs.make_cells()
  np.testing.assert_array_equal(store["ROI-1_cells"], cells)
  np.testing.assert_array_equal(
    store["ROI2_image"], tifffile.imread(study / "study/ROI2.ome.tiff")
  )
  assert not np.asarray(store["EMPTY_cells"]).any()
  areas = np.bincount(cells.ravel())[1:]
  np.testing.assert_array_equal(store["ROI2_outlines"].area, areas)
  joined = spatialdata.match_table_to_element(store, "ROI2_cells", "table")
  assert joined.n_obs == 24
  extent = spatialdata.get_extent(
    store["ROI2_outlines"], coordinate_system="ROI2"
  )
  assert extent["x"] == (0, 28)  # 56 px of 0.5 um.


@pytest.mark.parametrize(
  ("more", "line"),
  [
    (["--format=tiff"], "--format: found 'tiff', expected one of"),
    (["--format=ome-zarr"], "expected also --images"),
    (["--format=geojson", "--ngff=1"], "--ngff: found '1'"),
    (["--results=/nowhere"], "/nowhere: found no run.json"),
  ],
)
def test_wrong_calls(study, tmp_path, caplog, more, line):
  assert convert(study, tmp_path / "to", *more) == 2
  (told,) = [one for one in caplog.messages if "found" in one or "exp" in one]
  assert line in told
  assert not (tmp_path / "to").exists()


def test_a_package_that_is_missing_is_one_line(
  study, tmp_path, caplog, monkeypatch
):
  monkeypatch.setitem(__import__("sys").modules, "spatialdata", None)
  assert convert(study, tmp_path / "x.zarr") == 2
  (told,) = caplog.messages
  assert "pip install 'dicexmbd-jax[spatialdata]'" in told


def test_one_bad_image_leaves_the_others(study, tmp_path, caplog):
  images = f"--images={study / 'study/ROI2.ome.tiff'}"
  assert convert(study, tmp_path, "--format=ome-zarr", images) == 1
  assert [path.name for path in tmp_path.iterdir()] == ["ROI2.ome.zarr"]
  assert any("found no image ROI-1" in line for line in caplog.messages)
  assert convert(study, tmp_path, "--format=ome-zarr", images) == 1
  assert any("--overwrite replaces it" in line for line in caplog.messages)
  more = ("--format=ome-zarr", images, "--overwrite")
  assert convert(study, tmp_path, *more) == 1
  (path,) = tmp_path.iterdir()
  assert path.name == "ROI2.ome.zarr"


@pytest.mark.parametrize("word", ["running", "stopped"])
def test_results_of_a_run_that_did_not_end(tmp_path, caplog, word):
  study = finished_runs.make_output(tmp_path / "all")
  record = study / "OUT/run.json"
  record.write_text(json.dumps({"state": word}))
  assert convert(study, tmp_path / "to", "--format=geojson") == 2
  assert f"{record}: found a run that is {word}" in caplog.text
  assert not (tmp_path / "to").exists()


def test_files_of_an_image_from_two_runs(tmp_path, caplog):
  study = finished_runs.make_output(tmp_path / "all")
  # Masks of other borders, as another run would have written them.
  path = study / "OUT/masks/ROI-1.tiff"
  cells = finished_runs.make_cells()
  cells[cells == 5] = 0
  cells[0, 40] = 5
  write.write_labels(path, cells)
  # And all files of another run, but for images.csv.
  table = pd.read_csv(study / "OUT/images.csv")
  table.loc[table["image"] == "ROI2.tiff", "num_cells"] = 30
  table.to_csv(study / "OUT/images.csv", index=False)
  assert convert(study, tmp_path / "to", "--format=geojson") == 1
  assert [one.name for one in (tmp_path / "to").iterdir()] == ["EMPTY.geojson"]
  lines = "\n".join(caplog.messages)
  assert f"{path}: found cells of other areas" in lines
  other = study / "OUT/masks/ROI2.tiff"
  assert f"{other}: found 24 cells, expected the 30 of" in lines


def test_elements_have_names_that_spatialdata_allows():
  found = spatial_data.name_elements(["a 1", "a_1", "__é", "b"])
  assert found == {"a 1": "a_1", "a_1": "a_1_2", "__é": "image", "b": "b"}


@pytest.mark.parametrize("has_panel", [True, False])
def test_two_channels_are_read_as_the_run_read_them(tmp_path, has_panel):
  """A panel may have membrane first, of a file without names."""
  stack = np.zeros((2, 20, 20), np.uint16)
  stack[0], stack[1, 5:15, 5:15] = 1, 9
  (tmp_path / "img").mkdir()
  tifffile.imwrite(tmp_path / "img/A.tiff", stack, photometric="minisblack")
  panel = "channel,name,nuclear,membrane_cytoplasm\n1,membrane,0,1\n"
  (tmp_path / "panel.csv").write_text(panel + "2,nuclear,1,0\n")
  more = [f"--panel={tmp_path / 'panel.csv'}"] * has_panel
  output, images = tmp_path / "OUT", f"--images={tmp_path / 'img'}"
  words = ["predict", images, f"--output={output}", "--method=distance"]
  assert program.main([*words, "--num_workers=0", *more]) == 0
  converted = tmp_path / "zarr"
  words = ["convert", f"--results={output}", f"--output={converted}", images]
  assert program.main([*words, "--format=ome-zarr"]) == 0
  root = zarr.open_group(converted / "A.ome.zarr", mode="r")
  channels = root.attrs["omero"]["channels"]
  names = [channel["label"] for channel in channels]
  first = "membrane" if has_panel else "nuclear"
  assert root["0"][names.index(first)].min() == 1
