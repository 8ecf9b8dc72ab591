"""Folders in buckets: what is copied, in which order, and what is refused."""

import re
import shutil
import sys

import fake_buckets
import numpy as np
import pytest
import record_datasets
from test_checkpoints import SHAPES, make_state

from configs import default
from dicexmbd_jax import compiled
from dicexmbd_jax.train import (
  buckets,
  checkpoints,
  dataset,
  input_pipeline,
  workdir,
)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
  monkeypatch.setenv(compiled.VARIABLE, str(tmp_path / "cache"))
  buckets.fetch_dataset.cache_clear()
  yield fake_buckets.use_buckets(monkeypatch)
  buckets.fetch_dataset.cache_clear()


def put_records(bucket, folder, place):
  path = record_datasets.write_dataset(folder, train=6, validation=2)
  bucket.put(str(path), place, recursive=True)
  return path


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_records_are_copied_once_and_are_those_of_the_bucket(
  bucket, tmp_path, scheme, monkeypatch
):
  path = put_records(bucket, tmp_path / "records", "/b/records/a")
  address = f"{scheme}://b/records"
  assert dataset.hash_dataset(address) == dataset.hash_dataset(str(path))
  found, wanted = (
    next(
      input_pipeline.make_batches(
        [input_pipeline.Source(place, 1.0)], "train", batch_size=4, seed=3
      )
    )
    for place in (address, str(path))
  )
  assert found["record_id"] == wanted["record_id"]
  np.testing.assert_array_equal(found["image"], wanted["image"])
  buckets.fetch_dataset.cache_clear()  # As in another process.
  monkeypatch.setattr(buckets.Folder, "download", None)
  assert dataset.count_split(address, "train") == 6


def test_records_that_were_built_anew_are_copied_anew(bucket, tmp_path):
  put_records(bucket, tmp_path / "a", "/b/records")
  assert dataset.count_split("gs://b/records", "train") == 6
  path = record_datasets.write_dataset(tmp_path / "b", train=7, validation=2)
  bucket.rm("/b/records", recursive=True)
  bucket.put(str(path), "/b/records", recursive=True)
  buckets.fetch_dataset.cache_clear()
  assert dataset.count_split("gs://b/records", "train") == 7


def test_another_process_may_have_copied_meanwhile(
  bucket, tmp_path, monkeypatch
):
  put_records(bucket, tmp_path / "records", "/b/records")
  real = buckets.Folder.download

  def download(folder, names):
    real(folder, names)
    [made] = {path.parent for path in names.values()}
    shutil.copytree(made, made.with_name(made.name.split(".")[1]))

  monkeypatch.setattr(buckets.Folder, "download", download)
  assert dataset.count_split("gs://b/records", "train") == 6
  [left] = (tmp_path / "cache/records").iterdir()
  assert left == buckets.fetch_dataset("gs://b/records", dataset.INFO_FILE)


def test_records_that_cannot_be_had_are_one_line(bucket, tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=r"^gs://b/none: found no dataset_info"):
    dataset.count_split("gs://b/none", "train")
  put_records(bucket, tmp_path / "records", "/b/records")
  disk = buckets.shutil.disk_usage(tmp_path)._replace(free=5)
  monkeypatch.setattr(buckets.shutil, "disk_usage", lambda path: disk)
  with pytest.raises(ValueError, match=r"^gs://b/records: found .* GB of rec"):
    dataset.count_split("gs://b/records", "train")
  with pytest.raises(OSError, match=r"^what://b: found .* expected an address"):
    dataset.count_split("what://b", "train")


def write(folder, files):
  for name, text in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(bucket, place):
  found = bucket.find(place)
  return {name.removeprefix(f"{place}/"): bucket.cat(name) for name in found}


