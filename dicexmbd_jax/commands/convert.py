"""`convert`: from predict's output folder to the formats of its neighbours."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from dicexmbd_jax.io import (
  h5ad,
  images,
  listing,
  ome_zarr_writer,
  qupath,
  spatial_data,
  write,
)
from dicexmbd_jax.io import panel as panel_reader
from dicexmbd_jax.masks import outlines
from dicexmbd_jax.runs import finished, results
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.types import ImageSource, LoadedImage, Panel

Path = pathlib.Path
FORMATS = ("spatialdata", "geojson", "ome-zarr", "steinbock")

# What a steinbock project gets.
PROJECT_FILES = ("cells.h5ad", "images.csv", "panel.csv")
PROJECT_FOLDERS = (
  *("img", "ome", "masks", "masks_deepcell"),
  *("intensities", "regionprops", "neighbors"),
)


@dataclasses.dataclass(frozen=True)
class Request:
  """What to convert, to what, with which pixels.

  Attributes:
    results: the output folder of predict.
    output: the folder, or the store, to write.
    format: one of FORMATS.
    images: folder, file or glob of the images that were predicted on; None
      where pixels are not asked for.
    panel_path: their panel; None: that of the results.
    ngff: version of OME-Zarr.
    overwrite: whether what is there is replaced.
  """

  results: Path
  output: Path
  format: str
  images: str | None = None
  panel_path: Path | None = None
  ngff: str = "0.4"
  overwrite: bool = False

  def __post_init__(self):
    """Raises a ValueError, one line, where the call cannot be done."""
    choices = {"--format": FORMATS, "--ngff": (*ome_zarr_writer.ZARR_FORMATS,)}
    found = {"--format": self.format, "--ngff": self.ngff}
    for flag, value in found.items():
      if value not in choices[flag]:
        wanted = ", ".join(choices[flag])
        raise ValueError(f"{flag}: found {value!r}, expected one of {wanted}")
    if self.format == "ome-zarr" and not self.images:
      raise ValueError("--format=ome-zarr: expected also --images")
    if self.output.resolve() == self.results.resolve():
      raise ValueError(
        f"--output: found the results' own folder {self.output}, expected "
        "another"
      )


@dataclasses.dataclass(frozen=True)
class Material:
  """The results, and where the pixels are.

  Attributes:
    rows: of images.csv, by stem.
    sources: the images, by stem; none where no pixels are asked for.
    panel: to read them with.
  """

  rows: Mapping[str, Mapping[str, Any]]
  sources: Mapping[str, ImageSource]
  panel: Panel | None

  def list_files(self) -> list[Path]:
    """Returns the files that the pixels are read from."""
    paths: list[Path] = []
    for one in self.sources.values():
      paths += (one.path, *one.fallbacks, *one.parts)
      paths += (path for _, path in one.planes)
    return paths


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: results, output, format, images, panel, ngff, overwrite.
  """
  try:
    request = Request(
      results=Path(flags.results),
      output=Path(flags.output),
      format=flags.format or FORMATS[0],
      images=flags.images,
      panel_path=Path(flags.panel) if flags.panel else None,
      ngff=flags.ngff,
      overwrite=flags.overwrite,
    )
    return run_request(request)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)


def run_request(request: Request) -> int:
  """Converts all images; returns 0, or 1 where some could not be.

  Raises:
    ValueError, OSError: nothing can be converted; one line.
  """
  study = read_study(request)
  refuse_inputs(request, study)
  failures = FailureLog()
  if request.format == "spatialdata":
    num_done = convert_together(request, study, failures)
  else:
    num_done = convert_each(request, study, failures)
  logging.info("%d images converted: %s", num_done, request.output)
  return 1 if failures else 0


def read_study(request: Request) -> Material:
  """Lists results and images.

  Raises:
    ValueError: no results, or no images.
  """
  rows = finished.list_rows(request.results)
  panel: Panel | None = None
  sources: list[ImageSource] = []
  if request.images:
    if request.panel_path:
      panel = panel_reader.read_panel(request.panel_path)
    else:
      panel = finished.read_panel(request.results)
    sources, _ = listing.list_stacks(request.images, panel)
  return Material(rows, {one.stem: one for one in sources}, panel)


