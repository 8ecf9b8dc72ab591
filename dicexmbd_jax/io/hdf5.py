"""Reads images from HDF5, as Ilastik and steinbock write them."""

import contextlib
import itertools
import json
import math
import mmap
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from dicexmbd_jax import memory, storage
from dicexmbd_jax.types import Stack

SUFFIXES = (".h5", ".hdf5")
_MAX_CHANNELS = 4  # Ilastik's guess: a last axis this short are channels.
_MAX_SHRINK = 1100  # Deflate, the best of HDF5's filters, reaches 1032.
_SMALL_BYTES = 1 << 20
_WALK_S = 15  # A whole file of a megabyte takes less than one.
_WALK = """
import resource
import sys
import h5py
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))

def look(name, item):
  dict(item.attrs)
  if isinstance(item, h5py.Dataset) and item.dtype.hasobject:
    item[()]

with h5py.File(sys.argv[1], "r") as file:
  look("/", file)
  file.visititems(look)
"""
_MAX_LINE = 1000
# Signature and version of heaps.
_LOCAL_HEAP, _GLOBAL_HEAP = b"HEAP\0", b"GCOL\1"


def read_hdf5(
  path: pathlib.Path, inner: str | None = None, axes: str | None = None
) -> Stack:
  """Reads one image of an HDF5 file.

  Args:
    path: the file.
    inner: the dataset in it; None: the only one of two to five axes.
    axes: names of its axes, as "zyxc"; None, or another number of axes: as its
      attribute `axistags` says. Without either, as Ilastik takes them, except
      that a first axis shorter than the others are channels, too.

  Returns:
    Float32 (y, x, c), channels in the file's order.

  Raises:
    ValueError: missing or broken file, no dataset or several, axes other than
      channels, y and x longer than one, or pixels that are no finite numbers.
  """
  stack = read_pixels(path, inner, axes).astype(np.float32)
  if not np.isfinite(stack).all():
    raise ValueError(f"{path}: found pixels that are not finite")
  return stack


def read_pixels(
  path: pathlib.Path, inner: str | None = None, axes: str | None = None
) -> np.ndarray:
  """Reads one image as `read_hdf5` does, in its own dtype, finite or not."""
  with open_hdf5(path, "an image in HDF5") as file:
    dataset = _find_dataset(file, inner, path)
    shape = dataset.shape or ()  # None where it is declared empty.
    if not axes or len(axes) != len(shape):
      axes = read_axes(dataset) or guess_axes(shape)
    if dataset.dtype.kind not in "buif":
      raise ValueError(f"{path}: found {dataset.dtype}, expected real numbers")
    data = read_stored(dataset, path)
  return order_axes(data, axes, path)


@contextlib.contextmanager
def open_hdf5(path: pathlib.Path, wanted: str) -> Iterator[h5py.File]:
  """Gives an open file; what goes wrong in reading it becomes one line.

  Args:
    path: the file.
    wanted: what should be in it, for the message.

  Raises:
    ValueError: missing or broken file, or any error of the reader's.
  """
  if not path.is_file():
    raise ValueError(f"{path}: found no such file, expected {wanted}")
  try:
    with (
      path.open("rb") as raw,
      mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
      suspect = _find_suspect(data)
    if suspect is not None and not _can_be_walked(path):
      raise ValueError(f"a broken heap at byte {suspect}")
    with h5py.File(path, "r") as file:
      yield file
  except Exception as error:  # Damage makes h5py raise anything.
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ValueError) and text.startswith(f"{path}: found "):
      # The reader's own line; names in it are the file's.
      raise ValueError(text[:_MAX_LINE]) from error
    raise ValueError(
      f"{path}: found unreadable HDF5 ({text[:200]}), expected {wanted}"
    ) from error


