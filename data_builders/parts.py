"""Records of single images on disk, so that a killed build can go on.

One file per image, named by hashes of its inputs and settings: a file that is
there is finished, and right. They go when the dataset is written.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_builders import generate
from data_builders.jobs import Item, Job, hash_values
from dicexmbd_jax.io import write
from dicexmbd_jax.io.arrays import read_arrays
from dicexmbd_jax.runs import pool

FOLDER = ".parts"
_ARRAYS = ("image", "target", "valid", "known", "origin", "scale", "schema")


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
  path = folder / f"{hash_values([*words, item.group])[:32]}.npz"
  if (part := read_summary(path)) is not None:
    return part
  prepared = generate.prepare_item(item, job)
  found = generate.cut_records(prepared, item, job)
  height, width = prepared.images[0].shape[:2]
  part = Part(
    str(path), len(found), (height, width), prepared.map_scale, is_old=False
  )
  write_part(part, [example for _, example in found])
  return part


def write_part(part: Part, examples: Sequence[dict[str, Any]]) -> None:
  """Writes the records, not compressed: they are gone soon.

  Raises:
    OSError: the file cannot be written.
  """
  arrays = {
    name: np.stack([example[name] for example in examples]) for name in _ARRAYS
  }
  texts = [
    {name: value for name, value in example.items() if name not in _ARRAYS}
    for example in examples
  ]
  summary = dataclasses.asdict(part)
  with (
    write.replace_file(part.path) as temporary,
    temporary.open("wb") as file,
  ):
    np.savez(file, texts=np.array(json.dumps([summary, texts])), **arrays)


def read_summary(path: pathlib.Path) -> Part | None:
  """Returns what is in a part's file; None if it is missing or broken."""
  try:
    values = read_arrays(path, "a part of a build")
    summary, _ = json.loads(str(values["texts"]))
    summary |= {"path": str(path), "is_old": True}
    return Part(**{**summary, "shape": tuple(summary["shape"])})
  except (ValueError, KeyError, TypeError, RecursionError):
    return None


def read_part(part: Part) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (key, example), as generate.cut_records returns them."""
  with np.load(part.path, allow_pickle=False) as file:
    arrays = {name: file[name] for name in _ARRAYS}
    _, texts = json.loads(str(file["texts"]))
  for i, values in enumerate(texts):
    example = {name: array[i] for name, array in arrays.items()}
    yield values["record_id"], example | values


def blame_file(item: Item, error: Exception) -> pathlib.Path:
  """Returns the file of an image's that the error names, else the image."""
  pair = item.pair
  files = [one.path for one in (pair.teacher, pair.nuclei) if one is not None]
  named = [path for path in files if str(path) in str(error)]
  return named[0] if named else pair.image.path
