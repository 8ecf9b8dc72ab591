"""The output folder: one file per image and kind, then what covers all images.

An image's row of the tables and its part of the report wait in its state. What
covers all images is made from the files of the images, not from memory: the
images of an earlier run have no other place, and thousands fit.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from dicexmbd_jax import chain
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import h5ad, images, labels, write
from dicexmbd_jax.io import tables as tables_reader
from dicexmbd_jax.io.names import make_unique
from dicexmbd_jax.masks.settings import find_map_scale
from dicexmbd_jax.report import image_report, overlay, run_page
from dicexmbd_jax.runs import state as state_lib
from dicexmbd_jax.runs.failures import FailureLog
from dicexmbd_jax.runs.shelf import Shelf
from dicexmbd_jax.types import Grid, ImageRecord, Labels, Panel

Path = pathlib.Path

# Of all images together: beyond it, cells.h5ad has no masks.
MAX_EMBEDDED_PX = 2**27

# Of one image: what cells.h5ad gets of it is told, from process to process.
MAX_TOLD_PX = 2**22

# Of images.csv where there is no image; sources add columns of their own.
IMAGE_COLUMNS = ["image", "width_px", "height_px", "num_channels"]

# Kinds of files per image: folder and suffix.
FILES = {
  "probabilities": ".tiff",
  "nuclei": ".tiff",
  "masks": ".tiff",
  "intensities": ".csv",
  "regionprops": ".csv",
  "neighbors": ".csv",
  "overlays": ".png",
}
TABLES = ("intensities", "regionprops", "neighbors")


def locate(output: Path, kind: str, stem: str) -> Path:
  """Returns the path of an image's file; `kind` is a key of FILES."""
  return output / kind / f"{stem}{FILES[kind]}"


def find_fault(output: Path, stem: str, key: Mapping[str, str]) -> str | None:
  """Says why an image is not finished, as state.find_fault does."""
  return state_lib.find_fault(
    output, stem, key, lambda kind: locate(output, kind, stem)
  )


def list_finished(
  output: Path, stems: Iterable[str], hashes: Mapping[str, str]
) -> list[str]:
  """Returns the images with a state of the given hashes.

  Their files and their input are not looked at: this is for a run that has just
  written them.
  """
  found = []
  for stem in stems:
    with contextlib.suppress(OSError, ValueError):
      if hashes.items() <= state_lib.read(output, stem)["key"].items():
        found.append(stem)
  return found


def discard_image(output: Path, stem: str):
  """Removes an image's files of an earlier run."""
  files = [locate(output, kind, stem) for kind in FILES]
  state_lib.discard(output, stem, files)


@dataclasses.dataclass(frozen=True)
class ImageResult:
  """What is told of an image whose files are written.

  Attributes:
    num_cells: in it.
    cells: for cells.h5ad; None of a share's image, and of a large one, whose
      files are read again.
  """

  num_cells: int
  cells: h5ad.ImageCells | None


def finish_image(
  record: ImageRecord,
  config: ConfigDict,
  method: str,
  output: Path,
  is_share: bool,
) -> ImageResult:
  """Segments and measures one image, and writes its files.

  Args:
    record: with its maps.
    config: the whole configuration.
    method: "network", or a baseline of segment.METHODS.
    output: the output folder.
    is_share: whether another run makes cells.h5ad.

  Raises:
    OSError: a file cannot be written; names it.
  """
  record = chain.segment_record(record, config, method)
  started = time.perf_counter()
  record = chain.measure_record(record)
  write_image(output, record, config.image.pixel_size_um, started)
  cells = None
  if not is_share and record.cells.size <= MAX_TOLD_PX:
    tables = (record.tables[kind] for kind in TABLES)
    cells = _pack_cells(tables, record.cells)
  return ImageResult(len(record.tables["regionprops"]), cells)


