"""Built datasets on disk: opened, counted, read record by record."""

import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from dicexmbd_jax.train import buckets, records

SPLITS = ("train", "validation", "test")
INFO_FILE = "dataset_info.json"
_MAX_SHARD = 1 << 20  # Records: one shard holds all of a small dataset.
_HEAD_BYTES = 1 << 18  # Of a shard; its records begin after 1 << 16.


class Records:
  """The records of one split of one dataset, as they are stored."""

  def __init__(self, path: str, split: str):
    """Opens the split; reads no record.

    Raises:
      ValueError: no such dataset, a broken one, or shards that are missing.
    """
    self.path, self.split = path, split
    dataset = open_dataset(path)
    self.patch_px = _read_patch_px(path, dataset.info)
    self._length = _count(dataset.info, split)
    self._source = _open_split(path, dataset, split) if self._length else ()

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, position) -> dict[str, Any]:
    try:
      raw = self._source[position]
    except Exception as error:  # array_record and TFDS each have their own.
      raise ValueError(
        f"{self.path}: record {position} of {self.split!r} cannot be read "
        f"({_first_line(error)}); expected a whole dataset, build it again"
      ) from error
    return records.complete_record(raw)


def write_dataset(
  folder: pathlib.Path,
  splits: Mapping[str, Iterable[Mapping[str, Any]]],
  patch_px: int,
  description: str,
) -> None:
  """Writes a small dataset in one process, one shard a split.

  Args:
    folder: of the dataset; made if missing, and written over.
    splits: what records.encode_record gives, by split.
    patch_px: edge of the patches.
    description: one line.

  Raises:
    OSError: the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  identity = tfds.core.dataset_info.DatasetIdentity(
    name="patches",
    version=tfds.core.Version("1.0.0"),
    data_dir=str(folder),
    module_name=__name__,
  )
  info = tfds.core.DatasetInfo(
    builder=identity,
    description=description,
    features=records.make_features(patch_px),
    disable_shuffling=True,
  )
  info.set_file_format("array_record")
  writer = tfds.core.SequentialWriter(
    info, _MAX_SHARD, file_format="array_record"
  )
  writer.initialize_splits(list(splits))
  for split, examples in splits.items():
    for example in examples:
      writer.add_examples({split: [example]})
  writer.close_all()


def open_dataset(path: str) -> tfds.core.DatasetBuilder:
  """Opens a built dataset without its builder's code.

  Args:
    path: its folder, or one above it that holds no other dataset; or an address
      of such a folder in a bucket, from where it is copied first.

  Raises:
    ValueError: nothing, several or something unreadable is there.
  """
  folder = _find_dataset(path)
  try:
    return tfds.builder_from_directory(folder)
  except Exception as error:  # Protocol buffers, JSON and TFDS raise their own.
    raise ValueError(
      f"{folder}: cannot be read as a dataset ({_first_line(error)}); "
      "expected what data_builders.build writes"
    ) from error


def count_split(path: str, split: str) -> int:
  """Returns the number of records of a split, reading none.

  A split that the dataset does not have counts as empty.

  Raises:
    ValueError: no such dataset, a broken one, or a split of another name.
  """
  return _count(open_dataset(path).info, split)


def hash_dataset(path: str) -> str:
  """Returns a name of a dataset's records, the same wherever these lie.

  Of the shards' names, sizes and beginnings: reading them whole takes minutes.

  Raises:
    ValueError: no such dataset, or a broken one.
    OSError: a shard cannot be read.
  """
  info = open_dataset(path).info
  shards = [
    tfds.core.Path(file)
    for split in info.splits.values()
    for file in split.filepaths
  ]
  digest = hashlib.sha256((_find_dataset(path) / INFO_FILE).read_bytes())
  for shard in sorted(shards, key=lambda shard: shard.name):
    with shard.open("rb") as file:
      head = file.read(_HEAD_BYTES)
    size = shard.stat().length
    digest.update(f"{shard.name}:{size}:{len(head)}:".encode() + head)
  return digest.hexdigest()


def _find_dataset(path: str):
  if buckets.is_address(path):
    return tfds.core.Path(buckets.fetch_dataset(path, INFO_FILE))
  folder = tfds.core.Path(path)
  if not folder.is_dir():
    raise ValueError(
      f"{path}: no such folder; expected a dataset ({INFO_FILE} and shards)"
    )
  if (folder / INFO_FILE).exists():
    return folder
  # TFDS puts datasets into NAME/VERSION or NAME/CONFIG/VERSION.
  patterns = [f"{'*/' * depth}{INFO_FILE}" for depth in (1, 2, 3)]
  found = [file.parent for p in patterns for file in folder.glob(p)]
  if len(found) != 1:
    names = ", ".join(sorted(str(f) for f in found)) or f"no {INFO_FILE}"
    raise ValueError(f"{path}: found {names}; expected one dataset")
  return found[0]


def _read_patch_px(path: str, info) -> int:
  try:
    height, width, channels = info.features["image"].shape
  except (KeyError, ValueError, TypeError):
    raise ValueError(
      f"{path}: found features {sorted(info.features)}; expected records of "
      "this project with an `image` (p, p, 2)"
    ) from None
  if height != width or channels != 2:
    raise ValueError(
      f"{path}: found images ({height}, {width}, {channels}); expected "
      "(p, p, 2)"
    )
  return height


def _count(info, split: str) -> int:
  if split not in (*SPLITS, *info.splits):
    raise ValueError(f"split: got {split!r}, expected one of {SPLITS}")
  # TFDS keeps no entry for a split without records.
  return info.splits[split].num_examples if split in info.splits else 0


def _open_split(path: str, dataset, split: str):
  files = dataset.info.splits[split].filepaths
  shards = [tfds.core.Path(file) for file in files]
  missing = [shard.name for shard in shards if not shard.exists()]
  if missing:
    raise ValueError(
      f"{path}: {len(missing)} of {len(shards)} shards of {split!r} are "
      f"missing ({missing[0]} ...); expected a whole dataset"
    )
  return dataset.as_data_source(split)


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [""]
  return f"{type(error).__name__}: {lines[0]}"
