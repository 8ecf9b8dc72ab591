"""Finds and reads what people paint on images, as their programs save it.

napari saves label TIFFs, GIMP pictures, ImageJ lists of ROIs (.roi, .zip),
QuPath GeoJSON; OME-Zarr holds labels, too. Which class a number, a name or a
colour stands for is for the caller to know.
"""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from dicexmbd_jax import memory
from dicexmbd_jax.io import listing, pictures, tiff
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path
Points = Float64[np.ndarray, "n 2"]

GEOJSON = (".geojson", ".json")
_ROI, _ZIP, _ZARR = ".roi", ".zip", ".zarr"
_MAX_PX = 1e6  # Coordinates beyond it are damage.
_MAX_BYTES = 1 << 28  # Of one ROI.
# What cannot be read, and how to save it instead.
_HINTS = {
  ".xcf": "in GIMP: File > Export As, NAME.png",
  ".psd": "export the painted layer alone as NAME.png",
  ".jpg": "save it as PNG: JPEG blurs colours",
  ".jpeg": "save it as PNG: JPEG blurs colours",
  ".qpdata": "in QuPath: File > Export objects as GeoJSON",
  ".npy": "in napari: File > Save Selected Layers, NAME.tif",
  ".npz": "in napari: File > Save Selected Layers, NAME.tif",
  ".svg": "save pixels: NAME.tif or NAME.png",
}


@dataclasses.dataclass(frozen=True)
class Shape:
  """One shape drawn on an image.

  Attributes:
    kind: "area", "line" or "point".
    parts: y, x in pixels, the first pixel from 0 to 1: the outlines of an area
      (what lies in an even number of them is a hole), lines, or points.
    names: what it is called, its class first.
    colour: red, green, blue, or None.
  """

  kind: str
  parts: tuple[Points, ...]
  names: tuple[str, ...]
  colour: tuple[int, int, int] | None


def list_drawings(
  pattern: str | Path,
) -> tuple[list[ImageSource], list[listing.Failure]]:
  """Lists the files that hold strokes in a folder, or of a glob.

  Returns:
    The files, and (file, message) of what cannot be used: files of a kind that
    is not read, with how to save them instead, and files that share a stem.

  Raises:
    ValueError: nothing is there.
  """
  suffixes = (*pictures.PNG, *GEOJSON, _ROI, _ZARR, *_HINTS)
  ours = [*_list_folders(pattern), *pictures.list_pictures(pattern, (_ZIP,))]
  ours = [
    one for one in ours if one.path.suffix != _ZIP or _holds_rois(one.path)
  ]
  try:
    found, failures = pictures.list_with_images(pattern, suffixes)
  except ValueError:
    if not ours:
      raise
    found, failures = [], []
  paths = [one.path for one in ours]
  failures = [one for one in failures if one[0] not in paths]
  found = [one for one in found if one.path not in paths]
  refused = [one for one in found if one.path.suffix.lower() in _HINTS]
  failures += [(one.path, _refuse(one.path)) for one in refused]
  found = [one for one in found if one not in refused]
  both = listing.drop_duplicates([*found, *ours], failures)
  return sorted(both, key=lambda one: listing.natural_key(one.stem)), failures


def read_drawing(path: str | Path) -> np.ndarray | list[Shape]:
  """Reads one file.

  Returns:
    Pixels, (y, x, c) in their own dtype, or shapes. Of a PNG with a palette
    the colours; see pictures.read_png.

  Raises:
    ValueError: missing, broken or empty file; one line.
  """
  path = Path(path)
  suffix = path.suffix.lower()
  if suffix in _HINTS:
    raise ValueError(_refuse(path))
  if suffix in (_ROI, _ZIP):
    return list(_read_rois(path))
  if suffix in GEOJSON:
    return list(_read_geojson(path))
  if suffix == _ZARR:
    return _read_zarr(path)
  if suffix in pictures.PNG:
    pixels = pictures.read_png(path)
    return pixels.reshape(*pixels.shape[:2], -1)
  return tiff.read_pixels(path)


def _refuse(path: Path) -> str:
  hint = _HINTS[path.suffix.lower()]
  return f"{path}: found {path.suffix}, expected TIFF, PNG, ROIs, GeoJSON: " + (
    hint
  )


def _list_folders(pattern: str | Path) -> list[ImageSource]:
  """Lists the Zarr folders, which list_pictures leaves out."""
  path = Path(pattern).expanduser()
  if path.suffix.lower() == _ZARR and path.is_dir():
    return [ImageSource(_get_stem(path), path)]
  if not path.is_dir():
    return []
  return [
    ImageSource(_get_stem(one), one)
    for one in sorted(path.iterdir())
    if one.suffix.lower() == _ZARR
    and one.is_dir()
    and not one.name.startswith(".")
  ]


def _get_stem(path: Path) -> str:
  return path.stem.removesuffix(".ome")


def _holds_rois(path: Path) -> bool:
  try:
    with zipfile.ZipFile(path) as archive:
      return any(n.lower().endswith(_ROI) for n in archive.namelist())
  except Exception:  # Damage makes zipfile fail in any way.
    return False  # Reading it as an archive of images says what is wrong.


