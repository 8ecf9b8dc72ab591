"""Writes a split's records in an order that their keys alone decide.

It is the order of TFDS, by hashes of split and key. TFDS holds the records of a
split in memory to sort them, and from 1,000 MiB on takes TensorFlow to spill
them to files. Here their places in the images' parts are sorted, and one record
is read at a time.
"""

import hashlib
from collections.abc import Iterable

import tensorflow_datasets as tfds

from data_builders import parts


def write_split(
  chosen: Iterable[parts.Part],
  files: tfds.core.ShardedFileTemplate,
  shard_bytes: int,
) -> tfds.core.SplitInfo:
  """Writes the shards of a split.

  Args:
    chosen: the parts of its images, with a record at least.
    files: the shards' names, with that of the split in them.
    shard_bytes: what a shard stays below, before compression; see count_shards.

  Returns:
    What TFDS keeps of a split; its size is that of the serialized records.

  Raises:
    ValueError: two records have the same key.
    OSError: a part cannot be read, or a shard not written.
  """
  split = str(files.split)
  order = sorted(
    (hash_key(split, key), place)
    for part in chosen
    for key, place in parts.locate_records(part)
  )
  if len({digest for digest, _ in order}) < len(order):
    raise ValueError(f"{split}: found two records of one id, expected one")
  total = sum(place.length for _, place in order)
  num_shards = count_shards(total, len(order), shard_bytes)
  bounds = [round(len(order) * i / num_shards) for i in range(num_shards + 1)]
  writer = tfds.core.ExampleWriter(tfds.core.FileFormat.ARRAY_RECORD)
  for i in range(num_shards):
    path = files.sharded_filepath(shard_index=i, num_shards=num_shards)
    inside = order[bounds[i] : bounds[i + 1]]
    writer.write(path, ((key, parts.read_record(at)) for key, at in inside))
  return tfds.core.SplitInfo(
    name=split,
    shard_lengths=[bounds[i + 1] - bounds[i] for i in range(num_shards)],
    num_bytes=total,
    filename_template=files,
  )


def hash_key(split: str, key: str) -> bytes:
  """Returns what TFDS sorts by: MD5 of the two, path separators alike."""
  return hashlib.md5(f"{split}{key}".replace("\\", "/").encode()).digest()


def count_shards(num_bytes: int, num_records: int, shard_bytes: int) -> int:
  """Returns a number of shards: 1, 2, 4, 8 and so on.

  Args:
    num_bytes: of all records, before compression.
    num_records: no more shards than these.
    shard_bytes: what a shard stays below, and holds half of at least, if there
      is more than one.
  """
  number = 1
  while num_bytes >= number * shard_bytes and 2 * number <= num_records:
    number *= 2
  return number
