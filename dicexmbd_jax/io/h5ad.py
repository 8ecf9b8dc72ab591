"""Gathers the tables of all images into one file, as AnnData has them.

It is written by h5py alone: importing anndata takes longer than all else that
comes after an image, and the layout of its files is a public specification.
"""

import dataclasses
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dicexmbd_jax.io import write
from dicexmbd_jax.io.names import make_unique
from dicexmbd_jax.types import Labels, Panel

if TYPE_CHECKING:  # Slow to import.
  import anndata
  import h5py

_SPATIAL_KEY = "spatial"  # Where squidpy looks for coordinates and masks.
# From one image's start to the next, in edges of the largest: further apart
# than any two cells of an image.
_PITCH = 3
# Level 1: a 25th larger than the default, in two thirds of the time.
_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}


@dataclasses.dataclass(frozen=True)
class ImageTables:
  """All tables of one image.

  Attributes:
    image: the image's row of images.csv; `image` is STEM.tiff.
    intensities: Object and one column per channel.
    regions: Object, centroid-0, centroid-1 and any other column.
    neighbors: Object, Neighbor, Distance.
    cells: the mask, where the object is to hold it.
  """

  image: Mapping[str, Any]
  intensities: pd.DataFrame
  regions: pd.DataFrame
  neighbors: pd.DataFrame
  cells: Labels | None = None


@dataclasses.dataclass(frozen=True)
class CellTable:
  """All cells of a run: what AnnData's parts of these names hold.

  Attributes:
    X: float32 (cell, marker).
    obs: one row per cell.
    var: one row per marker.
    obsm: arrays with one row per cell.
    obsp: matrices, cell by cell.
    uns: all else: mappings, arrays, words and numbers.
  """

  X: np.ndarray
  obs: pd.DataFrame
  var: pd.DataFrame
  obsm: Mapping[str, np.ndarray]
  obsp: Mapping[str, sparse.csr_matrix]
  uns: Mapping[str, Any]


def gather_cells(
  tables: Iterable[ImageTables], panel: Panel | None = None
) -> CellTable:
  """Gathers cells of all images, as steinbock's exporter does, and a bit more.

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

  Args:
    tables: per image; images without cells add nothing. Each is needed once, so
      that they need not be in memory together.
    panel: the panel that chose the channels.

  Returns:
    As many observations as there are cells, possibly none.
  """
  counts, described = _Stack(), _Stack()
  images, pairs = _Images(), _Pairs()
  for one in tables:
    counts.add(_take_counts(one.intensities))
    described.add(_describe_cells(one))
    pairs.add(one)
    images.add(one)
  values = counts.join()
  markers = list(values.columns)
  counts_px = values.to_numpy(np.float32)
  del values
  obs = described.join()
  if "Image" not in obs:  # Not one image.
    obs = pd.DataFrame({"Image": [], "Object": []})
  obs.index = pd.Index(
    [
      f"Object {number} in {image}"
      for number, image in zip(obs["Object"], obs["Image"], strict=True)
    ],
    dtype=object,
  )
  return CellTable(
    X=counts_px.reshape(len(obs), len(markers)),
    obs=_fix_types(obs),
    var=_describe_markers(markers, panel),
    **_describe_space(obs, images, pairs),
  )


def write_cells(path: pathlib.Path, cells: CellTable) -> None:
  """Writes cells.h5ad, the very bytes that anndata would write.

  Raises:
    OSError: the file cannot be written.
  """
  import h5py

  nothing: Mapping[str, Any] = {}
  parts = {
    "X": cells.X,
    "obs": cells.obs,
    "var": cells.var,
    "obsm": cells.obsm,
    "varm": nothing,
    "obsp": cells.obsp,
    "varp": nothing,
    "layers": nothing,
    "uns": cells.uns,
    "raw": None,
  }
  # By way of memory: when the disk is full, HDF5 takes the process down.
  buffer = io.BytesIO()
  with h5py.File(buffer, "w") as file:
    for name, value in parts.items():
      _write_element(file, name, value)
    _tell_kind(file, "/", "anndata", "0.1.0")
  with write.replace_file(path) as temporary:
    temporary.write_bytes(buffer.getbuffer())


