"""From strokes on images to a fitted teacher."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from dicexmbd_jax import __version__
from dicexmbd_jax.runs import pool
from dicexmbd_jax.teach import features, forest, project, strokes
from dicexmbd_jax.teach.features import Feature
from dicexmbd_jax.teach.inputs import is_like, list_inputs, view_image
from dicexmbd_jax.teach.strokes import Annotated, Failure
from dicexmbd_jax.teach.teacher import Teacher, View, gather_rows
from dicexmbd_jax.types import Panel

# What maps are like that lack a class, in the order of forest.CLASSES.
_WITHOUT = (
  "no cell will be found",
  "cells will end with their nuclei",
  "cells will fill the image",
)


@dataclasses.dataclass(frozen=True)
class FitRequest:
  """One call of `teach fit`.

  Attributes:
    annotations: folder of drawings, or an Ilastik project.
    images: where the images are; None: where the project says.
    panel_file: for the teacher's record.
    panel: which channels are what, or None.
    view: how images are looked at.
    seed: decides everything random.
    output: the teacher's folder.
    keeps_forest: whether to take over the project's own forest.
    num_workers: processes, and threads of the forest, or None: one per core.
  """

  annotations: str
  images: str | None
  panel_file: str | None
  panel: Panel | None
  view: View
  seed: int
  output: pathlib.Path
  keeps_forest: bool
  num_workers: int | None


@dataclasses.dataclass(frozen=True)
class ImageRows:
  """What one image adds: its annotated pixels.

  Attributes:
    values: float32 (n, columns).
    labels: int32 (n,).
    names: of the channels.
    num_channels: how many these are.
    pixel_size_um: of the working grid; None where the file does not say.
    warnings: one line each.
  """

  values: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]
  num_channels: int
  pixel_size_um: float | None
  warnings: tuple[str, ...]


def pair_strokes(
  request: FitRequest,
) -> tuple[list[Annotated], list[Failure], tuple[Feature, ...]]:
  """Returns the images with strokes, what cannot be used, and the features.

  Raises:
    ValueError: nothing is there, or the project cannot be used.
  """
  if strokes.is_project(request.annotations):
    found, selection = project.open_project(request.annotations)
    return *strokes.pair_lanes(found, request.images), selection
  # Label files come with the images: the command sees to that.
  images = request.images or ""
  listed = list_inputs(images)
  pairs = strokes.pair_labels(request.annotations, images, listed)
  return *pairs, features.list_features()


def gather_image(
  request: FitRequest, selection: tuple[Feature, ...], item: Annotated
) -> ImageRows:
  """Returns one image's annotated pixels.

  Raises:
    ValueError: strokes or image cannot be read or do not fit one another.
  """
  viewed = view_image(
    item.source, request.view, request.panel, item.inner, item.axes
  )
  rows, columns = viewed.planes.shape[:2]
  scale = request.view.scale
  drawn = strokes.read_strokes(item, (rows // scale, columns // scale))
  drawn = strokes.fit_strokes(item, drawn, (rows, columns), scale)
  values, labels = gather_rows(viewed.planes, drawn, selection)
  return ImageRows(
    values,
    labels,
    names=viewed.names,
    num_channels=viewed.planes.shape[2],
    pixel_size_um=viewed.pixel_size_um,
    warnings=viewed.warnings,
  )


def fit_teacher(
  request: FitRequest,
  selection: tuple[Feature, ...],
  rows: Mapping[str, ImageRows],
) -> Teacher:
  """Fits the forest.

  Args:
    request: seed, view, and what the record names.
    selection: the features.
    rows: by what holds the strokes.

  Raises:
    ValueError: no rows, images of different channels, fewer than two classes.
  """
  where = request.annotations
  parts = list(rows.values())
  if not parts:
    raise ValueError(
      f"{where}: found no strokes that can be used, expected some"
    )
  names, num_channels = check_channels(rows)
  labels = np.concatenate([part.labels for part in parts])
  values = np.concatenate([part.values for part in parts])
  num_threads = pool.count_workers(request.num_workers, forest.NUM_TREES)
  try:
    trees = forest.fit_forest(
      values, labels, request.seed, num_threads=max(num_threads, 1)
    )
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from error
  warn_of_missing_classes(where, count_classes(labels))
  logging.info("%s", describe_counts(labels))
  record = {  # For people.
    "version": __version__,
    "seed": request.seed,
    "num_trees": forest.NUM_TREES,
    "annotations": where,
    "panel": request.panel_file,
    "pixels": {
      shown: count_classes(part.labels) for shown, part in rows.items()
    },
  }
  view = dataclasses.replace(
    request.view,
    names=names,
    num_channels=num_channels,
    pixel_size_um=find_pixel_size(where, rows, request.view.scale),
  )
  return Teacher(view, selection, trees, record)


def warn_of_missing_classes(where: str, counts: Sequence[int]) -> None:
  """Says which classes have no stroke, and what becomes of the maps.

  Args:
    where: the annotations.
    counts: the pixels of every class.
  """
  for name, count, outcome in zip(
    forest.CLASSES, counts, _WITHOUT, strict=True
  ):
    if not count:
      logging.warning(
        "%s: found no stroke of %s, expected strokes of %s: its probability "
        "will be 0, so that %s",
        where,
        name,
        ", ".join(forest.CLASSES),
        outcome,
      )


def check_channels(
  rows: Mapping[str, ImageRows],
) -> tuple[tuple[str, ...], int]:
  """Returns the channels' names and number; all images must agree.

  Raises:
    ValueError: they do not.
  """
  first, *others = rows.items()
  for shown, part in others:
    for mine, theirs in (
      (part.num_channels, first[1].num_channels),
      (part.names, first[1].names),
    ):
      if mine != theirs:
        raise ValueError(
          f"{shown}: found channels {mine}, expected {theirs} as in {first[0]}"
        )
  return first[1].names, first[1].num_channels


def find_pixel_size(
  where: str, rows: Mapping[str, ImageRows], scale: int
) -> float | None:
  """Returns the working grid's median pixel size in um; warns of several.

  Args:
    where: the annotations.
    rows: by what holds the strokes.
    scale: working pixels per pixel of the image, whose sizes are told.
  """
  known = [
    (part.pixel_size_um, shown)
    for shown, part in rows.items()
    if part.pixel_size_um
  ]
  if not known:
    return None
  (low_um, finest), (high_um, coarsest) = min(known), max(known)
  if not is_like(low_um, high_um):
    logging.warning(
      "%s: found pixels of %.3g um (%s) to %.3g um (%s), expected one "
      "size: one structure looks different at each",
      where,
      low_um * scale,
      finest,
      high_um * scale,
      coarsest,
    )
  return float(np.median([size_um for size_um, _ in known]))


def count_classes(labels: np.ndarray) -> list[int]:
  """Counts the pixels of every class."""
  counts = np.bincount(labels, minlength=len(forest.CLASSES) + 1)
  return [int(count) for count in counts[1:]]


def describe_counts(labels: np.ndarray) -> str:
  """Says how many pixels of each class there are."""
  counts: Sequence[int] = count_classes(labels)
  return ", ".join(
    f"{count} px {name}"
    for count, name in zip(counts, forest.CLASSES, strict=True)
  )