def _read_rois(path: Path) -> Iterator[Shape]:
  """Reads ImageJ's ROIs, one or a zip of them."""
  import roifile

  kinds = roifile.ROI_TYPE
  lines = (kinds.LINE, kinds.FREELINE, kinds.POLYLINE, kinds.ANGLE)
  try:
    for name, data in _open_rois(path):
      roi = roifile.ImagejRoi.frombytes(data)
      kind = "line" if roi.roitype in lines else "area"
      kind = "point" if roi.roitype == kinds.POINT else kind
      parts = roi.coordinates(multi=True)
      # The group is what ImageJ has for classes; 0 is none.
      group = str(roi.group) if roi.group else ""
      names = (group, roi.name or name)
      alpha, *colour = roi.stroke_color or b"\0\0\0\0"
      red, green, blue = colour
      yield Shape(
        kind,
        tuple(_check_points(one[:, ::-1]) for one in parts),
        tuple(one for one in names if one),
        (red, green, blue) if alpha else None,
      )
  except MemoryError:
    raise
  except Exception as error:  # Damage makes roifile fail in any way.
    text = " ".join(str(error).split())[:200]
    raise ValueError(
      f"{path}: found unreadable ROIs ({text}), expected what ImageJ's ROI "
      "Manager saves"
    ) from error


def _open_rois(path: Path) -> Iterator[tuple[str, bytes]]:
  if path.suffix.lower() == _ROI:
    yield path.stem, path.read_bytes()
    return
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      if info.filename.lower().endswith(_ROI):
        memory.check_size(path, info.filename, min(info.file_size, _MAX_BYTES))
        with archive.open(info) as file:
          yield Path(info.filename).stem, file.read(_MAX_BYTES)


def _read_geojson(path: Path) -> Iterator[Shape]:
  """Reads QuPath's objects: a collection, a list or a single one."""
  try:
    data = json.loads(path.read_bytes())
    if isinstance(data, Mapping):
      data = data.get("features", [data])
    for one in data:
      properties = one.get("properties") or {}
      found = properties.get("classification") or {}
      names = (found.get("name"), *found.get("names", ()))
      names = (*names, properties.get("name"))
      colour = found.get("color") or properties.get("color")
      for kind, parts in _split_geometry(one["geometry"]):
        yield Shape(
          kind,
          tuple(parts),
          tuple(str(name) for name in names if name),
          tuple(int(v) for v in colour[:3]) if colour else None,  # type: ignore[arg-type]
        )
  except (OSError, MemoryError):
    raise
  except Exception as error:  # JSON of any other shape.
    text = " ".join(f"{type(error).__name__} {error}".split())[:200]
    raise ValueError(
      f"{path}: found no GeoJSON of shapes ({text}), expected what QuPath's "
      "File > Export objects as GeoJSON writes"
    ) from error


def _split_geometry(
  geometry: Mapping[str, Any],
) -> Iterator[tuple[str, Sequence[Points]]]:
  kind, places = geometry["type"], geometry.get("coordinates", ())
  if kind == "GeometryCollection":
    for one in geometry["geometries"]:
      yield from _split_geometry(one)
    return
  parts = {
    "Polygon": ("area", [places]),
    "MultiPolygon": ("area", places),
    "LineString": ("line", [[places]]),
    "MultiLineString": ("line", [places]),
    "Point": ("point", [[[places]]]),
    "MultiPoint": ("point", [[places]]),
  }
  if kind not in parts:
    raise ValueError(f"of type {kind}")
  named, groups = parts[kind]
  for group in groups:
    rings = [np.asarray(ring, np.float64) for ring in group]
    yield named, [_check_points(ring[:, 1::-1]) for ring in rings]


def _check_points(points: np.ndarray) -> Points:
  points = np.asarray(points, np.float64)
  # Written so that NaN is refused as well.
  if points.size == 0 or not (np.abs(points) < _MAX_PX).all():
    raise ValueError("points that are missing or not finite")
  return points


def _read_zarr(path: Path) -> np.ndarray:
  """Reads the labels of an OME-Zarr, or the array of a plain one."""
  # Only here, so that other strokes are read without zarr.
  import zarr

  try:
    array = _find_array(zarr.open(path, mode="r"))
    shape = tuple(size for size in array.shape if size != 1)
    memory.check_size(path, f"labels of {array.shape}", array.nbytes)
    pixels = np.asarray(array[...]).reshape(shape)
    if pixels.ndim not in (2, 3):
      raise ValueError(f"axes of {array.shape}")
  except (MemoryError, memory.TooLargeError):
    raise
  except Exception as error:  # Damage makes zarr fail in any way.
    text = " ".join(f"{type(error).__name__} {error}".split())[:200]
    raise ValueError(
      f"{path}: found no labels that can be read ({text}), expected an array "
      "of y, x or an OME-Zarr with one image in labels/"
    ) from error
  return np.moveaxis(pixels.reshape(-1, *pixels.shape[-2:]), 0, -1)


def _find_array(node):
  """Follows labels/, its only member and the full resolution to the array."""
  while not hasattr(node, "dtype"):
    names = sorted(node.keys())
    step = next((name for name in ("labels", "0") if name in names), None)
    if step is None and len(names) == 1:
      step = names[0]
    if step is None:
      raise ValueError(f"members {', '.join(names)}"[:120])
    node = node[step]
  return node