def _write_element(group: "h5py.Group", name: str, value: Any) -> None:
  """Writes a value into a group, as AnnData's specification has it.

  See its page "On-disk format"; contents come before what they are, in the
  order of anndata's own writer.
  """
  import h5py

  if isinstance(value, Mapping):
    within = group.create_group(name)
    for key, one in value.items():
      _write_element(within, key, one)
    _tell_kind(group, name, "dict", "0.1.0")
  elif isinstance(value, pd.DataFrame):
    within = group.create_group(name)
    within.attrs["column-order"] = list(value.columns)
    within.attrs["_index"] = "_index"
    _write_element(within, "_index", value.index.to_numpy())
    for key, column in value.items():
      _write_element(within, str(key), column.array)
    _tell_kind(group, name, "dataframe", "0.2.0")
  elif isinstance(value, sparse.csr_matrix):
    within = group.create_group(name)
    within.attrs["shape"] = value.shape
    for key in ("data", "indices", "indptr"):
      values = getattr(value, key)
      within.create_dataset(key, data=values, maxshape=(None,), **_PACKED)
    _tell_kind(group, name, "csr_matrix", "0.1.0")
  elif isinstance(value, pd.Categorical):
    within = group.create_group(name)
    within.attrs["ordered"] = bool(value.ordered)
    _write_element(within, "codes", value.codes)
    _write_element(within, "categories", value.categories.to_numpy())
    _tell_kind(group, name, "categorical", "0.2.0")
  elif isinstance(value, pd.arrays.BooleanArray):
    within = group.create_group(name)
    _write_element(within, "values", value.to_numpy(bool, na_value=False))
    _write_element(within, "mask", value.isna())
    _tell_kind(group, name, "nullable-boolean", "0.1.0")
  elif isinstance(value, str):
    group.create_dataset(name, data=np.array(value, h5py.string_dtype()))
    _tell_kind(group, name, "string", "0.2.0")
  elif isinstance(value, bool | int | float):
    group.create_dataset(name, data=np.array(value))
    _tell_kind(group, name, "numeric-scalar", "0.2.0")
  elif value is None:
    group.create_dataset(name, data=h5py.Empty("f"))
    _tell_kind(group, name, "null", "0.1.0")
  else:
    _write_array(group, name, np.asarray(value))


def _write_array(group: "h5py.Group", name: str, values: np.ndarray) -> None:
  import h5py

  kind, dtype = "array", values.dtype
  if dtype.kind == "O":
    kind, dtype = "string-array", h5py.string_dtype()
  group.create_dataset(name, data=values, dtype=dtype, **_PACKED)
  _tell_kind(group, name, kind, "0.2.0")


def _tell_kind(group: "h5py.Group", name: str, kind: str, version: str) -> None:
  """Says what an element is; after it was closed, which writes its data."""
  attributes = group[name].attrs
  attributes["encoding-type"] = kind
  attributes["encoding-version"] = version


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


class _Stack:
  """Tables on top of one another.

  Empty ones only lend their columns, where all are empty.
  """

  def __init__(self):
    self._filled: list[pd.DataFrame] = []
    self._empty: list[pd.DataFrame] = []

  def add(self, table: pd.DataFrame) -> None:
    """Takes the next table."""
    (self._filled if len(table) else self._empty).append(table)

  def join(self) -> pd.DataFrame:
    """Returns all as one, and forgets them."""
    parts = self._filled or self._empty[:1]
    self._filled, self._empty = [], []
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


