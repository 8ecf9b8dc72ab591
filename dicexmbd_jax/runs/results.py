"""The output folder: one file per image and kind, then what covers all images.

An image's row of the tables and its part of the report wait in its state.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dicexmbd_jax.io import h5ad, write
from dicexmbd_jax.io import tables as tables_reader
from dicexmbd_jax.masks import confidence, measure
from dicexmbd_jax.masks.segment import Segmentation
from dicexmbd_jax.report import image_report, overlay, run_page
from dicexmbd_jax.runs import state as state_lib
from dicexmbd_jax.runs.failures import FailureLog
from dicexmbd_jax.types import Image, LoadedImage, Panel, Probabilities

Path = pathlib.Path

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


@dataclasses.dataclass(frozen=True)
class ImageOutputs:
  """All that is known of one image once it is segmented.

  Attributes:
    stem: name of the files.
    row: the image's row of images.csv.
    loaded: counts and names, on the input grid.
    image: the two channels, on the input grid, for the overlay.
    probabilities: on the network's grid; None where no network ran.
    masks: nuclei and cells, on the input grid.
    model_pixel_um: pixel size of the network's grid.
    pixel_size_um: of the input grid.
    doubt: of confidence.measure_doubt; None without cells or network.
    seconds: by stage.
  """

  stem: str
  row: Mapping[str, Any]
  loaded: LoadedImage
  image: Image
  probabilities: Probabilities | None
  masks: Segmentation
  model_pixel_um: float
  pixel_size_um: float
  doubt: float | None
  seconds: Mapping[str, float]


def locate(output: Path, kind: str, stem: str) -> Path:
  """Returns the path of an image's file; `kind` is a key of FILES."""
  return output / kind / f"{stem}{FILES[kind]}"


def is_finished(output: Path, stem: str, key: Mapping[str, str]) -> bool:
  """Whether all files of an image are there, made from what `key` names."""
  return state_lib.is_finished(
    output, stem, key, lambda kind: locate(output, kind, stem)
  )


def discard_image(output: Path, stem: str):
  """Removes an image's files of an earlier run."""
  files = [locate(output, kind, stem) for kind in FILES]
  state_lib.discard(output, stem, files)


def write_image(output: Path, outputs: ImageOutputs, key: Mapping[str, str]):
  """Measures one image and writes all its files, the state last.

  Raises:
    OSError: a file cannot be written; names it.
  """
  stem, cells = outputs.stem, outputs.masks.cells
  loaded = outputs.loaded
  started = time.perf_counter()
  intensities = measure.measure_intensities(loaded.stack, cells, loaded.names)
  regions = measure.measure_regions(cells)
  picture = overlay.draw_overlay(outputs.image, cells, outputs.masks.nuclei)

  def path(kind: str) -> Path:
    return locate(output, kind, stem)

  size = outputs.pixel_size_um
  kinds = [*FILES]
  state_lib.forget(output, stem)
  if outputs.probabilities is None:
    kinds.remove("probabilities")
  else:
    write.write_probabilities(
      path("probabilities"), outputs.probabilities, outputs.model_pixel_um
    )
  write.write_labels(path("nuclei"), outputs.masks.nuclei, size)
  write.write_labels(path("masks"), cells, size)
  write.write_table(path("intensities"), intensities)
  write.write_table(
    path("regionprops"), regions.assign(is_border=outputs.masks.is_border)
  )
  write.write_table(path("neighbors"), measure.measure_neighbors(cells))
  write.write_png(path("overlays"), picture)
  report = image_report.summarise_image(
    image_report.ImageResult(
      stem=stem,
      source=str(outputs.row["source_file"]),
      shape=cells.shape,
      pixel_size_um=size,
      areas_px=regions["area"].to_numpy(),
      centroids_px=regions[["centroid-0", "centroid-1"]].to_numpy(),
      names=loaded.names,
      intensities=intensities.to_numpy()[:, 1:],
      overlay=picture,
      doubt=outputs.doubt,
      warnings=(*loaded.warnings, *confidence.advise(outputs.doubt)),
      seconds={
        **outputs.seconds,
        "measure, draw, write": time.perf_counter() - started,
      },
    )
  )
  state_lib.save(
    output,
    stem,
    key,
    kinds,
    row={
      **outputs.row,
      "num_cells": len(regions),
      "pixel_size_um": size,
      "doubt": outputs.doubt,
    },
    report=json.loads(image_report.dump_report(report)),
  )


def write_run(
  output: Path,
  stems: Sequence[str],
  failures: FailureLog,
  panel: Panel | None,
  run: Mapping[str, Any],
):
  """Writes what covers all images: tables, report, record of the run.

  Args:
    output: the output folder.
    stems: the finished images, in order.
    failures: the images that failed.
    panel: goes into cells.h5ad as the description of the markers.
    run: the record of the run, as `run.json` has it.

  Raises:
    OSError: a file cannot be written; names it.
  """
  is_compact = len(stems) + len(failures) > run_page.MAX_OPEN_IMAGES
  rows, reports = [], []
  for stem in stems:  # A state holds pictures: one at a time in memory.
    state = state_lib.read(output, stem)
    rows.append(state["row"])
    report = json.dumps(state["report"])
    reports.append(image_report.parse_report(report, is_compact))
  failures.write(output)
  table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=IMAGE_COLUMNS)
  write.write_table(output / "images.csv", table)
  tables = [
    h5ad.ImageTables(row, *read_tables(output, stem))
    for stem, row in zip(stems, rows, strict=True)
  ]
  write.write_h5ad(output / "cells.h5ad", h5ad.build_anndata(tables, panel))
  reports += [
    image_report.ImageReport(
      stem=stem or Path(file).name, source=file, error=error
    )
    for stem, file, error in failures.rows
  ]
  page = run_page.render_report(reports, describe_run(run))
  write.write_text(output / "report.html", page)
  stages = sum_stages(reports)
  seconds = {**stages, **run["seconds"]}
  write.write_json(output / "run.json", {**run, "seconds": seconds})


def sum_stages(reports: Sequence[image_report.ImageReport]) -> dict[str, float]:
  """Returns the seconds of each stage, over all images and processes."""
  totals: dict[str, float] = {}
  for report in reports:
    for stage, seconds in report.seconds.items():
      totals[stage] = round(totals.get(stage, 0.0) + seconds, 3)
  return totals


def read_tables(output: Path, stem: str) -> list[pd.DataFrame]:
  """Returns an image's intensities, regionprops and neighbors."""
  kinds = ("intensities", "regionprops", "neighbors")
  return [
    tables_reader.read_table(locate(output, kind, stem)) for kind in kinds
  ]


def describe_run(run: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the run as the report's head and its table of details show it."""
  details = {
    "command": run["command"],
    "weights (SHA-256)": run["model"]["sha256"],
    **{f"config.{name}": value for name, value in run["config"].items()},
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
