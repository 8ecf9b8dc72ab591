"""Reads the lanes of an Ilastik project: its images and their strokes."""

import dataclasses
import math
import pathlib
import re

import h5py
import numpy as np

from dicexmbd_jax.io import hdf5
from dicexmbd_jax.types import Labels

Path = pathlib.Path

_HDF5_PATH = re.compile(r"^(.*?\.(?:h5|hdf5|ilp))(?:/(.+))?$", re.IGNORECASE)
_SLICE = re.compile(r"(?<!\d)(\d{1,9}):\d{1,9}(?!\d)")
_MAX_PIXELS = 1 << 28  # One gigabyte of strokes.


@dataclasses.dataclass(frozen=True)
class Lane:
  """One image of a project.

  Attributes:
    number: from 0, for messages.
    path: the image as the project spells it, without a dataset's name;
      "" where the project holds it inside.
    inner: the dataset in an HDF5 file, else None.
    axes: names of the image's axes, as "zyxc".
    shape: (y, x); None in old projects, which do not say: then the strokes
      end with the last one.
    strokes: int32 (y, x), the project's own label numbers, 0 = none; None
      where nothing was drawn.
  """

  number: int
  path: str
  inner: str | None
  axes: str
  shape: tuple[int, int] | None
  strokes: Labels | None

  @property
  def stem(self) -> str:
    """The image's name without folder and suffix."""
    name = pathlib.PurePosixPath(self.path.replace("\\", "/")).name
    return re.sub(r"(\.ome)?\.[A-Za-z0-9]+$", "", name)


def read_lanes(path: Path, file: h5py.File) -> tuple[Lane, ...]:
  """Reads all lanes of an open project.

  Raises:
    ValueError, KeyError: a lane that cannot be read.
  """
  infos = file["Input Data/infos"]
  sets = file["PixelClassification"].get("LabelSets", {})
  lanes, seen = [], set()
  for number, key in enumerate(sorted(infos)):
    raw = infos[key].get("Raw Data", infos[key])
    if len(raw) == 0:
      continue
    digits = re.sub(r"\D", "", key)
    name = f"labels{int(digits or number):03d}"
    seen.add(name)
    lanes.append(_read_lane(path, number, raw, sets.get(name, {})))
  for name in sets:
    if len(sets[name]) and name not in seen:
      raise ValueError(
        f"{path}: found strokes in LabelSets/{name}, expected those of "
        f"{len(lanes)} lanes"
      )
  return tuple(lanes)


def read_text(group: h5py.Group, name: str) -> str | None:
  """Returns a dataset of one text; None where there is no such dataset."""
  if name not in group:
    return None
  return decode_text(hdf5.read_stored(group[name], Path(group.file.filename)))


def decode_text(value: object) -> str:
  """Returns text, however HDF5 keeps it."""
  if isinstance(value, np.ndarray):
    value = value.item()
  return value.decode() if isinstance(value, bytes) else str(value)


def _read_lane(
  path: Path, number: int, raw: h5py.Group, labels: h5py.Group
) -> Lane:
  tags = read_text(raw, "axistags")
  axes = hdf5.parse_axes(tags) if tags else read_text(raw, "axisorder")
  size = None
  if "shape" in raw:
    stored = hdf5.read_stored(raw["shape"], path)
    shape = tuple(int(one) for one in stored)
    axes = axes or hdf5.guess_axes(shape)
    if len(axes) == len(shape) and {"y", "x"} <= set(axes):
      size = (shape[axes.index("y")], shape[axes.index("x")])
  if not axes or ("shape" in raw and size is None):
    raise ValueError(
      f"{path}: found axes {axes!r} for the image of lane {number}, expected "
      "channels, y and x"
    )
  spelled, inner = _locate(path, number, raw)
  strokes = _read_strokes(path, labels, axes, size)
  return Lane(number, spelled, inner, axes, size, strokes)


def _locate(path: Path, number: int, raw: h5py.Group) -> tuple[str, str | None]:
  """Returns the image's file, "" for the project itself, and its dataset."""
  if "inner_path" in raw or read_text(raw, "location") == "ProjectInternal":
    name = read_text(raw, "datasetId")
    return "", read_text(raw, "inner_path") or f"Input Data/local_data/{name}"
  spelled = read_text(raw, "filePath")
  if not spelled:
    raise ValueError(
      f"{path}: found no filePath of lane {number}, expected its image"
    )
  match = _HDF5_PATH.match(spelled)
  return (match[1], match[2]) if match else (spelled, None)


def _read_strokes(
  path: Path,
  labels: h5py.Group,
  axes: str,
  size: tuple[int, int] | None,
) -> Labels | None:
  blocks = [_read_block(path, block, axes) for block in labels.values()]
  if not blocks:
    return None
  end = tuple(
    max(start[i] + plane.shape[i] for start, plane in blocks) for i in range(2)
  )
  shape = size or end
  if math.prod(shape) > _MAX_PIXELS:
    raise ValueError(
      f"{path}: found strokes on an image of {shape}, expected up to "
      f"{_MAX_PIXELS} pixels"
    )
  if end[0] > shape[0] or end[1] > shape[1]:
    raise ValueError(
      f"{path}: found strokes up to {end} in {labels.name}, expected them "
      f"inside the image of {shape}"
    )
  strokes = np.zeros(shape, np.int32)
  for (y, x), plane in blocks:
    target = strokes[y : y + plane.shape[0], x : x + plane.shape[1]]
    np.copyto(target, plane, where=plane > 0)
  return strokes if strokes.any() else None


def _read_block(
  path: Path, block: h5py.Dataset, axes: str
) -> tuple[tuple[int, int], Labels]:
  """Returns where a block of strokes begins, and its labels."""
  names = hdf5.read_axes(block) or axes
  text = decode_text(block.attrs["blockSlice"])
  starts = [int(one) for one in _SLICE.findall(text)]
  data = hdf5.read_stored(block, path)
  if len(starts) != data.ndim or len(names) != data.ndim:
    raise ValueError(
      f"{path}: found strokes of shape {data.shape} at {text} in {block.name}, "
      f"expected axes {names}"
    )
  sizes = dict(zip(names, data.shape, strict=True))
  if any(size != 1 for name, size in sizes.items() if name not in "yx"):
    raise ValueError(
      f"{path}: found strokes on several planes in {block.name}, expected "
      "two-dimensional images"
    )
  plane = hdf5.order_axes(data, names, path)[..., 0].astype(np.int32)
  return (starts[names.index("y")], starts[names.index("x")]), plane
