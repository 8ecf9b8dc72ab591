"""Reads images from OME-Zarr, NGFF 0.4 and 0.5: folders, zip files, URLs."""

import contextlib
import hashlib
import math
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from dicexmbd_jax import extras, memory, storage
from dicexmbd_jax.io.metadata import find_unit_um
from dicexmbd_jax.io.tiff import Select
from dicexmbd_jax.sections import MAX_PIXEL_UM, MIN_PIXEL_UM
from dicexmbd_jax.types import LoadedImage

_WANTED = "an OME-Zarr image"
_MARKS = ("zarr.json", ".zattrs", ".zgroup")
# What a path makes of a URL: one slash less.
_URL = re.compile(r"(s3|gs|gcs|memory|https?|file):/+")
_BLOCK = 1 << 20


def is_url(path: str | pathlib.Path) -> bool:
  """Whether a path, or its text, is the address of a store elsewhere."""
  return _URL.match(str(path)) is not None


def is_store(path: pathlib.Path) -> bool:
  """Whether a path is to be read as OME-Zarr: by its name, or what is in it."""
  if is_url(path) or path.suffix.lower() == ".zarr":
    return True
  if path.suffix.lower() != ".zip" or not path.is_file():
    return False
  try:
    with zipfile.ZipFile(path) as archive:
      return _find_root(archive.namelist()) is not None
  except Exception:  # Damage makes zipfile fail in any way.
    return False


def is_image(path: pathlib.Path) -> bool:
  """Whether a folder's metadata say that it is an image, or cannot be read.

  A table's store (SpatialData, AnnData) is none.
  """
  try:
    with open_store(path) as root:
      return _read_multiscales(root) is not None or "plate" in _describe(root)
  except ValueError:
    return True  # Reading it will say what is wrong.


def read_image(path: pathlib.Path, select: Select) -> LoadedImage:
  """Reads the selected channels of an image, at its full size.

  Only their chunks are read, a channel at a time. Chunks that are not stored
  hold the store's fill value, as Zarr has it; that is told.

  Args:
    path: a folder, a zip file, or a URL that fsspec opens.
    select: from channel names and their number to the channels to read.

  Raises:
    ValueError: no such store, a damaged one, axes other than channels, y and x
      longer than one; channels that `select` does not take. One line.
  """
  with open_store(path) as root:
    scale = _read_multiscales(root)
    if scale is None:
      raise ValueError(f"{_spell(path)}: {_describe_other(root)}")
    level = scale["datasets"][0]
    array = root[level["path"]]
    if not isinstance(array, zarr.Array):
      raise ValueError(f"{level['path']} is a group; wanted an array")
    axes = _list_axes(scale, array)
    num_channels = array.shape[axes.index("c")] if "c" in axes else 1
    selection = select(_list_names(root, num_channels), num_channels)
    size_um, lines = _read_pixel_size(scale, level)
    stack = _read_channels(path, array, axes, selection.channels)
    lines += _tell_missing(path, array)
  return selection.load(stack, size_um, lines)


@contextlib.contextmanager
def open_store(path: pathlib.Path) -> Iterator[zarr.Group]:
  """Gives the group of an image; what goes wrong in it becomes one line.

  Raises:
    ValueError: no such store, or any error of the reader's.
  """
  shown = _spell(path)
  if not is_url(path) and not path.exists():
    raise ValueError(f"{shown}: found no such store, expected {_WANTED}")
  try:
    store, inner = _make_store(path)
    with contextlib.closing(store):
      yield zarr.open_group(store, path=inner, mode="r")
  except MemoryError:
    raise
  except Exception as error:  # Damage makes zarr raise anything.
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ValueError) and ": found " in text:
      raise
    line = extras.describe_missing(error) or (
      f"found unreadable OME-Zarr ({text[:200]}), expected {_WANTED}"
    )
    raise ValueError(f"{shown}: {line}") from error


def hash_store(path: pathlib.Path) -> str:
  """Hashes an image's files, without its labels; of a URL, what it tells.

  Raises:
    ValueError: they cannot be read.
  """
  digest = hashlib.sha256()
  try:
    for name, content in _list_content(path):
      digest.update(name.encode("utf-8", "surrogateescape"))
      digest.update(content)
  except Exception as error:  # Of any file system.
    line = _describe_error(error, "a readable store")
    raise ValueError(f"{_spell(path)}: {line}") from error
  return digest.hexdigest()


