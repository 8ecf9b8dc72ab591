"""Writes the tables of all images into one file, as AnnData has them.

It is written by h5py alone: importing anndata takes longer than all else that
comes after an image, and the layout of its files is a public specification. It
is written image by image, so that memory does not grow with their number.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dicexmbd_jax.io import write
from dicexmbd_jax.io.growing import GrowingArray, write_packed
from dicexmbd_jax.io.names import make_unique
from dicexmbd_jax.types import Labels, Panel

if TYPE_CHECKING:  # Slow to import.
  import anndata
  import h5py

Row = Mapping[str, Any]  # Of images.csv.

_SPATIAL_KEY = "spatial"  # Where squidpy looks for coordinates and masks.
# From one image's start to the next, in edges of the largest: further apart
# than any two cells of an image.
_PITCH = 3
_MAX_INT32 = 2**31 - 1
# Neighbours of a cell, in the mean: more are not expected.
_MAX_NEIGHBORS = 16


@dataclasses.dataclass(frozen=True)
class ImageCells:
  """What the file gets of one image.

  Attributes:
    markers: the channels' names.
    counts: float32 (n, channel), means.
    regions: arrays of n by their name in obs: Object, the ids, by which all is
      ordered; centroid-0 and -1 (y, x in px) where they are known; and others.
    rows: of neighbours, the place of one in `ids`, sorted.
    columns: the place of the other, sorted within equal rows.
    distances: float32, of the neighbours; NaN: not known.
    mask: (y, x), where the file is to hold it.
  """

  markers: tuple[str, ...]
  counts: np.ndarray
  regions: Mapping[str, np.ndarray]
  rows: np.ndarray
  columns: np.ndarray
  distances: np.ndarray
  mask: Labels | None = None

  @property
  def ids(self) -> np.ndarray:
    """Of its n cells."""
    return self.regions["Object"]


def pack_cells(
  intensities: pd.DataFrame,
  regions: pd.DataFrame,
  neighbors: pd.DataFrame,
  mask: Labels | None = None,
) -> ImageCells:
  """Takes from an image's tables what the file gets.

  Args:
    intensities: Object and one column per channel.
    regions: Object, centroid-0, centroid-1 and any other column of numbers.
    neighbors: Object, Neighbor, Distance.
    mask: of the image, where the file is to hold it.
  """
  objects = intensities["Object"]
  if not objects.equals(regions["Object"]):
    regions = objects.to_frame().merge(regions, on="Object")
  counts = intensities.drop(columns="Object")
  place = pd.Series(np.arange(len(objects), dtype=np.int32), objects)
  rows = place.loc[neighbors["Object"]].to_numpy()
  columns = place.loc[neighbors["Neighbor"]].to_numpy()
  order = np.lexsort((columns, rows))
  if mask is not None:
    is_small = int(mask.max(initial=0)) < 2**16
    mask = mask.astype(np.uint16 if is_small else np.uint32, copy=False)
  return ImageCells(
    markers=tuple(map(str, counts)),
    counts=counts.to_numpy(np.float32),
    regions={str(name): regions[name].to_numpy() for name in regions},
    rows=rows[order],
    columns=columns[order],
    distances=neighbors["Distance"].to_numpy(np.float32)[order],
    mask=mask,
  )


def write_cells(
  path: pathlib.Path,
  rows: Sequence[Row],
  images: Iterable[ImageCells],
  panel: Panel | None = None,
) -> pd.DataFrame:
  """Writes cells.h5ad of all images, as steinbock's exporter does, and more.

  Observations are named "Object 3 in ROI001.tiff". X holds mean counts
  (float32). As in steinbock, obs holds Image, the regions' columns,
  image_width_px and so on from images.csv, obsp["adj"] the neighbours, and
  obsp["dist"] their distances where the tables have any. Beyond it, obs has
  Object, obsm["pixels"] the centroids as x, y in px, obsm["spatial"] the same
  with the images laid apart, and obsp["spatial_connectivities"] and
  ["spatial_distances"] (between centroids, px) are the neighbours where squidpy
  looks for them. uns["spatial"] has an entry per image with cells, by its name
  in obs["Image"], with its mask where the tables have it. var holds the panel's
  columns if it is given.

  Images lie in a square of rows, in an order that is theirs. They are so far
  apart that a cell's nearest neighbours are of its own image, if that has as
  many cells.

  The matrices of obsp have their indices in common: each is stored once.

  Args:
    path: the file to write.
    rows: of images.csv, of all images in order; `image` is STEM.tiff,
      `num_cells` the number of its cells.
    images: the same. Each is needed once, so that they need not be in memory
      together. Those without cells add nothing.
    panel: the panel that chose the channels.

  Returns:
    One row per marker: `var`.

  Raises:
    OSError: the file cannot be written; names it.
    ValueError: an image has not as many cells as its row tells, or other
      columns than the images before.
  """
  import h5py

  with (
    write.replace_file(path) as temporary,
    write.open_doubtful(temporary) as stream,
    h5py.File(stream, "w") as file,
  ):
    markers = _write_parts(file, rows, images)
    var = _describe_markers(markers, panel)
    _write_element(file, "var", var)
    for name in ("varm", "varp", "layers"):
      _write_element(file, name, {})
    _write_element(file, "raw", None)
    _tell_kind(file, "anndata", "0.1.0")
  return var


def _write_parts(
  file: "h5py.File", rows: Sequence[Row], images: Iterable[ImageCells]
) -> tuple[str, ...]:
  """Writes all that grows with the cells; returns the markers' names."""
  filled = [row for row in rows if row["num_cells"]]
  num_cells = sum(row["num_cells"] for row in filled)
  starts = iter(_lay_apart(filled))
  described = _open_group(_open_group(file, "uns"), _SPATIAL_KEY)
  empty: ImageCells | None = None
  cells: _Cells | None = None
  for row, one in zip(rows, images, strict=True):
    sizes = {len(one.counts), len(one.ids)}
    if sizes != {row["num_cells"]}:
      found = " and ".join(map(str, sizes))
      raise ValueError(
        f"{row['image']}: found tables of {found} cells, expected "
        f"{row['num_cells']}; run again with --overwrite"
      )
    if not len(one.ids):
      empty = empty or one
      continue
    cells = cells or _Cells(file, one, num_cells)
    cells.add(row, one, next(starts))
    _write_element(described, row["image"], _describe_image(one))
  if cells is None:
    nothing = pd.DataFrame({"Object": [], "Neighbor": [], "Distance": []})
    columns = nothing[["Object"]]
    empty = empty or pack_cells(columns, columns, nothing)
    cells = _Cells(file, empty, 0)
  cells.close(filled)
  neighbors = {
    "connectivities_key": "spatial_connectivities",
    "distances_key": "spatial_distances",
  }
  _write_element(file["uns"], "spatial_neighbors", neighbors)
  return cells.markers