def write_image(
  output: Path, record: ImageRecord, model_pixel_um: float, started: float
):
  """Writes all files of one image, the state last.

  Args:
    output: the output folder.
    record: with its tables.
    model_pixel_um: pixel size of the network's grid.
    started: when measuring began, on time.perf_counter's clock.

  Raises:
    OSError: a file cannot be written; names it.
  """
  stem, size = record.source.stem, record.pixel_size_um
  picture = overlay.draw_overlay(record.image, record.cells, record.nuclei)
  paths = {kind: locate(output, kind, stem) for kind in FILES}
  state_lib.forget(output, stem)
  if record.has_probabilities:
    write.write_probabilities(
      paths["probabilities"],
      record.maps,
      model_pixel_um / record.magnification,
      Grid(record.cells.shape, size),
      find_map_scale(model_pixel_um),
    )
  else:
    # A network may have left it in an earlier run.
    paths.pop("probabilities").unlink(missing_ok=True)
  write.write_labels(paths["nuclei"], record.nuclei, size)
  write.write_labels(paths["masks"], record.cells, size)
  for name, table in record.tables.items():
    write.write_table(paths[name], table)
  write.write_png(paths["overlays"], picture)
  row = images.describe_image(record.source, record.loaded)
  seconds = time.perf_counter() - started
  report = image_report.summarise_image(
    record, picture, {**record.seconds, "measure, draw, write": seconds}
  )
  num_cells = len(record.tables["regionprops"])
  state_lib.save(
    output,
    stem,
    record.key,
    paths,
    row={
      **row,
      "num_cells": num_cells,
      "pixel_size_um": size,
      "magnification": record.magnification,
      "doubt": record.doubt,
    },
    report=image_report.dump_report(report),
  )


def write_run(
  output: Path,
  stems: Sequence[str],
  failures: FailureLog,
  panel: Panel | None,
  run: Mapping[str, Any],
  told: Shelf | None = None,
):
  """Writes what covers all images: tables, report, record of the run.

  Args:
    output: the output folder.
    stems: the finished images, in order.
    failures: the images that failed.
    panel: goes into cells.h5ad as the description of the markers.
    run: the record of the run, as `run.json` has it.
    told: the cells of images, by stem; those of others are read.

  Raises:
    OSError: a file cannot be written; names it.
    ValueError: a file of a finished image was damaged meanwhile; names it.
  """
  is_compact = len(stems) + len(failures) > run_page.MAX_OPEN_IMAGES
  rows, reports = [], []
  for stem in stems:  # A state holds pictures: one at a time in memory.
    state = state_lib.read(output, stem)
    rows.append(state["row"])
    reports.append(image_report.parse_report(state["report"], is_compact))
  failures.write(output)
  table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=IMAGE_COLUMNS)
  write.write_table(output / "images.csv", table)
  cells = gather_cells(output, stems, rows, told)
  markers = h5ad.write_cells(output / "cells.h5ad", rows, cells, panel)
  write_panel(output / "panel.csv", markers, panel)
  reports += [
    image_report.ImageReport(
      stem=stem or Path(file).name, source=file, error=error
    )
    for stem, file, error in failures.rows
  ]
  page = run_page.render_report(reports, describe_run(run))
  write.write_text(output / "report.html", page)
  stages = sum_stages(reports)
  whole = {**run, "seconds": {**stages, **run["seconds"]}}
  if rows:
    whole["magnification"] = count_magnifications(rows)
  write.write_json(output / "run.json", whole)


def gather_cells(
  output: Path,
  stems: Sequence[str],
  rows: Sequence[Mapping[str, Any]],
  told: Shelf | None,
) -> Iterator[h5ad.ImageCells]:
  """Yields the cells of images, with their masks where these are few.

  Args:
    output: the output folder.
    stems: the images.
    rows: their rows of images.csv.
    told: the cells of images, by stem; those of others are read.
  """
  num_px = sum(row["width_px"] * row["height_px"] for row in rows)
  has_masks = num_px <= MAX_EMBEDDED_PX
  for stem in stems:
    cells = None if told is None else told.take(stem)
    if cells is None:
      path = locate(output, "masks", stem)
      mask = labels.read_labels(path) if has_masks else None
      cells = _pack_cells(read_tables(output, stem), mask)
    yield cells if has_masks else dataclasses.replace(cells, mask=None)