def read_pixels(
  request: Request, study: Material, stem: str
) -> LoadedImage | None:
  """Reads an image's channels; None where pixels are not asked for.

  Raises:
    ValueError: there is no such image, it cannot be read, or it is of another
      size than the results.
  """
  if not request.images:
    return None
  if stem not in study.sources:
    raise ValueError(
      f"{request.images}: found no image {stem}, expected those of "
      f"{request.results}"
    )
  source = study.sources[stem]
  loaded = images.read_image(source, study.panel)
  row = study.rows[stem]
  size, wanted = loaded.stack.shape[:2], (row["height_px"], row["width_px"])
  if size != wanted:
    raise ValueError(
      f"{source.path}: found {size} px, expected {wanted}, as {stem} of "
      f"{request.results}"
    )
  return loaded


def convert_each(
  request: Request, study: Material, failures: FailureLog
) -> int:
  """Converts image by image; returns how many went well."""
  if request.format == "steinbock":
    start_project(request)
  converters: dict[str, Callable[[Request, Material, str], None]] = {
    "geojson": write_geojson,
    "ome-zarr": write_store,
    "steinbock": add_to_project,
  }
  convert = converters[request.format]
  for stem in study.rows:
    try:
      convert(request, study, stem)
    except Exception as error:  # One bad image must not stop the others.
      failures.add(stem, request.results, error)
  return len(study.rows) - len(failures)


def refuse_inputs(request: Request, study: Material):
  """Refuses to replace what is read, with --overwrite, too.

  Raises:
    ValueError: an image or a store to be written is one of the images, or it
      holds some, or the results.
  """
  inputs = [path.resolve() for path in (request.results, *study.list_files())]
  places = {place for path in inputs for place in (path, *path.parents)}
  for target in list_targets(request, study):
    if target.resolve() in places:
      raise ValueError(
        f"{target}: found images or results that are read, expected another "
        "--output"
      )


def list_targets(request: Request, study: Material) -> list[Path]:
  """Returns the images and the stores that are to be written."""
  output, stems = request.output, study.rows
  targets = {
    "spatialdata": [output],
    "geojson": [],
    "ome-zarr": [name_store(output, stem) for stem in stems],
    "steinbock": [path for stem in stems for path in name_images(output, stem)],
  }
  return targets[request.format]


def write_geojson(request: Request, study: Material, stem: str):
  """Writes an image's cells as QuPath's objects."""
  path = request.output / f"{stem}.geojson"
  refuse_existing(path, request.overwrite)
  image = finished.read_image(request.results, stem, study.rows[stem])
  qupath.write_cells(
    path,
    stem,
    outlines.trace_labels(image.cells),
    outlines.trace_labels(image.nuclei),
    name_measurements(image),
  )


def name_measurements(image: finished.FinishedImage) -> pd.DataFrame:
  """Returns a row per cell, columns named in QuPath's way."""
  means = image.intensities.set_index("Object").add_suffix(": Cell: Mean")
  regions = image.regions.set_index("Object").add_prefix("Cell: ")
  return means.join(regions)


def write_store(request: Request, study: Material, stem: str):
  """Writes an image and its masks as OME-Zarr."""
  loaded = read_pixels(request, study, stem)
  assert loaded is not None
  image = finished.read_image(request.results, stem, study.rows[stem])
  ome_zarr_writer.write_ome_zarr(
    name_store(request.output, stem),
    loaded.stack,
    loaded.names,
    image.pixel_size_um,
    {"cells": image.cells, "nuclei": image.nuclei},
    request.ngff,
    request.overwrite,
  )


def name_store(output: Path, stem: str) -> Path:
  """Returns an image's OME-Zarr."""
  return output / f"{stem}.ome.zarr"


def start_project(request: Request):
  """Writes what all images of a steinbock project share.

  Raises:
    ValueError: another project is there.
  """
  check_project(request)
  output = request.output
  for name in ("images.csv", "panel.csv"):
    copy_file(request.results / name, output / name)
  cells = h5ad.read_anndata(request.results / "cells.h5ad")
  # Steinbock has each image's name twice, and readers ask for both.
  cells.obs["image"] = cells.obs["Image"]
  write.write_h5ad(output / "cells.h5ad", cells)


