"""Reads images from HDF5, as Ilastik and steinbock write them."""

import json
import pathlib
from collections.abc import Sequence

import h5py
import numpy as np

from dicexmbd_jax.types import Stack

SUFFIXES = (".h5", ".hdf5")
_MAX_CHANNELS = 4  # Ilastik's guess: a last axis this short are channels.


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
  if not path.is_file():
    raise ValueError(f"{path}: found no such file, expected HDF5")
  try:
    with h5py.File(path, "r") as file:
      dataset = _find_dataset(file, inner, path)
      if not axes or len(axes) != dataset.ndim:
        axes = read_axes(dataset) or guess_axes(dataset.shape)
      data = dataset[()]
  except (OSError, RuntimeError, KeyError) as error:
    raise ValueError(
      f"{path}: found an unreadable HDF5 file ({' '.join(str(error).split())}),"
      " expected an image"
    ) from error
  if data.dtype.kind not in "buif":
    raise ValueError(f"{path}: found {data.dtype}, expected real numbers")
  return order_axes(data, axes, path)


def read_axes(dataset: h5py.Dataset | h5py.Group) -> str | None:
  """Returns the axes' names from vigra's axistags, as "cyx"; None if absent."""
  tags = dataset.attrs.get("axistags")
  return None if tags is None else parse_axes(tags)


def parse_axes(tags: str | bytes) -> str | None:
  """Returns the axes' names from vigra's axistags in JSON; None if broken."""
  text = tags.decode() if isinstance(tags, bytes) else str(tags)
  try:
    return "".join(one["key"] for one in json.loads(text)["axes"])
  except (ValueError, KeyError, TypeError):
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
  return np.ascontiguousarray(ordered)


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
