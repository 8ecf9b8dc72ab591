"""Opening datasets: whole, in a folder above, broken in six ways."""

import shutil

import numpy as np
import pytest
import record_datasets

from dicexmbd_jax.train import dataset, records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return record_datasets.write_dataset(
    tmp_path_factory.mktemp("a"), train=5, validation=2
  )


def test_records_are_read_by_position(folder):
  opened = dataset.Records(str(folder), "train")
  assert len(opened) == 5
  assert opened.patch_px == 4
  names = {opened[i]["record_id"] for i in range(5)}
  assert names == {f"a-train-{i}" for i in range(5)}


def test_a_split_without_records_is_empty(folder):
  assert len(dataset.Records(str(folder), "test")) == 0
  assert dataset.count_split(str(folder), "test") == 0
  assert dataset.count_split(str(folder), "validation") == 2


def test_the_folder_above_a_dataset_will_do(folder):
  assert dataset.count_split(str(folder.parent.parent), "train") == 5


def test_two_datasets_below_a_folder_are_named(folder, tmp_path):
  for name in ("one", "two"):
    shutil.copytree(folder, tmp_path / name / "1.0.0")
  with pytest.raises(ValueError, match="one/1.0.0, .*two/1.0.0; expected one"):
    dataset.open_dataset(str(tmp_path))


def test_records_of_a_newer_program_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(records, "SCHEMA_VERSION", records.SCHEMA_VERSION + 1)
  folder = record_datasets.write_dataset(tmp_path, train=2)
  monkeypatch.undo()
  with pytest.raises(ValueError, match="newer version"):
    dataset.Records(str(folder), "train")[0]


def break_info(folder):
  (folder / "dataset_info.json").write_text("{")


def break_features(folder):
  (folder / "features.json").unlink()


def remove_info(folder):
  (folder / "dataset_info.json").unlink()


def remove_shard(folder):
  next(folder.glob("*train*")).unlink()


def cut_shard(folder):
  for shard in folder.glob("*train*"):
    shard.write_bytes(shard.read_bytes()[:100])


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (break_info, "cannot be read as a dataset"),
    (break_features, "cannot be read as a dataset"),
    (remove_info, "expected one dataset"),
    (remove_shard, "1 of 2 shards of 'train' are missing"),
    (cut_shard, "cannot be read"),
    (shutil.rmtree, "no such folder"),
  ],
)
def test_broken_datasets_cost_one_line(folder, tmp_path, damage, message):
  copy = shutil.copytree(folder, tmp_path / "copy")
  damage(copy)
  with pytest.raises(ValueError, match=message) as error:
    dataset.Records(str(copy), "train")[0]
  assert str(copy) in str(error.value)
  assert "\n" not in str(error.value)


def test_a_dataset_is_the_same_wherever_it_lies(tmp_path):
  first = record_datasets.write_dataset(tmp_path / "a", train=5, validation=2)
  found = dataset.hash_dataset(str(first))
  moved = tmp_path / "moved"
  first.rename(moved)
  (moved / "notes.txt").write_text("no record")
  assert dataset.hash_dataset(str(moved)) == found
  again = record_datasets.write_dataset(tmp_path / "b", train=5, validation=2)
  assert dataset.hash_dataset(str(again.parent)) == found
  shard = next(moved.glob("*.array_record*"))
  data = bytearray(shard.read_bytes())
  data[len(data) // 2] ^= 1
  shard.write_bytes(data)
  assert dataset.hash_dataset(str(moved)) != found
  other = record_datasets.write_dataset(tmp_path / "c", train=6, validation=2)
  assert dataset.hash_dataset(str(other)) != found


def test_a_small_dataset_is_written_and_read(tmp_path):
  record = {
    "image": np.full((4, 4, 2), 7.0),
    "target": np.zeros((4, 4, 3)),
    "valid": np.ones((4, 4, 1)),
    "known": np.zeros((4, 4, 3)),
    "record_id": "a:0:0",
    "origin": (0, 0),
    "scale": 1.0,
  }
  examples = [records.encode_record(record)] * 3
  dataset.write_dataset(tmp_path / "own", {"train": examples}, 4, "Own.")
  opened = dataset.Records(str(tmp_path / "own"), "train")
  assert (len(opened), opened.patch_px) == (3, 4)
  assert opened[2]["image"].max() == 7
  assert not opened[2]["known"].any()
  assert dataset.count_split(str(tmp_path / "own"), "validation") == 0