class _Pairs:
  """Neighbours: ids within an image as rows of the whole object."""

  def __init__(self):
    self._rows: list[np.ndarray] = []
    self._others: list[np.ndarray] = []
    self._distances: list[np.ndarray] = []
    self._start = 0

  def add(self, tables: ImageTables) -> None:
    """Takes the neighbours of the next image."""
    objects, neighbors = tables.intensities["Object"], tables.neighbors
    stop = self._start + len(objects)
    place = pd.Series(np.arange(self._start, stop, dtype=np.int32), objects)
    self._start = stop
    self._rows.append(place.loc[neighbors["Object"]].to_numpy())
    self._others.append(place.loc[neighbors["Neighbor"]].to_numpy())
    self._distances.append(neighbors["Distance"].to_numpy(np.float32))

  def join(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns rows, rows of the neighbours, and distances."""
    if not self._rows:
      empty = np.zeros(0, np.int32)
      return empty, empty, np.zeros(0, np.float32)
    return (
      np.concatenate(self._rows),
      np.concatenate(self._others),
      np.concatenate(self._distances),
    )


class _Images:
  """Images with cells: what is known of each as a whole."""

  def __init__(self):
    self.described: dict[str, dict[str, Any]] = {}
    self._edges: list[float] = []
    self._counts: list[int] = []

  def add(self, tables: ImageTables) -> None:
    """Takes the next image."""
    if not len(tables.intensities):
      return
    self.described[tables.image["image"]] = _describe(tables)
    self._edges += [
      tables.image.get(f"{name}_px") or 0 for name in ("width", "height")
    ]
    self._counts.append(len(tables.intensities))

  def lay_apart(self) -> np.ndarray:
    """Returns where each cell's image starts: float (n, 2), x and y in px."""
    number = len(self._counts)
    num_columns = math.ceil(math.sqrt(number))
    places = [(k % num_columns, k // num_columns) for k in range(number)]
    starts = (
      np.array(places, np.float64).reshape(-1, 2)
      * _PITCH
      * max(self._edges or [0])
    )
    return np.repeat(starts, self._counts, axis=0)


def _take_counts(intensities: pd.DataFrame) -> pd.DataFrame:
  """Returns the markers' columns, as float32."""
  counts = intensities.drop(columns="Object", errors="ignore")
  return counts.astype(np.float32)


def _describe_cells(tables: ImageTables) -> pd.DataFrame:
  objects = tables.intensities["Object"]
  regions = tables.regions
  if not objects.equals(regions["Object"]):
    regions = objects.to_frame().merge(regions, on="Object")
  described = {
    f"image_{key}": value
    for key, value in tables.image.items()
    if key != "image"
  }
  count = len(regions)
  row = pd.DataFrame([described] * min(count, 1), columns=list(described))
  repeated = row.take(np.zeros(count, int)).set_axis(regions.index)
  cells = pd.concat([regions, repeated], axis=1)
  cells.insert(0, "Image", tables.image["image"])
  return cells


def _fix_types(obs: pd.DataFrame) -> pd.DataFrame:
  """Makes every column one that HDF5 can hold: no mixed objects."""
  fixed = obs.copy(deep=False)
  for name in obs.select_dtypes("object"):
    known = obs[name].dropna()
    if len(known) and all(isinstance(v, bool | np.bool_) for v in known):
      is_full = len(known) == len(obs)
      fixed[name] = obs[name].astype("bool" if is_full else "boolean")
    else:
      texts = obs[name].map(str, na_action="ignore")
      fixed[name] = pd.Categorical(texts)
  return fixed


def _describe_markers(
  names: Sequence[str], panel: Panel | None
) -> pd.DataFrame:
  var = pd.DataFrame({"name": list(names)}, index=list(names))
  var.index = var.index.astype(object)  # Also where there is none.
  rows = [
    row
    for row in (panel.rows if panel else ())
    if row.is_kept or row.is_nuclear or row.is_membrane
  ]
  if make_unique([row.name for row in rows]) != tuple(names):
    return var  # Files that are the two channels already.
  var.insert(0, "channel", [row.channel or "" for row in rows])
  var["keep"] = [row.is_kept for row in rows]
  var["nuclear"] = [row.is_nuclear for row in rows]
  var["membrane_cytoplasm"] = [row.is_membrane for row in rows]
  return var


def _describe_space(
  obs: pd.DataFrame, images: _Images, pairs: _Pairs
) -> dict[str, dict[str, Any]]:
  """Returns obsm, obsp and uns: coordinates, neighbours, masks."""
  columns = ["centroid-1", "centroid-0"]
  pixels = np.zeros((len(obs), 2))
  if set(columns) <= set(obs):
    pixels = obs[columns].to_numpy(np.float64)
  rows, others, distances = pairs.join()

  def make_matrix(values: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((values, (rows, others)), (len(obs), len(obs)))

  obsp = {"adj": make_matrix(np.ones(len(rows), np.uint8))}
  if np.isfinite(distances).any():
    obsp["dist"] = make_matrix(distances)
  apart = np.linalg.norm(pixels[rows] - pixels[others], axis=1)
  obsp["spatial_connectivities"] = make_matrix(np.ones(len(rows)))
  obsp["spatial_distances"] = make_matrix(apart)
  return {
    "obsm": {"pixels": pixels, _SPATIAL_KEY: pixels + images.lay_apart()},
    "obsp": obsp,
    "uns": {
      _SPATIAL_KEY: images.described,
      "spatial_neighbors": {
        "connectivities_key": "spatial_connectivities",
        "distances_key": "spatial_distances",
      },
    },
  }


def _describe(tables: ImageTables) -> dict[str, Any]:
  """Returns an image's entry in uns, as squidpy's plots look for it."""
  area = tables.regions["area"] if "area" in tables.regions else pd.Series([1])
  diameter_px = 2 * math.sqrt(float(area.median()) / math.pi)
  images = {}
  if tables.cells is not None:
    highest = int(tables.cells.max(initial=0))
    dtype = np.uint16 if highest < 2**16 else np.uint32
    images["segmentation"] = tables.cells.astype(dtype, copy=False)
  return {
    "images": images,
    "scalefactors": {
      "tissue_hires_scalef": 1.0,
      "spot_diameter_fullres": diameter_px,
    },
  }