class _Cells:
  """What has a row, or an entry, per cell: X, obs, obsm and obsp."""

  def __init__(self, file: "h5py.File", first: ImageCells, num_cells: int):
    """Opens the arrays.

    Args:
      file: to write to.
      first: of the columns and types that all have.
      num_cells: of all images.
    """
    self.markers = first.markers
    width = (len(self.markers),)
    self._counts = _open_array(file, "X", np.float32, width)
    self._obs = file.create_group("obs")
    self._names = _open_array(self._obs, "_index", None)
    self._regions = {
      # Nothing tells the type of what was read from a table without rows.
      name: _open_array(
        self._obs, name, np.float64 if values.dtype == object else values.dtype
      )
      for name, values in first.regions.items()
    }
    places = _open_group(file, "obsm")
    self._pixels = _open_array(places, "pixels", np.float64, (2,))
    self._spatial = _open_array(places, _SPATIAL_KEY, np.float64, (2,))
    self._pairs = _Pairs(_open_group(file, "obsp"), num_cells)

  def add(self, row: Row, image: ImageCells, start_px: np.ndarray) -> None:
    """Takes the cells of the next image.

    Args:
      row: of images.csv.
      image: its cells.
      start_px: x and y of where the image lies among the others.
    """
    _check_columns(row, image.markers, self.markers)
    _check_columns(row, image.regions, self._regions)
    self._counts.add(image.counts)
    names = [f"Object {number} in {row['image']}" for number in image.ids]
    self._names.add(np.array(names, object))
    for name, array in self._regions.items():
      array.add(image.regions[name])
    pixels = np.zeros((len(image.ids), 2))
    if "centroid-0" in image.regions and "centroid-1" in image.regions:
      pixels[:, 0] = image.regions["centroid-1"]
      pixels[:, 1] = image.regions["centroid-0"]
    self._pixels.add(pixels)
    self._spatial.add(pixels + start_px)
    self._pairs.add(image, pixels)

  def close(self, rows: Sequence[Row]) -> None:
    """Writes what waits, and what is told once an image.

    Args:
      rows: of images.csv, of the images with cells.
    """
    arrays = (self._counts, self._names, self._pixels, self._spatial)
    for array in (*arrays, *self._regions.values()):
      array.close()
    self._pairs.close()
    repeats = [row["num_cells"] for row in rows]
    described = _describe_images(rows)
    for name, column in described.items():
      _write_repeated(self._obs, str(name), column.array, repeats)
    names = list(described.columns)
    # Image comes first.
    self._obs.attrs["column-order"] = [*names[:1], *self._regions, *names[1:]]
    self._obs.attrs["_index"] = "_index"
    _tell_kind(self._obs, "dataframe", "0.2.0")