def check_project(request: Request):
  """Refuses to write over the files of a steinbock project.

  Raises:
    ValueError: there are some, and they are not to be replaced.
  """
  output = request.output
  for name in PROJECT_FILES:
    refuse_existing(output / name, request.overwrite)
  for name in PROJECT_FOLDERS:
    if any((output / name).glob("[!.]*")):
      refuse_existing(output / name, request.overwrite)


def name_images(output: Path, stem: str) -> tuple[Path, Path]:
  """Returns where a steinbock project has an image, twice."""
  return output / "img" / f"{stem}.tiff", output / "ome" / f"{stem}.ome.tiff"


def add_to_project(request: Request, study: Material, stem: str):
  """Adds an image to a steinbock project.

  Its tables and its image in ome/ are there only if it has cells: readers
  refuse images without.
  """
  image = finished.read_image(request.results, stem, study.rows[stem])
  mask = results.locate(request.results, "masks", stem)
  for folder in ("masks", "masks_deepcell"):
    copy_file(mask, request.output / folder / f"{stem}.tiff")
  kinds = (
    ("intensities", "regionprops", "neighbors") if len(image.regions) else ()
  )
  for kind in kinds:
    path = results.locate(request.results, kind, stem)
    copy_file(path, request.output / kind / path.name)
  loaded = read_pixels(request, study, stem)
  if loaded is None:
    return
  names = tuple(image.intensities.columns.drop("Object"))
  path, link = name_images(request.output, stem)
  stack = order_channels(loaded, names, request.results / "panel.csv", stem)
  write.write_stack(path, stack, names, image.pixel_size_um)
  if kinds:
    link_file(path, link)


def order_channels(
  loaded: LoadedImage, names: tuple[str, ...], panel: Path, stem: str
) -> np.ndarray:
  """Returns the channels of some names, in their order, float32 (y, x, m).

  A project's images tell no names: its panel.csv does, by the order.

  Args:
    loaded: the image, maybe read with another panel.
    names: the markers of the results.
    panel: their file, for the message.
    stem: the image's name, for the message.

  Raises:
    ValueError: a marker is not there.
  """
  missing = [name for name in names if name not in loaded.names]
  if missing:
    raise ValueError(
      f"{stem}: found the channels {', '.join(loaded.names)}, expected also "
      f"{', '.join(missing)}, as in {panel}"
    )
  if names == loaded.names:
    return loaded.stack
  return loaded.stack[..., [loaded.names.index(name) for name in names]]


def copy_file(source: Path, target: Path):
  """Copies a file, whole or not at all.

  A link would hand what other programs write into it on to the results.
  """
  with write.replace_file(target) as temporary:
    shutil.copyfile(source, temporary)


def link_file(source: Path, target: Path):
  """Gives a file a second name; copies it where the file system cannot."""
  with write.replace_file(target) as temporary:
    try:
      os.link(source, temporary)
    except OSError:
      shutil.copyfile(source, temporary)


def convert_together(
  request: Request, study: Material, failures: FailureLog
) -> int:
  """Writes one store of all images; returns how many went well.

  Raises:
    ValueError: no spatialdata, or a store that is not to be replaced.
  """
  elements = spatial_data.name_elements(list(study.rows))
  spatial_data.write_spatial_data(
    request.output,
    read_spatial_images(request, study, failures),
    elements,
    h5ad.read_anndata(request.results / "cells.h5ad"),
    request.overwrite,
  )
  return len(study.rows) - len(failures)


def read_spatial_images(
  request: Request, study: Material, failures: FailureLog
) -> Iterator[spatial_data.SpatialImage]:
  """Yields the images that can be read; the others are added to `failures`."""
  for stem, row in study.rows.items():
    try:
      image = finished.read_image(request.results, stem, row)
      loaded = read_pixels(request, study, stem)
      outline = outlines.trace_labels(image.cells)
    except Exception as error:  # One bad image must not stop the others.
      failures.add(stem, request.results, error)
      continue
    yield spatial_data.SpatialImage(
      stem,
      image.pixel_size_um,
      image.cells,
      image.nuclei,
      outline,
      loaded.stack if loaded else None,
      loaded.names if loaded else (),
    )


def refuse_existing(path: Path, overwrite: bool):
  """Raises a ValueError where a file is there, and not to be replaced."""
  if path.exists() and not overwrite:
    raise ValueError(
      f"{path}: found a result already there, expected a new name; "
      "--overwrite replaces it"
    )
