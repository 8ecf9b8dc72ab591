"""Writes images, masks, outlines and the table of a study as SpatialData."""

import contextlib
import dataclasses
import pathlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dicexmbd_jax import extras
from dicexmbd_jax.io import write
from dicexmbd_jax.io.names import make_unique
from dicexmbd_jax.types import Labels, Stack

if TYPE_CHECKING:
  import anndata

_MAX_EDGE_PX = 1024  # Of a pyramid's smallest level.


@dataclasses.dataclass(frozen=True)
class SpatialImage:
  """One image of the store.

  Attributes:
    stem: its name.
    pixel_size_um: edge of a pixel.
    cells: 0 = background, ids 1..n.
    nuclei: the same ids.
    outlines: polygons of each cell's pieces by its id, in px.
    stack: counts (y, x, m); None: left out.
    names: of the counts' channels.
  """

  stem: str
  pixel_size_um: float
  cells: Labels
  nuclei: Labels
  outlines: Mapping[int, Sequence[Any]]
  stack: Stack | None = None
  names: Sequence[str] = ()


def check_installed() -> None:
  """Raises a ValueError, one line, where the package is missing."""
  try:
    import spatialdata  # noqa: F401
  except ImportError as error:
    line = extras.describe_missing(error) or (
      f"found no spatialdata that can be imported ({error}), expected the "
      "extra spatialdata: pip install 'dicexmbd-jax[spatialdata]'"
    )
    raise ValueError(f"--format=spatialdata: {line}") from error


def name_elements(stems: Sequence[str]) -> dict[str, str]:
  """Returns what each image is called in the store, which allows no spaces."""
  plain = [re.sub(r"[^A-Za-z0-9_.-]", "_", stem).lstrip("_.") for stem in stems]
  return dict(
    zip(stems, make_unique([n or "image" for n in plain]), strict=True)
  )


def write_spatial_data(
  path: pathlib.Path,
  images: Iterable[SpatialImage],
  elements: Mapping[str, str],
  table: "anndata.AnnData",
  overwrite: bool = False,
) -> None:
  """Writes one store for all images, one of them in memory at a time.

  Image NAME gives NAME_image, NAME_cells and NAME_nuclei (labels) and
  NAME_outlines (polygons), all in a coordinate system NAME in um. The table
  annotates the cells: region_key "region", instance_key "Object". Images and
  labels whose longer edge is beyond 1024 px are pyramids.

  Args:
    path: the store, ending in .zarr.
    images: in any order; those that raise are the caller's to leave out.
    elements: NAME of each image, by its stem.
    table: as cells.h5ad has it; cells of images that are not given are left
      out.
    overwrite: whether a store that is there is replaced.

  Raises:
    ValueError: a store is there, and not to be replaced; or a folder of other
      files, which never is; no spatialdata.
    OSError: a file cannot be written.
  """
  check_installed()
  import spatialdata

  with write.replace_folder(path, overwrite) as folder, _quiet():
    folder.rmdir()  # It makes its folder itself.
    store = spatialdata.SpatialData()
    store.write(folder)
    written = []
    for image in images:
      for name, element in _make_elements(image, elements[image.stem]):
        store[name] = element
        store.write_element(name)
        del store[name]
      written.append(image.stem)
    kept = table[table.obs["Image"].isin([f"{stem}.tiff" for stem in written])]
    if kept.n_obs:
      store["table"] = _make_table(kept.copy(), elements)
      store.write_element("table")
    store.write_consolidated_metadata()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps the libraries' advice to programmers from the user."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield


def _make_elements(image: SpatialImage, name: str) -> Iterator[tuple[str, Any]]:
  import geopandas
  import shapely
  from spatialdata import models, transformations

  def place(axes: tuple[str, ...] = ("y", "x")) -> dict[str, Any]:
    size_um = image.pixel_size_um
    return {name: transformations.Scale([size_um] * 2, axes=axes)}

  levels = _count_levels(image.cells.shape)
  more = {"scale_factors": [2] * levels} if levels else {}
  if image.stack is not None:
    planes = np.moveaxis(write.shrink_counts(image.stack), -1, 0)
    yield f"{name}_image", models.Image2DModel.parse(
      np.ascontiguousarray(planes), dims=("c", "y", "x"),
      c_coords=list(image.names), transformations=place(), **more,
    )  # fmt: skip
  for kind, labels in (("cells", image.cells), ("nuclei", image.nuclei)):
    yield (
      f"{name}_{kind}",
      models.Labels2DModel.parse(
        labels, dims=("y", "x"), transformations=place(), **more
      ),
    )
  if image.outlines:
    shapes = [
      shapely.MultiPolygon([(rings[0], rings[1:]) for rings in polygons])
      for polygons in image.outlines.values()
    ]
    frame = geopandas.GeoDataFrame(
      geometry=shapes, index=pd.Index(list(image.outlines), name="Object")
    )
    yield (
      f"{name}_outlines",
      models.ShapesModel.parse(frame, transformations=place()),
    )


def _count_levels(shape_px: Sequence[int]) -> int:
  edge, levels = max(shape_px), 0
  while edge > _MAX_EDGE_PX:
    edge, levels = edge // 2, levels + 1
  return levels


def _make_table(
  table: "anndata.AnnData", elements: Mapping[str, str]
) -> "anndata.AnnData":
  from spatialdata import models

  stems = table.obs["Image"].astype(str).str.removesuffix(".tiff")
  table.obs["region"] = pd.Categorical([f"{elements[s]}_cells" for s in stems])
  return models.TableModel.parse(
    table,
    region=list(table.obs["region"].cat.categories),
    region_key="region",
    instance_key="Object",
  )