class _Pairs:
  """Neighbours: ids within an image as rows and columns of all cells' matrices.

  Compressed by row; the indices are the same in all of them.
  """

  def __init__(self, group: "h5py.Group", num_cells: int):
    self._group = group
    self._shape = (num_cells, num_cells)
    is_large = num_cells * _MAX_NEIGHBORS > _MAX_INT32
    self._dtype = np.int64 if is_large else np.int32
    self._adjacent = self._open("adj", np.uint8)
    self._linked = self._open("spatial_connectivities", np.float64)
    self._apart = self._open("spatial_distances", np.float64)
    self._told: GrowingArray | None = None  # Distances of the tables.
    first = group["adj"]
    self._indices = GrowingArray(first, "indices", self._dtype)
    self._starts = GrowingArray(first, "indptr", self._dtype)
    self._starts.add(np.zeros(1, self._dtype))
    self._num_cells = 0
    self._num_pairs = 0

  def add(self, image: ImageCells, pixels: np.ndarray) -> None:
    """Takes the neighbours of the next image.

    Args:
      image: its cells.
      pixels: x and y of them.
    """
    rows, columns = image.rows, image.columns
    if self._told is None and np.isfinite(image.distances).any():
      self._told = self._open("dist", np.float32)
      self._told.add(np.full(self._num_pairs, np.nan, np.float32))
    if self._told is not None:
      self._told.add(image.distances)
    self._adjacent.add(np.ones(len(rows), np.uint8))
    self._linked.add(np.ones(len(rows)))
    self._apart.add(np.linalg.norm(pixels[rows] - pixels[columns], axis=1))
    self._indices.add(columns.astype(self._dtype) + self._num_cells)
    ends = np.bincount(rows, minlength=len(pixels)).cumsum(dtype=self._dtype)
    self._starts.add(ends + self._num_pairs)
    self._num_cells += len(pixels)
    self._num_pairs += len(rows)

  def close(self) -> None:
    """Writes what waits."""
    told = [] if self._told is None else [self._told]
    arrays = (self._adjacent, self._linked, self._apart, *told)
    for array in (*arrays, self._indices, self._starts):
      array.close()
    first = self._group["adj"]
    for matrix in self._group.values():
      if matrix != first:  # Further names of the same arrays.
        matrix["indices"], matrix["indptr"] = first["indices"], first["indptr"]

  def _open(self, name: str, dtype: np.typing.DTypeLike) -> GrowingArray:
    matrix = self._group.create_group(name)
    matrix.attrs["shape"] = self._shape
    _tell_kind(matrix, "csr_matrix", "0.1.0")
    return GrowingArray(matrix, "data", dtype)


def _check_columns(
  row: Row, names: Iterable[str], wanted: Iterable[str]
) -> None:
  found, wanted = list(names), list(wanted)
  if found != wanted:
    raise ValueError(
      f"{row['image']}: found columns {', '.join(found)}, expected "
      f"{', '.join(wanted)}, as of the other images"
    )


