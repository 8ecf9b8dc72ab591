"""Writes tiny record datasets: patches of one value each, so that tests see
which record they got."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from dicexmbd_jax.train import records


def make_record(name, value, patch_px):
  """A stored record whose image is `value`, but for a last row of padding."""
  image = np.full((patch_px, patch_px, 2), value, np.float32)
  target = np.zeros((patch_px, patch_px, 3), np.float32)
  target[..., value % 3] = 1
  valid = np.ones((patch_px, patch_px, 1), np.uint8)
  image[-1], target[-1], valid[-1] = 0, (0, 0, 1), 0
  return encode(name, image, target, valid)


def encode(name, image, target, valid):
  return records.encode_record(
    {
      "record_id": name,
      "source": f"{name}.tiff",
      "group": name,
      "origin": (0, 0),
      "scale": 1.0,
      "image": image,
      "target": target,
      "valid": valid,
    }
  )


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
      builder=self, features=records.make_features(self.patch_px)
    )

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(stored)
      for split, stored in self.splits.items()
      if stored
    }

  def _generate_examples(self, stored):
    for record in stored:
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


def draw_cells(value, patch_px):
  """Returns image, target and valid of round cells, shifted by `value`."""
  y, x = np.mgrid[:patch_px, :patch_px] + value
  distance = np.hypot(y % 12 - 5.5, x % 12 - 5.5)
  rng = np.random.default_rng(value)
  noise = rng.uniform(0, 20, (patch_px, patch_px, 2))
  levels = [200 * (distance < 3), 150 * (abs(distance - 4) < 1)]
  image = (np.stack(levels, -1) + noise).astype(np.float32)
  shares = [distance < 3, (distance >= 3) & (distance < 5), distance >= 5]
  valid = np.ones((patch_px, patch_px, 1), np.uint8)
  return image, np.stack(shares, -1).astype(np.float32), valid


def write_cells(folder, patch_px, **num_records):
  """Writes a dataset of drawn cells; as write_dataset, NAME is "cells"."""
  splits = {
    split: [
      encode(f"cells-{split}-{value}", *draw_cells(value, patch_px))
      for value in range(number)
    ]
    for split, number in num_records.items()
  }
  return write_records(folder, "cells", patch_px, splits)
