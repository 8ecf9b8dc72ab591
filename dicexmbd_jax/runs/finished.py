"""What `predict` has left in an output folder, for what is made from it."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dicexmbd_jax.io import json_file, labels, tables
from dicexmbd_jax.io import panel as panel_reader
from dicexmbd_jax.runs import results
from dicexmbd_jax.types import Labels, Panel

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class FinishedImage:
  """The files of one image.

  Attributes:
    stem: its name.
    row: its row of images.csv.
    cells: 0 = background, ids 1..n.
    nuclei: the same ids.
    intensities: Object and a column per marker.
    regions: Object and the columns of regionprops.
  """

  stem: str
  row: Mapping[str, Any]
  cells: Labels
  nuclei: Labels
  intensities: pd.DataFrame
  regions: pd.DataFrame

  @property
  def pixel_size_um(self) -> float:
    """Edge of a pixel."""
    return float(self.row["pixel_size_um"])


def list_rows(output: Path) -> dict[str, dict[str, Any]]:
  """Returns the rows of images.csv by the images' stems.

  Raises:
    ValueError: no results of predict, or of a run that did not end; one line.
    OSError: no record of the run can be read.
  """
  path = output / "images.csv"
  if not (output / "run.json").is_file() or not path.is_file():
    raise ValueError(
      f"{output}: found no run.json and images.csv, expected an output folder "
      "of predict"
    )
  record = output / "run.json"
  state = json_file.read_json(record).get("state")
  # Images may be of that run, and what covers all of an earlier one.
  if state is not None:
    raise ValueError(
      f"{record}: found a run that is {state}, expected a finished one; run "
      "predict again"
    )
  rows = tables.read_table(path, ["image"], ["pixel_size_um", "num_cells"])
  missing = {"image", "pixel_size_um", "num_cells"} - set(rows)
  if missing and len(rows):
    raise ValueError(
      f"{path}: found no column {', '.join(sorted(missing))}, expected the "
      "images.csv of predict"
    )
  return {
    str(row["image"]).removesuffix(".tiff"): row
    for row in rows.to_dict("records")
  }


def read_image(
  output: Path, stem: str, row: Mapping[str, Any]
) -> FinishedImage:
  """Reads the files of one image.

  Raises:
    ValueError: a file is missing, damaged, or does not fit the others.
  """
  intensities, regions, _ = results.read_tables(output, stem)
  masks = {}
  for kind in ("masks", "nuclei"):
    path = results.locate(output, kind, stem)
    masks[kind] = labels.read_labels(path)
  cells = masks["masks"]
  ids, areas = np.unique(cells[cells > 0], return_counts=True)
  path = results.locate(output, "intensities", stem)
  if not list(ids) == list(intensities["Object"]) == list(regions["Object"]):
    raise ValueError(
      f"{path}: found {len(intensities)} cells, expected the {len(ids)} of "
      f"{results.locate(output, 'masks', stem)}"
    )
  path = results.locate(output, "masks", stem)
  if len(ids) != row["num_cells"]:
    raise ValueError(
      f"{path}: found {len(ids)} cells, expected the {row['num_cells']} of "
      f"{output / 'images.csv'}"
    )
  # `segment` in the same folder writes over the masks alone.
  if list(areas) != list(regions["area"]):
    raise ValueError(
      f"{path}: found cells of other areas, expected those of "
      f"{results.locate(output, 'regionprops', stem)}"
    )
  return FinishedImage(stem, row, cells, masks["nuclei"], intensities, regions)


def read_panel(output: Path) -> Panel | None:
  """Returns the panel of the measured markers; None if images had none.

  Raises:
    ValueError: there is none, or it is damaged.
    OSError: no record of the run.
  """
  if json_file.read_json(output / "run.json").get("panel_sha256") == "":
    return None
  return panel_reader.read_panel(output / "panel.csv")
