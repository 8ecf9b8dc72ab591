"""Writes an image and its masks as OME-Zarr, NGFF 0.4 or 0.5."""

import colorsys
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dicexmbd_jax.io import write
from dicexmbd_jax.types import Labels, Stack

if TYPE_CHECKING:  # Slow to import.
  import zarr

# Of the NGFF's versions, Zarr's.
ZARR_FORMATS: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
_CHUNK_PX = 1024
_MAX_EDGE_PX = 1024  # Of a pyramid's smallest level.
_COLOURS = ("0000FF", "00FF00", "FF0000", "00FFFF", "FF00FF", "FFFF00")
_NUM_ACTIVE = 3  # Channels that a viewer shows at first.
_GOLDEN = 0.618033988749895  # Of a turn: successive ids get far hues.


def write_ome_zarr(
  path: pathlib.Path,
  stack: Stack,
  names: Sequence[str],
  pixel_size_um: float,
  masks: Mapping[str, Labels],
  version: str = "0.4",
  overwrite: bool = False,
) -> None:
  """Writes one store: the image, and masks as its labels, each a pyramid.

  Levels are halved until the longer edge is 1024 px or less: pixels of the
  image are averaged, ids are taken from every second pixel. All have the
  image's scale; each id has a colour, 0 none.

  Args:
    path: the folder to write, ending in .ome.zarr.
    stack: counts (y, x, m).
    names: the m channels' names.
    pixel_size_um: edge of a pixel.
    masks: labels (y, x) by name.
    version: of the NGFF; a key of ZARR_FORMATS.
    overwrite: whether a store that is there is replaced.

  Raises:
    ValueError: a store is there, and not to be replaced; or a folder of other
      files, which never is.
    OSError: a file cannot be written.
  """
  import zarr

  with write.replace_folder(path, overwrite) as folder:
    root = zarr.open_group(folder, mode="w", zarr_format=ZARR_FORMATS[version])
    planes = np.moveaxis(write.shrink_counts(stack), -1, 0)
    name = path.name.partition(".")[0]
    shape = planes.shape
    scales = _write_pyramid(root, planes, pixel_size_um)
    _describe(
      root,
      version,
      {
        "multiscales": [_make_multiscale(name, "cyx", scales)],
        "omero": _describe_channels(planes, names),
      },
    )
    group = root.create_group("labels")
    _describe(group, version, {"labels": list(masks)})
    for kind, labels in masks.items():
      if labels.shape != shape[1:]:
        raise ValueError(
          f"{path}: found {kind} of {labels.shape} px, expected {shape[1:]}, "
          "as the image's"
        )
      _write_labels(
        group.create_group(kind), kind, labels, pixel_size_um, version
      )


def _write_labels(
  group: "zarr.Group",
  kind: str,
  labels: Labels,
  pixel_size_um: float,
  version: str,
) -> None:
  scales = _write_pyramid(group, labels, pixel_size_um)
  ids = np.unique(labels)
  _describe(
    group,
    version,
    {
      "multiscales": [_make_multiscale(kind, "yx", scales)],
      "image-label": {
        "version": version,
        "colors": [_colour_label(int(number)) for number in {0, *ids.tolist()}],
        "source": {"image": "../../"},
      },
    },
  )


def _colour_label(number: int) -> dict[str, Any]:
  rgb = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.65, 1)
  opacity = 255 if number else 0
  return {
    "label-value": number,
    "rgba": [*(round(255 * part) for part in rgb), opacity],
  }


def _describe(
  group: "zarr.Group", version: str, values: Mapping[str, Any]
) -> None:
  if version == "0.5":
    group.attrs["ome"] = {"version": version, **values}
    return
  if "multiscales" in values:
    values["multiscales"][0]["version"] = version
  group.attrs.update(dict(values))


def _write_pyramid(
  group: "zarr.Group", pixels: np.ndarray, pixel_size_um: float
) -> list[list[float]]:
  """Writes (c, y, x) or (y, x) and what is halved of it; returns the scales."""
  scales: list[list[float]] = []
  others = pixels.ndim - 2
  while True:
    level = len(scales)
    chunks = (1,) * others + tuple(
      min(_CHUNK_PX, max(edge, 1)) for edge in pixels.shape[-2:]
    )
    is_new = group.metadata.zarr_format == 3
    array = group.create_array(
      str(level),
      shape=pixels.shape,
      chunks=chunks,
      dtype=pixels.dtype,
      chunk_key_encoding={
        "name": "default" if is_new else "v2",
        "separator": "/",
      },
      # So that a chunk that got lost is not taken for zeros.
      config={"write_empty_chunks": True},
      dimension_names="cyx"[-pixels.ndim :] if is_new else None,
    )
    array[...] = pixels
    size_um = float(pixel_size_um * 2**level)
    scales.append([1.0] * others + [size_um, size_um])
    if max(pixels.shape[-2:]) <= _MAX_EDGE_PX:
      return scales
    pixels = _halve(pixels)


def _halve(pixels: np.ndarray) -> np.ndarray:
  """Averages 2 x 2 pixels of an image; of labels takes the first of them."""
  if pixels.ndim == 2:
    return pixels[::2, ::2]
  odd = [(0, edge % 2) for edge in pixels.shape[-2:]]
  padded = np.pad(pixels, [(0, 0), *odd], mode="edge")
  num, height, width = padded.shape
  blocks = padded.reshape(num, height // 2, 2, width // 2, 2)
  means = blocks.mean((2, 4), dtype=np.float32)
  if pixels.dtype.kind == "u":
    means = np.rint(means)
  return means.astype(pixels.dtype)


def _make_multiscale(
  name: str, axes: str, scales: Sequence[Sequence[float]]
) -> dict[str, Any]:
  return {
    "name": name,
    "axes": [
      {"name": axis, "type": "channel"}
      if axis == "c"
      else {"name": axis, "type": "space", "unit": "micrometer"}
      for axis in axes
    ],
    "datasets": [
      {
        "path": str(level),
        "coordinateTransformations": [{"type": "scale", "scale": list(scale)}],
      }
      for level, scale in enumerate(scales)
    ],
  }


def _describe_channels(
  planes: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
  """Names channels, and says how to show them: up to their 99th percentile."""
  channels = []
  for index, name in enumerate(names):
    plane = planes[index]
    high = float(np.percentile(plane[::4, ::4], 99)) if plane.size else 0.0
    highest = max(float(plane.max(initial=0)), 1.0)
    channels.append(
      {
        "label": name,
        "color": _COLOURS[index % len(_COLOURS)],
        "active": index < _NUM_ACTIVE,
        "window": {
          "min": 0.0,
          "max": highest,
          "start": 0.0,
          "end": high or highest,
        },
      }
    )
  return {"channels": channels, "rdefs": {"model": "color"}}
