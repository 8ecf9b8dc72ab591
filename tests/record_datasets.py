"""Writes tiny record datasets: patches of one value each, so that tests see
which record they got."""

import hashlib
import pathlib

import numpy as np
import tensorflow_datasets as tfds


def make_features(patch_px):
  def tensor(channels, dtype):
    return tfds.features.Tensor(
      shape=(patch_px, patch_px, channels), dtype=dtype, encoding="bytes"
    )

  text = {
    name: tfds.features.Text()
    for name in (
      "record_id",
      "source",
      "group",
      "image_sha256",
      "target_sha256",
      "config_sha256",
    )
  }
  return tfds.features.FeaturesDict(
    {
      "image": tensor(2, np.float32),
      "target": tensor(3, np.uint16),
      "valid": tensor(1, np.uint8),
      "origin": tfds.features.Tensor(shape=(2,), dtype=np.int32),
      "scale": np.float32,
      "schema": np.int32,
      **text,
    }
  )


def make_record(name, value, patch_px):
  """A record whose image is `value` everywhere, in the schema's types."""
  shape = (patch_px, patch_px)
  image = np.full((*shape, 2), value, np.float32)
  target = np.zeros((*shape, 3), np.uint16)
  target[..., value % 3] = 65535
  valid = np.ones((*shape, 1), np.uint8)
  valid[-1] = 0
  digest = hashlib.sha256(image.tobytes()).hexdigest()
  return {
    "image": image,
    "target": target,
    "valid": valid,
    "record_id": name,
    "source": f"{name}.tiff",
    "group": name,
    "origin": np.zeros(2, np.int32),
    "scale": np.float32(1),
    "image_sha256": digest,
    "target_sha256": digest,
    "config_sha256": digest,
    "schema": np.int32(1),
  }


class PlainRecords(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes records as they are; `splits` are lists of them by name."""

  VERSION = tfds.core.Version("1.0.0")

  def __init__(self, name, patch_px, splits, **kwargs):
    self.name = name
    self.patch_px = patch_px
    self.splits = splits
    super().__init__(**kwargs)

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self, features=make_features(self.patch_px)
    )

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(records)
      for split, records in self.splits.items()
      if records
    }

  def _generate_examples(self, records):
    for record in records:
      yield record["record_id"], record


def write_records(folder, name, patch_px, splits, num_shards=2):
  """Writes lists of records by split; returns the TFDS folder."""
  tfds.disable_progress_bar()
  builder = PlainRecords(
    name, patch_px, splits, data_dir=folder, file_format="array_record"
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=num_shards)
  )
  return pathlib.Path(builder.data_dir)


def write_dataset(folder, name="a", patch_px=4, num_shards=2, **num_records):
  """Writes a dataset of plain records; returns its TFDS folder.

  Keyword arguments give the number of records: train=11, validation=5. Their
  ids are "NAME-SPLIT-NUMBER", and the number is the image's value.
  """
  splits = {
    split: [
      make_record(f"{name}-{split}-{value}", value, patch_px)
      for value in range(number)
    ]
    for split, number in num_records.items()
  }
  return write_records(folder, name, patch_px, splits, num_shards)
