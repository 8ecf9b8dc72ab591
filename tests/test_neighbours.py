"""The code of docs/neighbours/*.md runs, where its library is installed.

Beside it, what R and QuPath read is held to the steps that these take.
"""

import importlib.util
import json
import math
import os
import pathlib
import re
import shlex
import uuid

import numpy as np
import pandas as pd
import pytest

from dicexmbd_jax import __main__ as program
from tests import finished_runs

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs/neighbours"
MANIFEST = ROOT / "dicexmbd_jax/viewer/napari.yaml"
PAGES = ("imcrtools", "napari", "qupath", "spatialdata", "squidpy")
# Language, the library that is needed, the code.
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.M | re.S)
# launch/neighbours.sh sets it: nothing is left out.
HAS_ALL = "DICEXMBD_ALL_NEIGHBOURS" in os.environ


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  return finished_runs.make_output(tmp_path_factory.mktemp("study"))


@pytest.fixture
def run_page(study, monkeypatch):
  """Gives a function that runs a page's code; it returns the names."""
  monkeypatch.chdir(study)
  monkeypatch.setenv("MPLBACKEND", "agg")
  monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
  monkeypatch.setenv("NAPARI_CONFIG", "")

  def run(page):
    values = {}
    for language, library, code in BLOCK.findall(
      (FOLDER / f"{page}.md").read_text()
    ):
      if not is_there(library, monkeypatch):
        continue
      if language == "bash":
        assert program.main(read_call(code)) == 0
      if language == "python":
        exec(compile(code, f"{page}.md", "exec"), values)
    return values

  return run


def read_call(code):
  words = shlex.split(code.replace("\\\n", " "))
  assert words[:3] == ["python", "-m", "dicexmbd_jax"]
  return [*words[3:], "--overwrite"]


def is_there(library, monkeypatch):
  """Tells whether a library can be imported; prepares napari."""
  if library and not HAS_ALL and not importlib.util.find_spec(library):
    return False
  if library == "napari":
    prepare_napari(monkeypatch)
  return True


def prepare_napari(monkeypatch):
  """Does what napari's window does at its start, and leaves the window out.

  Its canvas needs OpenGL, which few machines without a screen have.
  """
  npe2 = pytest.importorskip("npe2")
  components = pytest.importorskip("napari.components")
  monkeypatch.setattr("napari.Viewer", components.ViewerModel)
  plugins = npe2.PluginManager.instance()
  plugins.discover()
  manifest = npe2.PluginManifest.from_file(MANIFEST)
  if manifest.name not in {one.name for one in plugins.iter_manifests()}:
    plugins.register(manifest)  # Run from a checkout that is not installed.


def test_every_page_is_known_and_has_code():
  assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(PAGES)
  for page in PAGES:
    found = {
      one[0] for one in BLOCK.findall((FOLDER / f"{page}.md").read_text())
    }
    assert found & {"python", "bash"}


def test_squidpy(run_page):
  values = run_page("squidpy")
  assert dict(values["counts"]) == {
    "EMPTY.tiff": 0, "ROI-1.tiff": 24, "ROI2.tiff": 24
  }  # fmt: skip
  cells = values["cells"]
  assert set(cells.obs["kind"]) == {"CD45+", "CD45-"}
  names = cells.obs["Image"].to_numpy()
  row, column = cells.obsp["spatial_connectivities"].nonzero()
  assert len(row)
  assert (names[row] == names[column]).all()
  if "squidpy" in values:
    assert cells.uns["kind_nhood_enrichment"]["zscore"].shape == (2, 2)


def test_spatialdata(run_page):
  values = run_page("spatialdata")
  if "study" in values:
    assert values["areas"].loc[2] == 36
    assert len(values["table"]) == 48
    assert 0 < len(values["inside"]["table"]) < 24
    assert "EMPTY_cells" in values["study"]
  if "project" in values:
    assert len(values["project"]["table"]) == 48
    names = [name for _, name, _ in values["project"].gen_elements()]
    assert not [name for name in names if "EMPTY" in name]
  if not values:
    pytest.skip("neither spatialdata nor spatialdata_io is installed")


def test_napari(run_page):
  values = run_page("napari")
  assert values["channels"] == list(finished_runs.NAMES)
  assert values["cells"].shape == values["image"].shape[1:] == (40, 60)
  if "names" in values:
    assert "cells" in " ".join(values["names"])
    layer = values["layer"]
    assert layer.features["area"].to_list()[1] == 36
  if "viewer" in values and HAS_ALL:
    layers = {one.name: one for one in values["viewer"].layers}
    for name in ("ROI2: DNA1", "ROI2: CD45", "labels/labels/cells"):
      assert layers[name].scale.tolist() == [finished_runs.PIXEL_UM] * 2


