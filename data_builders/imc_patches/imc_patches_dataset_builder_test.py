"""The builder as TFDS calls it."""

import pytest
import tensorflow_datasets as tfds

from data_builders import build, jobs
from data_builders.imc_patches import imc_patches_dataset_builder
from tests.conftest import REAL_DATA
from tests.data_builders import studies


def read_ids(folder):
  builder = tfds.builder_from_directory(folder)
  return {
    split: [raw["record_id"] for raw in builder.as_data_source(split)]
    for split in builder.info.splits
  }


def test_tfds_builds_the_same_records(tmp_path):
  folder = studies.write_study(tmp_path / "study")
  request = jobs.Request(
    images=str(folder / "img"),
    teacher=str(folder / "truth"),
    panel=str(folder / "panel.csv"),
    num_workers=0,
    config=jobs.make_config(None, {"records.patch_px": 16}),
  )
  builder = imc_patches_dataset_builder.Builder(
    request=request, data_dir=str(tmp_path / "tfds")
  )
  builder.download_and_prepare()
  assert build.build_dataset(request, tmp_path / "ours", overwrite=False) == 0
  found = read_ids(tmp_path / "tfds/imc_patches/1.0.0")
  assert sum(map(len, found.values())) == 8
  assert found == read_ids(tmp_path / "ours/imc_patches/1.0.0")
  assert not (tmp_path / "tfds/.parts").exists()


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
