"""The same records from Apache Beam as from one machine.

Beam lives in an environment of its own: bash launch/test_beam.sh.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from data_builders import build, build_beam, generate
from dicexmbd_jax.simulate import study
from dicexmbd_jax.train import dataset

NUM_IMAGES = 5

needs_beam = pytest.mark.skipif(
  importlib.util.find_spec("apache_beam") is None,
  reason="Apache Beam is not installed; run: bash launch/test_beam.sh",
)


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
  """Simulated images with masks; the file of the third is broken off."""
  folder = tmp_path_factory.mktemp("study")
  list(study.simulate_study(folder, NUM_IMAGES, seed=0, size_px=40))
  broken = folder / "img" / "ROI003.tiff"
  broken.write_bytes(broken.read_bytes()[:200])
  return folder


def list_arguments(folder, output):
  return [
    f"--images={folder / 'img'}",
    f"--teacher={folder / 'truth' / 'masks'}",
    f"--panel={folder / 'panel.csv'}",
    f"--output={output}",
    "--config.records.patch_px=16",
    # Three images train, one validates; the broken one is alone in the test.
    "--config.records.salt=a",
    "--config.records.shares.train=0.45",
    "--config.records.shares.validation=0.25",
    "--config.records.shares.test=0.3",
  ]


@pytest.fixture(scope="module")
def single(study_folder, tmp_path_factory):
  output = tmp_path_factory.mktemp("single")
  arguments = list_arguments(study_folder, output)
  assert build.main([*arguments, "--num_workers=0"]) == 1
  return output


def read_records(output, split):
  opened = dataset.Records(str(output), split)
  found = [opened[i] for i in range(len(opened))]
  return {record["record_id"]: record for record in found}


def check_same(one, other):
  for name in ("report.csv", "failures.csv"):
    assert (one / name).read_text() == (other / name).read_text()
  for split in ("train", "validation"):
    records, others = read_records(one, split), read_records(other, split)
    assert records
    assert records.keys() == others.keys()
    for name, record in records.items():
      np.testing.assert_equal(others[name], record)


@needs_beam
@pytest.mark.parametrize(
  "words",
  [
    [],
    ["--", "--runner=DirectRunner", "--direct_num_workers=2"],
    [
      "--",
      "--direct_num_workers=2",
      "--direct_running_mode=multi_processing",
    ],
  ],
)
def test_beam_builds_the_same_records(study_folder, single, tmp_path, words):
  arguments = list_arguments(study_folder, tmp_path)
  assert build_beam.main([*arguments, *words]) == 1
  check_same(single, tmp_path)
  assert {path.name for path in tmp_path.iterdir()} >= {"build.json"}
  assert not (tmp_path / ".outcomes").exists()


@needs_beam
def test_either_builder_knows_the_others_dataset(study_folder, tmp_path):
  arguments = list_arguments(study_folder, tmp_path)
  assert build_beam.main(arguments) == 1
  shards = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*array_record*")}
  assert shards
  assert build.main(arguments) == 1
  assert build_beam.main(arguments) == 1
  assert shards == {p: p.stat().st_mtime_ns for p in shards}
  assert build.main(["--verify", f"--output={tmp_path}"]) == 0


@needs_beam
def test_finished_images_are_not_done_again(
  study_folder, single, tmp_path, monkeypatch
):
  from data_builders import beam_builder

  def stop(self, chosen):
    raise KeyboardInterrupt

  arguments = list_arguments(study_folder, tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(beam_builder.Builder, "_generate_examples", stop)
    assert build_beam.main(arguments) == 130
  made = {p: p.stat().st_mtime_ns for p in (tmp_path / ".parts").iterdir()}
  assert len(made) == NUM_IMAGES - 1
  monkeypatch.setattr(generate, "prepare_item", None)  # Must not be called.
  assert build_beam.main(arguments) == 1
  for split in ("train", "validation"):
    assert read_records(single, split).keys() == (
      read_records(tmp_path, split).keys()
    )


@needs_beam
def test_no_image_that_can_be_used_is_one_line(study_folder, tmp_path, caplog):
  images = tmp_path / "img"
  images.mkdir()
  (images / "ROI001.tiff").write_bytes(b"II*\0")
  arguments = list_arguments(study_folder, tmp_path / "output")
  arguments[0] = f"--images={images}"
  assert build_beam.main(arguments) == 2
  assert "found no image that can be used" in caplog.text


def test_without_beam_one_line_says_what_to_do(monkeypatch, caplog):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  assert build_beam.main(["--output=a"]) == 2
  assert "pip install '.[beam]'" in caplog.text
  assert not pathlib.Path("a").exists()