def test_qupath(run_page, study):
  values = run_page("qupath")
  assert values["mean"] > 0
  size = finished_runs.make_cells().shape
  for stem, num_cells in (("EMPTY", 0), ("ROI-1", 24), ("ROI2", 24)):
    path = study / f"GEOJSON/{stem}.geojson"
    whole = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert whole["type"] == "FeatureCollection"
    assert len(whole["features"]) == num_cells
    for feature in whole["features"]:
      check_cell_object(feature, size)


def check_cell_object(feature, size_px):
  """Asserts what QuPath's reader of GeoJSON asks of a cell object."""
  assert feature["type"] == "Feature"
  assert str(uuid.UUID(feature["id"])) == feature["id"]
  properties = feature["properties"]
  assert properties["objectType"] == "cell"
  assert isinstance(properties["name"], str)
  for name, value in properties["measurements"].items():
    assert isinstance(name, str)
    assert isinstance(value, float) and math.isfinite(value)
  for key in ("geometry", "nucleusGeometry"):
    if key in feature:
      check_geometry(feature[key], size_px)
  assert "geometry" in feature


def check_geometry(geometry, size_px):
  """Asserts GeoJSON's rules of polygons: closed rings inside the image."""
  polygons = geometry["coordinates"]
  if geometry["type"] == "Polygon":
    polygons = [polygons]
  else:
    assert geometry["type"] == "MultiPolygon"
  for polygon in polygons:
    areas = []
    for ring in polygon:
      assert len(ring) >= 4
      assert ring[0] == ring[-1]
      x, y = np.array(ring).T
      assert 0 <= x.min() < x.max() <= size_px[1]
      assert 0 <= y.min() < y.max() <= size_px[0]
      areas.append(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)
    # Holes turn the other way round.
    assert all(area * areas[0] < 0 for area in areas[1:])
    assert sum(areas) * np.sign(areas[0]) > 0


def test_imcrtools(run_page, study):
  run_page("imcrtools")
  found = read_steinbock(study / "PROJECT")
  cells = found["cells"]
  assert list(found["counts"]) == list(finished_runs.NAMES)
  assert list(cells["sample_id"]) == ["ROI-1"] * 24 + ["ROI2"] * 24
  assert cells.notna().all().all()
  assert set(cells["width_px"]) == {60}
  first = cells[(cells["sample_id"] == "ROI2") & (cells["ObjectNumber"] == 2)]
  assert first[["Pos_X", "Pos_Y"]].to_numpy().tolist() == [[12.5, 2.5]]
  graph = found["graph"]
  assert len(graph)
  names = cells["sample_id"].to_numpy()
  assert (names[graph[:, 0]] == names[graph[:, 1]]).all()
  assert list(found["panel"]["name"]) == list(finished_runs.NAMES)
  # Of images without cells there is nothing that it would stop at.
  assert not list((study / "PROJECT").glob("[inr]*/EMPTY.csv"))
  assert "EMPTY.tiff" in list(found["images"]["image"])


def read_steinbock(project):
  """Does what imcRtools::read_steinbock does with its default arguments.

  Each image begins with its intensities; a file of another folder that does not
  fit leaves values that are missing.
  """
  parts, edges, counts, start = [], [], [], 0
  images = pd.read_csv(project / "images.csv")
  for path in sorted((project / "intensities").iterdir()):
    table = pd.read_csv(path)
    name = re.sub(r"\.[^.]*$", "", path.name)
    counts.append(table.drop(columns="Object"))
    number = table["Object"]
    regions = pd.read_csv(find_file(project / "regionprops", name))
    regions = regions.set_index("Object").reindex(number).reset_index(drop=True)
    places = ["centroid-1", "centroid-0"]
    parts.append(
      pd.DataFrame({"sample_id": name, "ObjectNumber": number}).assign(
        Pos_X=regions[places[0]],
        Pos_Y=regions[places[1]],
        **regions.drop(columns=places),
      )
    )
    pairs = pd.read_csv(find_file(project / "neighbors", name)).iloc[:, :2]
    matched = pd.Index(number).get_indexer_for(pairs.to_numpy().ravel())
    assert (matched >= 0).all()
    edges.append(matched.reshape(-1, 2) + start)
    start += len(table)
  # cbind wants the same columns of all.
  assert len({tuple(one.columns) for one in counts}) == 1
  assert len({tuple(one.columns) for one in parts}) == 1
  images["sample_id"] = images["image"].str.replace(r"\.[^.]*$", "", regex=True)
  sizes = images[["sample_id", "width_px", "height_px"]]
  panel = pd.read_csv(project / "panel.csv").set_index("name", drop=False)
  markers = pd.concat(counts)
  return {
    "counts": markers,
    "cells": pd.concat(parts).merge(sizes, on="sample_id", how="left"),
    "graph": np.concatenate(edges),
    "panel": panel.loc[list(markers)],
    "images": images,
  }


def find_file(folder, name):
  """Returns the one file that R's list.files finds for an image's name."""
  [path] = [p for p in folder.iterdir() if re.search(f"^{name}.csv$", p.name)]
  return path