def list_remote(url: str) -> list[pathlib.Path]:
  """Lists the stores that a URL stands for: itself, a folder's, a pattern's.

  Raises:
    ValueError: nothing is there, or no package for it; one line.
  """
  try:
    import fsspec

    fsspec.get_filesystem_class(url.partition("://")[0])
    if re.search(r"\.zarr(\.zip)?/?$", url) and "*" not in url:
      return [pathlib.Path(url)]
    system, place = fsspec.core.url_to_fs(url)
    names = system.glob(place) if "*" in url else system.ls(place, detail=False)
  except Exception as error:  # Of any file system.
    line = _describe_error(error, "a readable folder")
    raise ValueError(f"{url}: {line}") from error
  found = [name for name in sorted(names) if name.rstrip("/").endswith(".zarr")]
  if not found:
    raise ValueError(f"{url}: found no images, expected OME-Zarr")
  return [pathlib.Path(system.unstrip_protocol(name)) for name in found]


def _list_content(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
  if is_url(path):
    import fsspec

    system, place = fsspec.core.url_to_fs(_spell(path))
    for name, told in sorted(system.find(place, detail=True).items()):
      if "/labels/" not in name:
        marks = [told.get(key) for key in ("size", "ETag", "etag", "md5Hash")]
        yield name, repr(marks).encode()
    return
  files = [path] if path.is_file() else sorted(path.rglob("*"))
  for file in files:
    name = file.relative_to(path).as_posix()
    if file.is_file() and not name.startswith("labels/"):
      with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
          yield name, block


def _spell(path: pathlib.Path) -> str:
  return _URL.sub(r"\1://", str(path)) if is_url(path) else str(path)


def _make_store(path: pathlib.Path) -> tuple[Any, str]:
  if is_url(path):
    return zarr.storage.FsspecStore.from_url(_spell(path), read_only=True), ""
  if path.is_dir():
    return zarr.storage.LocalStore(path, read_only=True), ""
  with zipfile.ZipFile(path) as archive:
    inner = _find_root(archive.namelist())
  return zarr.storage.ZipStore(path, mode="r"), inner or ""


def _find_root(names: Sequence[str]) -> str | None:
  """Returns where in an archive the only store lies; None without one."""
  places = [pathlib.PurePosixPath(name) for name in names]
  roots = [one.parent for one in places if one.name in _MARKS]
  if not roots:
    return None
  first = min(roots, key=lambda root: len(root.parts))
  is_alone = all(first in (root, *root.parents) for root in roots)
  is_named = len(first.parts) < 2 and first.suffix in ("", ".zarr")
  if not (is_alone and is_named):
    return None
  return "" if first == pathlib.PurePosixPath() else first.as_posix()


def _describe(root: zarr.Group) -> Mapping[str, Any]:
  attributes = dict(root.attrs)
  inner = attributes.get("ome")
  return inner if isinstance(inner, dict) else attributes


def _describe_error(error: Exception, wanted: str) -> str:
  """Returns an error of any file system as one line: what to install, or it."""
  text = " ".join(str(error).split())[:200]
  return extras.describe_missing(error) or f"found {text}, expected {wanted}"


def _describe_other(root: zarr.Group) -> str:
  """Says what a store is that is no image, and what to do about it."""
  plate = _describe(root).get("plate")
  if plate is None:
    return f"found no multiscales, expected {_WANTED}"
  wells = [well["path"] for well in plate["wells"]]
  place = f"{wells[0]}/0" if wells else "A/1/0"
  return (
    f"found a plate of {len(wells)} wells, expected {_WANTED}: copy its fields "
    f"({place}) to folders NAME.zarr of their own"
  )


def _read_multiscales(root: zarr.Group) -> Mapping[str, Any] | None:
  scales = _describe(root).get("multiscales")
  return scales[0] if scales else None


def _list_axes(scale: Mapping[str, Any], array: Any) -> str:
  """Returns the axes' names; those but c, y, x must be of length one."""
  axes = [one["name"] for one in scale["axes"]]
  shape = array.shape
  others = [
    size for name, size in zip(axes, shape, strict=True) if name not in "cyx"
  ]
  if not {"y", "x"} <= set(axes) or set(others) - {1} or 0 in shape:
    raise ValueError(
      f"axes {','.join(axes)} of {shape}; wanted one plane of y, x and channels"
    )
  if array.dtype.kind not in "buif":
    raise ValueError(f"{array.dtype}; wanted real numbers")
  return "".join(name[0] for name in axes)


def _list_names(root: zarr.Group, num_channels: int) -> list[str]:
  channels = _describe(root).get("omero", {}).get("channels", [])
  names = [str(one.get("label") or "") for one in channels]
  return names if len(names) == num_channels and any(names) else []


def _read_pixel_size(
  scale: Mapping[str, Any], level: Mapping[str, Any]
) -> tuple[float | None, list[str]]:
  axes = scale["axes"]
  sizes, odd_units = [], []
  for name in "yx":
    at = [one["name"] for one in axes].index(name)
    unit = str(axes[at].get("unit") or "")
    unit_um = find_unit_um(unit)
    if unit_um is None:
      odd_units.append(unit[:20])
    size = unit_um or 1.0
    for where in (scale, level):
      for one in where.get("coordinateTransformations", []):
        if one["type"] == "scale":
          size *= float(one["scale"][at])
    sizes.append(size)
  y, x = sizes
  if any(odd_units) or (odd_units and sizes != [1.0, 1.0]):
    line = f"pixel size of {x:g} x {y:g} {odd_units[0] or 'without a unit'}"
    return None, [f"{line} is ignored"]
  if odd_units:  # What writers put who know none.
    return None, []
  if not all(MIN_PIXEL_UM <= size <= MAX_PIXEL_UM for size in sizes):
    return None, [f"pixel size of {x:g} x {y:g} um in the metadata is ignored"]
  if abs(x - y) > 0.01 * max(sizes):
    return None, [f"pixels are not square ({x:g} x {y:g} um); size ignored"]
  return (x + y) / 2, []


def _read_channels(
  path: pathlib.Path, array: Any, axes: str, channels: Sequence[int]
) -> np.ndarray:
  """Reads channels as float32 (y, x, m), some rows of chunks at a time."""
  height, width = (array.shape[axes.index(name)] for name in "yx")
  edge = (array.shards or array.chunks)[axes.index("y")]
  row_bytes = width * array.dtype.itemsize
  _check_memory(path, array, (height, width, len(channels)), edge * row_bytes)
  stack = storage.allocate(
    (len(channels), height, width), np.float32, storage.STACK_BYTES
  )
  is_turned = axes.index("x") < axes.index("y")
  step = edge * max(storage.STRIP_BYTES // (edge * row_bytes), 1)
  for at, channel in enumerate(channels):
    for top in range(0, height, step):
      wanted = {"c": channel, "y": slice(top, top + step), "x": slice(None)}
      rows = np.asarray(array[tuple(wanted.get(name, 0) for name in axes)])
      stack[at, top : top + step] = rows.T if is_turned else rows
  return np.moveaxis(stack, 0, -1)


def _check_memory(
  path: pathlib.Path, array: Any, shape: tuple[int, int, int], row_bytes: int
) -> None:
  """Refuses what takes too much memory.

  A large image lies in a file, and may be larger than memory if what is stored
  suffices for it.

  Args:
    path: for the message.
    array: the pixels.
    shape: (y, x, m) of what is to be read.
    row_bytes: that a row of chunks takes.
  """
  chunk = math.prod(array.shards or array.chunks) * array.dtype.itemsize
  memory.check_size(_spell(path), f"chunks of {array.chunks}", chunk)
  memory.check_size(_spell(path), f"rows of chunks {array.chunks}", row_bytes)
  num_pixels = math.prod(shape)
  if storage.is_large_stack(num_pixels) and storage.can_outgrow_memory(
    num_pixels, array.nbytes, array.nbytes_stored()
  ):
    return
  height, width, num_channels = shape
  told = f"{num_channels} channels of {width} x {height} pixels"
  memory.check_size(_spell(path), told, 4 * num_pixels)


def _tell_missing(path: pathlib.Path, array: Any) -> list[str]:
  stored, wanted = array.nchunks_initialized, array.nchunks
  if array.shards is not None:
    wanted = math.prod(
      -(-size // edge)
      for size, edge in zip(array.shape, array.shards, strict=True)
    )
  if not stored:
    raise ValueError(
      f"{_spell(path)}: found none of {wanted} chunks of pixels, expected some"
    )
  if stored >= wanted:
    return []
  value = array.fill_value
  return [f"{wanted - stored} of {wanted} chunks are not stored: all {value}"]
