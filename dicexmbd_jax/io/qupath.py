"""Cells as QuPath's objects, in GeoJSON."""

import json
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dicexmbd_jax.io import write

# Polygons of a cell's pieces; each is its outer ring, then those of its holes.
Outline = Sequence[Sequence[Sequence[tuple[int, int]]]]


def write_cells(
  path: str | pathlib.Path,
  stem: str,
  cells: Mapping[int, Outline],
  nuclei: Mapping[int, Outline],
  measurements: pd.DataFrame,
) -> None:
  """Writes the cells of one image as a collection of QuPath's cell objects.

  A cell of several pieces is a multipolygon, and so is its nucleus. The same
  cells get the same ids whenever they are written.

  Args:
    path: the file to write, ending in .geojson.
    stem: the image's; ids are made from it.
    cells: outlines by the cell's id, in px, as masks.outlines gives them.
    nuclei: the same of nuclei; cells that have none are not in it.
    measurements: a row per cell, indexed by its id; columns named as QuPath is
      to show them.

  Raises:
    OSError: the file cannot be written.
  """
  rows = measurements.to_dict("index")
  features = [
    _make_feature(stem, number, outline, nuclei.get(number), rows.get(number))
    for number, outline in cells.items()
  ]
  collection = {"type": "FeatureCollection", "features": features}
  write.write_text(path, json.dumps(collection, separators=(",", ":")))


def _make_feature(
  stem: str,
  number: int,
  cell: Outline,
  nucleus: Outline | None,
  row: Mapping[Any, Any] | None,
) -> dict[str, Any]:
  name = f"Object {number} in {stem}.tiff"  # As in cells.h5ad.
  feature = {
    "type": "Feature",
    "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
    "geometry": _make_geometry(cell),
    "properties": {
      "objectType": "cell",
      "name": name,
      # JSON has no NaN; QuPath takes a missing value for it.
      "measurements": {
        key: float(value)
        for key, value in (row or {}).items()
        if value == value
      },
    },
  }
  if nucleus:
    feature["nucleusGeometry"] = _make_geometry(nucleus)
  return feature


def _make_geometry(outline: Outline) -> dict[str, Any]:
  if len(outline) == 1:
    return {"type": "Polygon", "coordinates": outline[0]}
  return {"type": "MultiPolygon", "coordinates": outline}
