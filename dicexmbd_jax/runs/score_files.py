"""The files of an evaluation: tables, summary, figures and the page."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dicexmbd_jax import __version__
from dicexmbd_jax.io import write
from dicexmbd_jax.report import score_page
from dicexmbd_jax.report.cell_figures import Example
from dicexmbd_jax.runs import failures
from dicexmbd_jax.scores import summary as summary_lib

Path = pathlib.Path

# Of tables without rows.
CELL_COLUMNS = (
  "method",
  "image",
  "mask",
  "id",
  "area_px",
  "matched_id",
  "iou",
  "kind",
)
MARKER_COLUMNS = ("method", "image", "marker", "pearson", "num_cells")


@dataclasses.dataclass
class Results:
  """What the images give.

  Attributes:
    scores: method -> image -> score -> value.
    cells: tables with a row per cell, one per image and method.
    markers: tables with a row per marker, likewise; none without images.
    log: what could not be evaluated.
  """

  scores: dict[str, dict[str, dict[str, float]]]
  cells: list[pd.DataFrame] = dataclasses.field(default_factory=list)
  markers: list[pd.DataFrame] = dataclasses.field(default_factory=list)
  log: failures.FailureLog = dataclasses.field(
    default_factory=failures.FailureLog
  )


def write_tables(results: Results, output: Path, seed: int) -> dict[str, dict]:
  """Writes the tables and summary.json; returns the summary.

  Raises:
    OSError: the output folder cannot be written to.
  """
  results.log.write(output)
  rows = [
    {"method": name, "image": stem, **scores}
    for name, images in results.scores.items()
    for stem, scores in images.items()
  ]
  per_image = pd.DataFrame(rows, columns=None if rows else ["method", "image"])
  write.write_table(output / "per_image.csv", per_image)
  for name, tables, columns in (
    ("per_cell", results.cells, CELL_COLUMNS),
    ("per_marker", results.markers, MARKER_COLUMNS),
  ):
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
    write.write_table(output / f"{name}.csv", table)
  found = summary_lib.summarise_methods(results.scores, seed)
  write.write_json(output / "summary.json", drop_nan(found))
  return found


def drop_nan(value: Any) -> Any:
  """Replaces NaN, which JSON does not have, by None; tuples by lists."""
  if isinstance(value, Mapping):
    return {name: drop_nan(part) for name, part in value.items()}
  if isinstance(value, tuple | list):
    return [drop_nan(part) for part in value]
  return None if isinstance(value, float) and value != value else value


def write_report(
  results: Results,
  example: Example | None,
  summary: Mapping[str, Mapping],
  output: Path,
  details: Mapping[str, str],
) -> None:
  """Draws the figures and writes them and the page.

  Args:
    results: what the images gave.
    example: the image that is shown.
    summary: of write_tables.
    output: the output folder.
    details: of the call, by name.

  Raises:
    OSError: the output folder cannot be written to.
  """
  images = [
    {"method": name, "image": stem, **values}
    for name, found in results.scores.items()
    for stem, values in found.items()
  ]
  report = score_page.ScoreReport(
    summary=summary,
    images=pd.DataFrame(images),
    ious=collect_matched(results, "iou"),
    example=example,
    profiles=collect_matched(results, "profile_pearson"),
    markers=pd.concat(results.markers) if results.markers else None,
    failures=[line for _, _, line in results.log.rows],
    details={**details, "Version": __version__},
  )
  for name in score_page.CAPTIONS:  # Of another evaluation, maybe.
    for kind in ("png", "pdf"):
      (output / "figures" / f"{name}.{kind}").unlink(missing_ok=True)
  pictures = {}
  for name, page in score_page.draw_figures(report).items():
    pictures[name] = score_page.render_figure(page, "png")
    for kind, data in (
      ("png", pictures[name]),
      ("pdf", score_page.render_figure(page, "pdf")),
    ):
      with write.replace_file(output / "figures" / f"{name}.{kind}") as path:
        path.write_bytes(data)
  write.write_text(
    output / "report.html", score_page.render_page(report, pictures)
  )


def collect_matched(results: Results, column: str) -> dict[str, np.ndarray]:
  """Values of all one-to-one pairs by method; without the column, nothing."""
  tables = [table for table in results.cells if column in table]
  if not tables:
    return {}
  cells = pd.concat(tables)
  is_pair = (cells["mask"] == "predicted") & (cells["kind"] == "matched")
  groups = cells[is_pair].groupby("method")[column]
  found = {name: values.to_numpy() for name, values in groups}
  return {name: found[name] for name in results.scores if name in found}


def make_table(
  labels: Mapping[str, str], columns: Mapping[str, Any]
) -> pd.DataFrame:
  """Puts the labels, the same in each row, before the columns."""
  table = pd.DataFrame(columns)
  for i, (name, value) in enumerate(labels.items()):
    table.insert(i, name, value)
  return table