def _find_suspect(data: mmap.mmap) -> int | None:
  """Returns where a heap begins that HDF5 might not get over; None without one.

  HDF5 takes memory for a heap before it reads it. It walks a global heap (texts
  of any length lie there) from object to object, and never ends at one that is
  number 0, which is free space, and 0 bytes long.

  Files that were changed often hold the remains of heaps that nothing refers
  to any more: a suspect may be one of these.
  """
  for start in _find_all(data, _LOCAL_HEAP):
    size = _read_number(data, start + 8)
    if size > len(data) or _has_loop(data, start, size):
      return start
  for start in _find_all(data, _GLOBAL_HEAP):
    place, end = start + 16, start + _read_number(data, start + 8)
    if end > len(data):
      return start
    while place + 16 <= end:
      number = int.from_bytes(data[place : place + 2], "little")
      size = _read_number(data, place + 8)
      if number == 0 and size < 16:
        return place
      place += size if number == 0 else 16 + -(-size // 8) * 8
  return None


def _can_be_walked(path: pathlib.Path) -> bool:
  """Whether HDF5 gets through all groups, attributes and texts of a file.

  In a process of its own, whose time and memory are limited: HDF5 itself cannot
  be stopped.
  """
  try:
    done = subprocess.run(
      [sys.executable, "-c", _WALK, str(path)],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      timeout=_WALK_S,
    )
  except subprocess.TimeoutExpired:
    return False
  return done.returncode == 0


def _has_loop(data: mmap.mmap, start: int, size: int) -> bool:
  """Whether a local heap's list of free blocks leads back into itself.

  HDF5 follows it for ever, and keeps every block that it meets.
  """
  base = max(data.find(b"\x89HDF\r\n\x1a\n"), 0)
  blocks = base + _read_number(data, start + 24)
  block, seen = _read_number(data, start + 16), set()
  while block + 16 <= size and block != 1:  # 1 ends the list.
    if block in seen:
      return True
    seen.add(block)
    block = _read_number(data, blocks + block)
  return False


def _find_all(data: mmap.mmap, mark: bytes) -> Iterator[int]:
  start = data.find(mark)
  while start >= 0:
    yield start
    start = data.find(mark, start + 1)


def _read_number(data: mmap.mmap, place: int) -> int:
  return int.from_bytes(data[place : place + 8], "little")


def read_stored(dataset: h5py.Dataset, path: pathlib.Path) -> np.ndarray:
  """Reads a dataset, if the file holds all of its values.

  What was declared and never written would read as zeros, and take any amount
  of memory.

  Args:
    dataset: of an open file.
    path: the file, for the message.

  Raises:
    ValueError: values that are not in the file.
  """
  shape = dataset.shape
  if shape is None or dataset.is_virtual or dataset.external:
    raise ValueError(
      f"{path}: found no values of {dataset.name} in the file, expected some"
    )
  num_bytes = math.prod(shape) * dataset.dtype.itemsize
  stored = dataset.id.get_storage_size()
  is_whole = stored >= num_bytes
  if dataset.chunks is not None:
    num_bytes = max(
      num_bytes, math.prod(dataset.chunks) * dataset.dtype.itemsize
    )
    is_whole = num_bytes <= _SMALL_BYTES + _MAX_SHRINK * stored
  if not is_whole or not _has_all_chunks(dataset):
    raise ValueError(
      f"{path}: found {stored} bytes of {dataset.name}, not all that was "
      f"declared, expected {shape} values of {dataset.dtype}"
    )
  memory.check_size(path, f"{shape} values of {dataset.dtype}", num_bytes)
  if num_bytes < storage.LARGE_BYTES:
    return np.asarray(dataset[()])
  data = storage.allocate(shape, dataset.dtype)
  dataset.read_direct(data)
  return data


def _has_all_chunks(dataset: h5py.Dataset) -> bool:
  """Whether the file has one chunk, of its own, for each place of a dataset.

  A chunk that is not found, or that lies nowhere, reads as zeros.
  """
  if dataset.chunks is None:
    return True
  wanted = [
    range(0, size, step)
    for size, step in zip(dataset.shape, dataset.chunks, strict=True)
  ]
  num_chunks = math.prod(map(len, wanted))
  if dataset.id.get_num_chunks() != num_chunks:
    return False
  found: list[Any] = []
  if num_chunks:
    dataset.id.chunk_iter(found.append)
  places = {chunk.chunk_offset for chunk in found}
  addresses = {chunk.byte_offset for chunk in found} - {None, 0}
  if len(addresses) != num_chunks or places != {*itertools.product(*wanted)}:
    return False
  try:
    for place in places:
      # Fails where the tree does not lead to a chunk that its list has.
      dataset.id.read_direct_chunk(place)
  except (RuntimeError, OSError):
    return False
  return True


def read_axes(dataset: h5py.Dataset | h5py.Group) -> str | None:
  """Returns the axes' names from vigra's axistags, as "cyx"; None if absent."""
  tags = dataset.attrs.get("axistags")
  return None if tags is None else parse_axes(tags)


def parse_axes(tags: str | bytes) -> str | None:
  """Returns the axes' names from vigra's axistags in JSON; None if broken."""
  try:
    text = tags.decode() if isinstance(tags, bytes) else str(tags)
    return "".join(one["key"] for one in json.loads(text)["axes"])
  except (ValueError, KeyError, TypeError, RecursionError):
    return None


def guess_axes(shape: Sequence[int]) -> str:
  """Names axes by their number and lengths."""
  if len(shape) == 3:
    if shape[2] > _MAX_CHANNELS and shape[0] < min(shape[1:]):
      return "cyx"
    return "yxc"
  return {2: "yx", 4: "zyxc", 5: "tzyxc"}.get(len(shape), "")


def order_axes(data: np.ndarray, axes: str, path: pathlib.Path) -> np.ndarray:
  """Brings any axes to (y, x, c); the others must be of length one."""
  if len(axes) != data.ndim or not {"y", "x"} <= set(axes):
    raise ValueError(
      f"{path}: found axes {axes!r} for pixels of shape {data.shape}, expected "
      "channels, y and x"
    )
  others = [i for i, name in enumerate(axes) if name not in "yxc"]
  if any(data.shape[i] != 1 for i in others) or 0 in data.shape:
    raise ValueError(
      f"{path}: found axes {axes} of {data.shape}, expected one plane of y, x "
      "and channels"
    )
  order = [axes.index("y"), axes.index("x"), *others]
  if "c" in axes:
    order.append(axes.index("c"))
  ordered = data.transpose(order)
  ordered = ordered.reshape(*ordered.shape[:2], -1)
  if ordered.flags.c_contiguous:
    return ordered
  pixels = storage.allocate(ordered.shape, ordered.dtype)
  for part in storage.cut_strips(ordered.shape, ordered.itemsize):
    pixels[part] = ordered[part]
  return pixels


def _find_dataset(
  file: h5py.File, inner: str | None, path: pathlib.Path
) -> h5py.Dataset:
  if inner:
    dataset = file.get(inner)
    if not isinstance(dataset, h5py.Dataset):
      raise ValueError(f"{path}: found no dataset {inner}, expected an image")
    return dataset
  found: list[h5py.Dataset] = []

  def collect(_: str, item: h5py.Dataset | h5py.Group) -> None:
    if isinstance(item, h5py.Dataset) and 2 <= item.ndim <= 5:
      found.append(item)

  file.visititems(collect)
  if len(found) != 1:
    names = ", ".join(str(one.name) for one in found) or "none"
    raise ValueError(
      f"{path}: found {len(found)} datasets ({names}), expected one image"
    )
  return found[0]