def _lay_apart(rows: Sequence[Row]) -> Iterator[np.ndarray]:
  """Yields where each image starts: x and y in px."""
  num_columns = math.ceil(math.sqrt(len(rows)))
  names = ("width_px", "height_px")
  edges = (row.get(name) or 0 for row in rows for name in names)
  pitch = _PITCH * max(edges, default=0)
  for k in range(len(rows)):
    place = np.array([k % num_columns, k // num_columns], np.float64)
    yield place * pitch


def _describe_images(rows: Sequence[Row]) -> pd.DataFrame:
  """Returns the columns of obs that are equal in all cells of an image."""
  table = pd.DataFrame(rows) if rows else pd.DataFrame({"image": []})
  table = table.rename(columns=lambda name: f"image_{name}")
  names = table.pop("image_image").astype(object)
  table.insert(0, "Image", names)
  return _fix_types(table)


def _fix_types(table: pd.DataFrame) -> pd.DataFrame:
  """Makes every column one that HDF5 can hold: no mixed objects."""
  fixed = table.copy(deep=False)
  for name in table.select_dtypes("object"):
    known = table[name].dropna()
    if len(known) and all(isinstance(v, bool | np.bool_) for v in known):
      is_full = len(known) == len(table)
      fixed[name] = table[name].astype("bool" if is_full else "boolean")
    else:
      texts = table[name].map(str, na_action="ignore")
      fixed[name] = pd.Categorical(texts)
  return fixed


def _describe_markers(
  names: Sequence[str], panel: Panel | None
) -> pd.DataFrame:
  var = pd.DataFrame({"name": list(names)}, index=list(names))
  var.index = var.index.astype(object)  # Also where there is none.
  if panel is None:
    return var  # Files that are the two channels already.
  rows = [row for row in panel.rows if row.is_asked]
  if make_unique([row.name for row in rows]) != tuple(names):
    return var  # Of these, too, or no image was done.
  var.insert(0, "channel", [row.channel or "" for row in rows])
  var["keep"] = [row.is_kept for row in rows]
  var["nuclear"] = [row.is_nuclear for row in rows]
  var["membrane_cytoplasm"] = [row.is_membrane for row in rows]
  return var


def _describe_image(image: ImageCells) -> dict[str, Any]:
  """Returns an image's entry in uns, as squidpy's plots look for it."""
  area_px = float(np.median(image.regions.get("area", 1)))
  return {
    "images": {} if image.mask is None else {"segmentation": image.mask},
    "scalefactors": {
      "tissue_hires_scalef": 1.0,
      "spot_diameter_fullres": 2 * math.sqrt(area_px / math.pi),
    },
  }


def _write_element(group: "h5py.Group", name: str, value: Any) -> None:
  """Writes a value into a group, as AnnData's specification has it.

  See its page "On-disk format".
  """
  import h5py

  if isinstance(value, Mapping):
    within = _open_group(group, name)
    for key, one in value.items():
      _write_element(within, key, one)
  elif isinstance(value, pd.DataFrame):
    within = group.create_group(name)
    within.attrs["column-order"] = list(value.columns)
    within.attrs["_index"] = "_index"
    _write_element(within, "_index", value.index.to_numpy())
    for key, column in value.items():
      _write_repeated(within, str(key), column.array, None)
    _tell_kind(within, "dataframe", "0.2.0")
  elif isinstance(value, str):
    text = group.create_dataset(name, data=np.array(value, h5py.string_dtype()))
    _tell_kind(text, "string", "0.2.0")
  elif isinstance(value, bool | int | float):
    number = group.create_dataset(name, data=np.array(value))
    _tell_kind(number, "numeric-scalar", "0.2.0")
  elif value is None:
    nothing = group.create_dataset(name, data=h5py.Empty("f"))
    _tell_kind(nothing, "null", "0.1.0")
  else:
    values = np.asarray(value)
    kind = "string-array" if values.dtype.kind == "O" else "array"
    _tell_kind(write_packed(group, name, values), kind, "0.2.0")


def _write_repeated(
  group: "h5py.Group",
  name: str,
  values: pd.api.extensions.ExtensionArray,
  repeats: Sequence[int] | None,
) -> None:
  """Writes a column of a table, each value as often as is told."""

  def repeat(one: np.ndarray) -> np.ndarray:
    return one if repeats is None else np.repeat(one, repeats)

  if isinstance(values, pd.Categorical):
    within = group.create_group(name)
    within.attrs["ordered"] = bool(values.ordered)
    _write_element(within, "codes", repeat(values.codes))
    _write_element(within, "categories", values.categories.to_numpy())
    _tell_kind(within, "categorical", "0.2.0")
  elif isinstance(values, pd.arrays.BooleanArray):
    within = group.create_group(name)
    is_true = values.to_numpy(bool, na_value=False)
    _write_element(within, "values", repeat(is_true))
    _write_element(within, "mask", repeat(values.isna()))
    _tell_kind(within, "nullable-boolean", "0.1.0")
  else:
    _write_element(group, name, repeat(np.asarray(values)))


def _open_group(group: "h5py.Group", name: str) -> "h5py.Group":
  within = group.create_group(name)
  _tell_kind(within, "dict", "0.1.0")
  return within


def _open_array(
  group: "h5py.Group",
  name: str,
  dtype: np.typing.DTypeLike | None,
  width: tuple[int, ...] = (),
) -> GrowingArray:
  """Opens an array of numbers, or of texts, to which rows are added."""
  array = GrowingArray(group, name, dtype, width)
  _tell_kind(array.dataset, "array" if dtype else "string-array", "0.2.0")
  return array


def _tell_kind(
  element: "h5py.Group | h5py.Dataset", kind: str, version: str
) -> None:
  """Says what an element is."""
  element.attrs["encoding-type"] = kind
  element.attrs["encoding-version"] = version


def read_anndata(path: pathlib.Path) -> "anndata.AnnData":
  """Reads cells.h5ad.

  Raises:
    ValueError: there is none, or it is damaged; one line.
  """
  import anndata

  try:
    return anndata.read_h5ad(path)
  except Exception as error:  # Damage makes HDF5 raise anything.
    text = " ".join(str(error).split())[:200]
    raise ValueError(
      f"{path}: found {text}, expected the cells.h5ad of predict"
    ) from error