def test_a_run_finds_in_its_bucket_what_it_goes_on_from(bucket):
  first = workdir.open_workdir("s3://b/run")
  assert not first.has_checkpoints()
  files = {"metrics.csv": "1", "last/params.npz": "2", "strips/1.png": "3"}
  write(first.folder, files | {"checkpoints/1/a": "4", ".x.12345678.tmp": "5"})
  first.close()
  assert not first.folder.exists()
  assert set(read(bucket, "/b/run")) == {*files, "checkpoints/1/a"}
  again = workdir.open_workdir("s3://b/run/")
  assert again.has_checkpoints()
  found = {
    path.relative_to(again.folder).as_posix()
    for path in again.folder.rglob("*.*")
  }
  assert found == {"metrics.csv", "last/params.npz"}
  assert (again.folder / "checkpoints/1/a").read_text() == "4"
  (again.folder / "checkpoints/1/a").unlink()
  write(again.folder, {"metrics.csv": "6"})
  again.close()
  files["metrics.csv"] = "6"
  assert read(bucket, "/b/run") == {
    name: text.encode() for name, text in files.items()
  }


def test_only_what_has_changed_is_copied_and_no_model_is_half_new(
  bucket, monkeypatch
):
  run = workdir.open_workdir("gs://b/run")
  model = {"last/params.npz": "a", "last/config.json": "b"}
  write(run.folder, model | {"last/validation.json": "c"})
  run.push()
  done = []
  for name in ("put_file", "rm_file"):
    real = getattr(bucket, name)

    def record(*paths, name=name, real=real):
      done.append(f"{name} {paths[-1].rpartition('/')[2]}")
      real(*paths)

    monkeypatch.setattr(fake_buckets.Bucket, name, staticmethod(record))
  write(run.folder, {"last/params.npz": "d", "last/validation.json": "e"})
  run.push()
  run.push()
  assert done == [
    "rm_file validation.json",
    "put_file params.npz",
    "put_file validation.json",
  ]
  run.close()


def test_what_is_reported_often_is_copied_once_a_minute(bucket, monkeypatch):
  run = workdir.open_workdir("gs://b/run")
  write(run.folder, {"metrics.csv": "1"})
  run.push_sometimes()
  assert not bucket.exists("/b/run/metrics.csv")
  monkeypatch.setattr(workdir, "_PUSH_S", -1.0)
  run.push_sometimes()
  assert bucket.exists("/b/run/metrics.csv")
  run.close()


def test_buckets_that_refuse_are_one_line(bucket, monkeypatch):
  def refuse(*_, **__):
    raise RuntimeError("403\n Forbidden")

  monkeypatch.setattr(fake_buckets.Bucket, "pipe_file", refuse)
  wanted = (
    "gs://b/run: found RuntimeError: 403 Forbidden, expected a bucket that can "
    "be written to"
  )
  with pytest.raises(OSError, match=f"^{re.escape(wanted)}$"):
    workdir.open_workdir("gs://b/run")
  monkeypatch.setattr(workdir.jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="found 2 processes, expected one"):
    workdir.open_workdir("s3://b/run")


@pytest.mark.parametrize(
  ("scheme", "package"), [("gs", "gcsfs"), ("s3", "s3fs")]
)
def test_a_missing_package_names_the_extra(scheme, package, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  wanted = (
    f"{scheme}://bucket/a: found no package {package}, expected the extra "
    "remote: pip install 'dicexmbd-jax[remote]'"
  )
  for read in (workdir.open_workdir, dataset.open_dataset):
    with pytest.raises(OSError, match=f"^{re.escape(wanted)}$"):
      read(f"{scheme}://bucket/a")


def test_checkpoints_are_in_googles_bucket_without_a_copy(
  bucket, monkeypatch, caplog
):
  config = default.get_config()

  def open_checkpoints():
    return checkpoints.Checkpoints("gs://bucket/run/checkpoints", 1)

  def list_steps():
    return sorted(found.rpartition("/")[2] for found in bucket.ls(place, False))

  place = "/bucket/run/checkpoints"
  with fake_buckets.serve_buckets(monkeypatch):
    saved = open_checkpoints()
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.0)):
      saved.save(step, make_state(step), config, loss)
    saved.close()
    assert list_steps() == ["2", "4"]
    for name in bucket.find(f"{place}/4/state"):
      if "/d/" in name:
        bucket.pipe_file(name, b"broken")
    again = open_checkpoints()
    state = again.restore(SHAPES, config)
    assert int(state["step"]) == 2
    assert "4: found a damaged checkpoint" in caplog.text
    assert bucket.exists("/bucket/run/broken_checkpoints/4/commit_success.txt")
    again.save(4, make_state(4), config, 2.0)
    again.close()
    assert list_steps() == ["2", "4"]
