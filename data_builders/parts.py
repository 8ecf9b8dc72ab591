"""Records of single images on disk, so that a killed build can go on.

One file per image, named by hashes of its inputs and settings: a file that is
there is finished, and right. They go when the dataset is written.

A file holds the serialized records, one after another, then a JSON of what they
are and where, and in its last eight bytes the length of that JSON.
"""

import dataclasses
import functools
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from data_builders import generate
from data_builders.jobs import Item, Job, hash_values
from dicexmbd_jax.io import write
from dicexmbd_jax.runs import pool
from dicexmbd_jax.train import records

FOLDER = ".parts"
SUFFIX = ".part"
_TAIL = struct.Struct("<Q")


@dataclasses.dataclass(frozen=True)
class Part:
  """A finished image.

  Attributes:
    path: its file.
    num_patches: records in it.
    shape: rows and columns on the network's grid.
    map_scale: teacher pixels per image pixel.
    is_old: whether it was there before.
  """

  path: str
  num_patches: int
  shape: tuple[int, int]
  map_scale: int
  is_old: bool


class Place(NamedTuple):
  """Where a serialized record lies: file, first byte, number of bytes."""

  path: str
  start: int
  length: int


def make_parts(
  items: Sequence[Item],
  job: Job,
  folder: pathlib.Path,
  num_workers: int | None,
  tell: Callable[[Item, Part | Exception], None],
) -> dict[str, Part]:
  """Makes the records of all images that have none yet.

  Args:
    items: the images.
    job: what they share.
    folder: for the parts.
    num_workers: processes; 0: all in this one; None: one per core.
    tell: called for each image in turn, with its part or what went wrong.

  Returns:
    The parts by image; those that failed are missing.
  """
  make = functools.partial(make_part, job=job, folder=folder)
  num_workers = pool.count_workers(num_workers, len(items))
  found = {}
  for item, result in pool.map_images(make, items, num_workers):
    tell(item, result)
    if isinstance(result, Part):
      found[item.pair.stem] = result
  return found


def make_part(item: Item, job: Job, folder: pathlib.Path) -> Part:
  """Makes one image's records, unless they are there.

  Raises:
    ValueError, OSError: an input cannot be used, or the part not written.
  """
  words = [generate.hash_inputs(item), job.config_sha256, item.pair.stem]
  path = folder / f"{hash_values([*words, item.group])[:32]}{SUFFIX}"
  if (part := read_summary(path)) is not None:
    return part
  prepared = generate.prepare_item(item, job)
  found = generate.cut_records(prepared, item, job)
  summary = {
    "shape": prepared.images[0].shape[:2],
    "map_scale": prepared.map_scale,
  }
  features = records.make_features(job.records["patch_px"])
  num_patches = write_part(path, summary, serialize_records(features, found))
  return Part(str(path), num_patches, is_old=False, **summary)


def serialize_records(
  features: tfds.features.FeaturesDict,
  found: Iterable[tuple[str, generate.Example]],
) -> Iterator[tuple[str, bytes]]:
  """Yields (key, what TFDS stores), the same bytes in every process."""
  serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
  for key, example in found:
    proto = serializer.get_tf_example(features.encode_example(example))
    # Else the fields come in another order in each process.
    yield key, proto.SerializeToString(deterministic=True)


def write_part(
  path: pathlib.Path,
  summary: dict[str, Any],
  found: Iterable[tuple[str, bytes]],
) -> int:
  """Writes the records, not compressed: they are gone soon.

  Args:
    path: the file.
    summary: what is to be known of the image.
    found: (key, serialized record), of which one is held at a time.

  Returns:
    The number of records.

  Raises:
    ValueError: what the records' maker raises.
    OSError: the file cannot be written.
  """
  entries = []
  with write.replace_file(path) as temporary, temporary.open("wb") as file:
    for key, data in found:
      file.write(data)
      entries.append((key, len(data), zlib.crc32(data)))
    index = json.dumps([summary, entries]).encode()
    file.write(index + _TAIL.pack(len(index)))
  return len(entries)


def read_summary(path: pathlib.Path) -> Part | None:
  """Returns what is in a part's file; None if it is missing or broken."""
  try:
    summary, entries = _read_index(path)
    with path.open("rb") as file:
      for _, length, checksum in entries:
        if zlib.crc32(file.read(length)) != checksum:
          return None
    shape = tuple(summary.pop("shape"))
    return Part(str(path), len(entries), shape, is_old=True, **summary)
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    return None


def locate_records(part: Part) -> Iterator[tuple[str, Place]]:
  """Yields the key and the place of each record; reads none.

  Raises:
    OSError: the file cannot be read.
  """
  start = 0
  for key, length, _ in _read_index(part.path)[1]:
    yield key, Place(part.path, start, length)
    start += length


def read_record(place: Place) -> bytes:
  """Returns a serialized record.

  Raises:
    OSError: the file cannot be read.
  """
  with open(place.path, "rb") as file:
    file.seek(place.start)
    return file.read(place.length)


def read_examples(
  part: Part, patch_px: int
) -> Iterator[tuple[str, generate.Example]]:
  """Yields (key, example) for pipelines that serialize by themselves.

  Args:
    part: a finished image.
    patch_px: edge of its patches.

  Raises:
    OSError: the file cannot be read.
  """
  features = records.make_features(patch_px)
  for key, place in locate_records(part):
    yield key, features.deserialize_example_np(read_record(place))


def _read_index(path: str | os.PathLike) -> tuple[dict[str, Any], list[Any]]:
  """Returns the summary, and (key, length, checksum) of each record.

  Raises:
    OSError, ValueError, TypeError, RecursionError: a missing or broken file.
  """
  with open(path, "rb") as file:
    end = file.seek(-_TAIL.size, os.SEEK_END)
    start = end - _TAIL.unpack(file.read())[0]
    if start < 0:
      raise ValueError(f"{path}: found an index before the file's beginning")
    file.seek(start)
    summary, entries = json.loads(file.read(end - start))
  return summary, entries


def blame_file(item: Item, error: Exception) -> pathlib.Path:
  """Returns the file of an image's that the error names, else the image."""
  pair = item.pair
  files = [one.path for one in (pair.teacher, pair.nuclei) if one is not None]
  named = [path for path in files if str(path) in str(error)]
  return named[0] if named else pair.image.path
