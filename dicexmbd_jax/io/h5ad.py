"""Gathers the tables of all images into one AnnData object."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dicexmbd_jax.io.names import make_unique
from dicexmbd_jax.types import Labels, Panel

if TYPE_CHECKING:  # Slow to import, and not needed before the last step.
  import anndata

_SPATIAL_KEY = "spatial"  # Where squidpy looks for coordinates and masks.
# From one image's start to the next, in edges of the largest: further apart
# than any two cells of an image.
_PITCH = 3


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


def build_anndata(
  tables: Sequence[ImageTables], panel: Panel | None = None
) -> "anndata.AnnData":
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
    tables: per image; images without cells add nothing.
    panel: the panel that chose the channels.

  Returns:
    An object of as many observations as there are cells, possibly none.
  """
  import anndata

  intensities = _concatenate([one.intensities for one in tables])
  obs = _concatenate([_describe_cells(one) for one in tables])
  if "Image" not in obs:  # Not one image.
    obs = pd.DataFrame({"Image": [], "Object": []})
  obs.index = pd.Index(
    [
      f"Object {number} in {image}"
      for number, image in zip(obs["Object"], obs["Image"], strict=True)
    ],
    dtype=object,
  )
  counts = intensities.drop(columns="Object", errors="ignore")
  data = anndata.AnnData(
    X=counts.to_numpy(np.float32).reshape(len(obs), counts.shape[1]),
    obs=_fix_types(obs),
    var=_describe_markers(list(counts.columns), panel),
  )
  _add_space(data, tables)
  return data


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


def _concatenate(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
  """Stacks tables; empty ones only lend their columns where all are empty."""
  filled = [part for part in parts if len(part)] or list(parts[:1])
  return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


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
  fixed = obs.copy()
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


def _add_space(data: "anndata.AnnData", tables: Sequence[ImageTables]) -> None:
  """Adds coordinates and neighbours to the object that was just made."""
  columns = ["centroid-1", "centroid-0"]
  pixels = np.zeros((len(data.obs), 2))
  if set(columns) <= set(data.obs):
    pixels = data.obs[columns].to_numpy(np.float64)
  filled = [one for one in tables if len(one.intensities)]
  data.obsm["pixels"] = pixels
  data.obsm[_SPATIAL_KEY] = pixels + _lay_apart(filled)
  data.uns[_SPATIAL_KEY] = {
    one.image["image"]: _describe(one) for one in filled
  }
  rows, others, distances = _index_neighbors(tables)
  shape = (data.n_obs, data.n_obs)

  def make_matrix(values: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((values, (rows, others)), shape=shape)

  apart = np.linalg.norm(pixels[rows] - pixels[others], axis=1)
  data.obsp["adj"] = make_matrix(np.ones(len(rows), np.uint8))
  if np.isfinite(distances).any():
    data.obsp["dist"] = make_matrix(distances)
  data.obsp["spatial_connectivities"] = make_matrix(np.ones(len(rows)))
  data.obsp["spatial_distances"] = make_matrix(apart)
  data.uns["spatial_neighbors"] = {
    "connectivities_key": "spatial_connectivities",
    "distances_key": "spatial_distances",
  }


def _lay_apart(tables: Sequence[ImageTables]) -> np.ndarray:
  """Returns where each cell's image starts: float (n, 2), x and y in px."""
  edges = [
    one.image.get(f"{name}_px") or 0
    for one in tables
    for name in ("width", "height")
  ]
  num_columns = math.ceil(math.sqrt(len(tables)))
  places = [(k % num_columns, k // num_columns) for k in range(len(tables))]
  starts = (
    np.array(places, np.float64).reshape(-1, 2) * _PITCH * max(edges or [0])
  )
  return np.repeat(starts, [len(one.intensities) for one in tables], axis=0)


def _describe(tables: ImageTables) -> dict[str, Any]:
  """Returns an image's entry in uns, as squidpy's plots look for it."""
  area = tables.regions["area"] if "area" in tables.regions else pd.Series([1])
  diameter_px = 2 * math.sqrt(float(area.median()) / math.pi)
  images = {}
  if tables.cells is not None:
    highest = int(tables.cells.max(initial=0))
    dtype = np.uint16 if highest < 2**16 else np.uint32
    images["segmentation"] = tables.cells.astype(dtype)
  return {
    "images": images,
    "scalefactors": {
      "tissue_hires_scalef": 1.0,
      "spot_diameter_fullres": diameter_px,
    },
  }


def _index_neighbors(
  tables: Sequence[ImageTables],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Turns ids within an image into rows of the whole object."""
  rows, others, distances = [], [], []
  start = 0
  for one in tables:
    place = pd.Series(
      np.arange(start, start + len(one.intensities)),
      index=one.intensities["Object"],
    )
    start += len(place)
    rows.append(place.loc[one.neighbors["Object"]].to_numpy())
    others.append(place.loc[one.neighbors["Neighbor"]].to_numpy())
    distances.append(one.neighbors["Distance"].to_numpy(np.float32))
  if not tables:
    empty = np.zeros(0, np.int64)
    return empty, empty, np.zeros(0, np.float32)
  return (
    np.concatenate(rows),
    np.concatenate(others),
    np.concatenate(distances),
  )
