"""The builder as TFDS calls it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from data_builders import build, jobs
from data_builders.imc_patches import imc_patches_dataset_builder
from tests.conftest import REAL_DATA
from tests.data_builders import studies

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def request_file(tmp_path_factory):
  """A request for `tfds build`, of a tiny study."""
  folder = studies.write_study(tmp_path_factory.mktemp("study"))
  request = {
    "images": str(folder / "img"),
    "teacher": str(folder / "truth"),
    "panel": str(folder / "panel.csv"),
    "num_workers": 0,
    "overrides": {"records.patch_px": 16},
  }
  path = folder / "request.json"
  path.write_text(json.dumps(request))
  return path


def read_ids(folder):
  builder = tfds.builder_from_directory(folder)
  return {
    split: [raw["record_id"] for raw in builder.as_data_source(split)]
    for split in builder.info.splits
  }


def test_tfds_build_writes_the_same_records(request_file, tmp_path):
  words = [sys.executable, "-m", "data_builders.tfds", "build"]
  subprocess.run(
    [*words, "data_builders/imc_patches", f"--data_dir={tmp_path / 'tfds'}"],
    cwd=ROOT,
    env={
      **os.environ,
      "PYTHONPATH": str(ROOT),
      imc_patches_dataset_builder.VARIABLE: str(request_file),
    },
    check=True,
    capture_output=True,
  )
  request = jobs.read_request(request_file)
  assert build.build_dataset(request, tmp_path / "ours", overwrite=False) == 0
  found = read_ids(tmp_path / "tfds/imc_patches/1.0.0")
  assert sum(map(len, found.values())) == 8
  assert found == read_ids(tmp_path / "ours/imc_patches/1.0.0")
  assert not (tmp_path / "tfds/.parts").exists()


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("{", "a build's request as JSON"),
    ("[]", "no table of values"),
    ('{"teacher": "a"}', "found no images"),
    ('{"images": "a", "color": 1}', "found 'color'"),
  ],
)
def test_a_wrong_request_is_named(tmp_path, text, words):
  path = tmp_path / "request.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=words):
    jobs.read_request(path)


def test_without_a_request_there_is_nothing_to_build(tmp_path, monkeypatch):
  monkeypatch.delenv(imc_patches_dataset_builder.VARIABLE, raising=False)
  with pytest.raises(ValueError, match="DICEXMBD_RECORDS=FILE.json"):
    imc_patches_dataset_builder.Builder(data_dir=tmp_path)


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no data at {REAL_DATA}")
def test_real_maps_of_ilastik_are_read(tmp_path):
  folder = REAL_DATA / "imc_testdata"
  request = jobs.Request(
    images=str(folder / "img"),
    teacher=str(folder / "ilastik_probabilities"),
    panel=str(folder / "panel.csv"),
    num_workers=0,
    config=jobs.make_config(None, {"records.patch_px": 64}),
  )
  assert build.build_dataset(request, tmp_path, overwrite=False) == 0
  assert build.main(["--verify", f"--output={tmp_path}"]) == 0