def _pack_cells(
  tables: Iterable[pd.DataFrame], mask: Labels | None
) -> h5ad.ImageCells:
  """Returns the cells of tables that come in the order of TABLES."""
  intensities, regions, neighbors = tables
  return h5ad.pack_cells(intensities, regions, neighbors, mask)


def write_panel(path: Path, markers: pd.DataFrame, panel: Panel | None):
  """Writes the measured markers as steinbock's panel: names as in the tables.

  A channel that was left out keeps its row, since files without names are read
  by the rows' places. A run whose own panel is this file leaves it alone.

  Args:
    path: the file to write.
    markers: `var` of cells.h5ad.
    panel: of the run.
  """
  if panel is not None and panel.path.absolute() == path.absolute():
    return
  if "channel" in markers:
    assert panel is not None
    rows = _list_panel_rows(markers, panel)
  else:  # Files that are the two channels already.
    rows = [
      (name, name, 1, int(name == "nuclear"), int(name != "nuclear"))
      for name in markers["name"]
    ]
  columns = ("channel", "name", "keep", "nuclear", "membrane_cytoplasm")
  table = pd.DataFrame(rows, columns=columns)
  # Steinbock wants each channel to have one, and of its own.
  table["channel"] = make_unique(table["channel"])
  write.write_table(path, table)


def _list_panel_rows(
  markers: pd.DataFrame, panel: Panel
) -> list[tuple[str, str, int, int, int]]:
  """Returns channel, name, keep, nuclear and membrane of a panel's rows."""
  others = [row.name for row in panel.rows if not row.is_asked]
  # Steinbock refuses names that repeat, of channels left out, too.
  unique = make_unique([*markers["name"], *others])
  names = {True: iter(markers["name"]), False: iter(unique[len(markers) :])}
  rows = []
  for row in panel.rows:
    name = str(next(names[row.is_asked]))
    flags = int(row.is_asked), int(row.is_nuclear), int(row.is_membrane)
    rows.append((row.channel or name, name, *flags))
  return rows


def count_magnifications(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
  """Returns how many images the network saw at each magnification."""
  found = sorted(row["magnification"] for row in rows)
  return {f"{factor:g}": found.count(factor) for factor in dict.fromkeys(found)}


def sum_stages(reports: Sequence[image_report.ImageReport]) -> dict[str, float]:
  """Returns the seconds of each stage, over all images and processes."""
  totals: dict[str, float] = {}
  for report in reports:
    for stage, seconds in report.seconds.items():
      totals[stage] = round(totals.get(stage, 0.0) + seconds, 3)
  return totals


def read_tables(output: Path, stem: str) -> list[pd.DataFrame]:
  """Returns an image's intensities, regionprops and neighbors."""
  return [
    tables_reader.read_table(locate(output, kind, stem)) for kind in TABLES
  ]


def describe_run(run: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the run as the report's head and its table of details show it.

  How the weights were trained is left to run.json.
  """
  config = {
    f"config.{name}": value
    for name, value in run["config"].items()
    if name.partition(".")[0] not in config_lib.SECTIONS
  }
  details = {
    "command": run["command"],
    "weights (SHA-256)": run["model"]["sha256"],
    **config,
    **run["versions"],
  }
  return {
    "date": run["finished"],
    "version": run["versions"]["dicexmbd_jax"],
    "model": run["model"]["name"],
    "device": run["device"],
    "seconds": run["seconds"]["total"],
    "details": details,
  }
