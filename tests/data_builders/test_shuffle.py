"""Parts of images, and the order that their records are written in."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_builders import parts, shuffle
from dicexmbd_jax.train import records
from tests import record_datasets

PATCH_PX = 4
SUMMARY = {"shape": (4, 4), "map_scale": 1}


def write_part(folder, name, values):
  """Writes a part with a record of each value; returns it and the records."""
  features = records.make_features(PATCH_PX)
  found = [
    record_datasets.make_record(f"{name}:{value}", value, PATCH_PX)
    for value in values
  ]
  path = folder / f"{name}{parts.SUFFIX}"
  keyed = [(record["record_id"], record) for record in found]
  parts.write_part(path, SUMMARY, parts.serialize_records(features, keyed))
  return parts.read_summary(path), found


def name_files(folder, split="train"):
  return tfds.core.ShardedFileTemplate(
    data_dir=folder,
    dataset_name="a",
    split=split,
    filetype_suffix="array_record",
  )


def read_shard(path):
  features = records.make_features(PATCH_PX)
  source = tfds.core.file_adapters.array_record_data_source
  shard = source.ArrayRecordDataSource([str(path)])
  return [features.deserialize_example_np(shard[i]) for i in range(len(shard))]


@pytest.mark.parametrize("num_shards", [1, 4])
def test_order_and_shards_are_those_of_tfds(tmp_path, num_shards):
  first, found = write_part(tmp_path, "b", range(5))
  second, more = write_part(tmp_path, "a", range(8))
  splits = {"validation": [*found, *more]}
  folder = record_datasets.write_records(
    tmp_path / "theirs", "a", PATCH_PX, splits, num_shards
  )
  wanted = tfds.builder_from_directory(folder).info.splits["validation"]
  size = 2 * wanted.num_bytes // num_shards - 1
  files = name_files(tmp_path, "validation")
  split = shuffle.write_split([first, second], files, size)
  assert split.shard_lengths == list(wanted.shard_lengths)
  assert split.num_bytes == wanted.num_bytes
  for ours, theirs in zip(split.filepaths, wanted.filepaths, strict=True):
    assert ours.name == theirs.name
    np.testing.assert_equal(read_shard(ours), read_shard(theirs))


def test_two_records_of_one_id_are_refused(tmp_path):
  part, _ = write_part(tmp_path, "a", range(2))
  with pytest.raises(ValueError, match="train: found two records of one id"):
    shuffle.write_split([part, part], name_files(tmp_path), 1 << 20)


@pytest.mark.parametrize(
  ("num_bytes", "num_records", "wanted"),
  [(0, 0, 1), (127, 9, 1), (128, 9, 2), (300, 9, 4), (1200, 99, 16)]
  + [(1200, 1, 1), (1200, 9, 8)],
)
def test_shards_stay_below_their_size(num_bytes, num_records, wanted):
  assert shuffle.count_shards(num_bytes, num_records, 128) == wanted


def test_a_part_gives_back_what_was_written(tmp_path):
  part, found = write_part(tmp_path, "a", range(3))
  path = str(tmp_path / "a.part")
  assert part == parts.Part(path, 3, (4, 4), 1, is_old=True)
  keys, examples = zip(*parts.read_examples(part, PATCH_PX), strict=True)
  assert list(keys) == ["a:0", "a:1", "a:2"]
  for record, example in zip(found, examples, strict=True):
    assert not records.check_record(example)
    np.testing.assert_array_equal(record["image"], example["image"])
  again = parts.serialize_records(
    records.make_features(PATCH_PX), parts.read_examples(part, PATCH_PX)
  )
  stored = [parts.read_record(at) for _, at in parts.locate_records(part)]
  assert [data for _, data in again] == stored  # As a pipeline does.


@pytest.mark.parametrize("damage", ["empty", "short", "headless", "changed"])
def test_a_broken_part_is_none(tmp_path, damage):
  write_part(tmp_path, "a", range(3))
  path = tmp_path / "a.part"
  data = path.read_bytes()
  changed = data[:99] + bytes([data[99] ^ 1]) + data[100:]
  path.write_bytes(
    {
      "empty": b"",
      "short": data[:-1],
      "headless": data[-20:],
      "changed": changed,
    }[damage]
  )
  assert parts.read_summary(path) is None
  assert parts.read_summary(tmp_path / "none.part") is None
