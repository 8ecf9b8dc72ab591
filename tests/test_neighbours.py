"""The code of docs/neighbours.md runs, where its library is installed."""

import pathlib
import re

import pytest

from dicexmbd_jax import __main__ as program
from tests import finished_runs

PAGE = pathlib.Path(__file__).parents[1] / "docs/neighbours.md"
BLOCKS = dict(re.findall(r"```python (\w+)\n(.*?)```", PAGE.read_text(), re.S))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  return finished_runs.make_output(tmp_path_factory.mktemp("study"))


def convert(study, output, kind):
  return program.main([
    "convert", f"--results={study / 'OUT'}", f"--images={study / 'study'}",
    f"--output={study / output}", f"--format={kind}", "--overwrite",
  ])  # fmt: skip


def test_every_neighbour_has_its_code():
  known = {"squidpy", "spatialdata", "spatialdata_io", "json", "zarr"}
  assert set(BLOCKS) == known


@pytest.mark.parametrize("library", BLOCKS)
def test_code_runs(study, monkeypatch, library):
  pytest.importorskip(library)
  monkeypatch.setenv("MPLBACKEND", "agg")
  formats = {
    "spatialdata": ("study.zarr", "spatialdata"),
    "spatialdata_io": ("PROJECT", "steinbock"),
    "json": ("GEOJSON", "geojson"),
    "zarr": ("ZARR", "ome-zarr"),
  }
  if library in formats:
    assert convert(study, *formats[library]) == 0
  monkeypatch.chdir(study)
  values = {}
  exec(BLOCKS[library], values)
  if library == "squidpy":
    cells = values["cells"]
    names = cells.obs["Image"].to_numpy()
    row, column = cells.obsp["spatial_connectivities"].nonzero()
    assert len(row)
    assert (names[row] == names[column]).all()
  if library == "spatialdata_io":
    assert len(values["study"]["table"]) == 48
  if library == "spatialdata":
    assert values["areas"].loc[2] == 36
    assert 0 < len(values["inside"]["table"]) < 24
  if library == "json":
    assert len(values["cells"]) == 24
  if library == "zarr":
    assert values["names"] == list(finished_runs.NAMES)
