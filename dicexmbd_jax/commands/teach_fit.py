"""`teach fit`: from images and brush strokes to a teacher."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from dicexmbd_jax import __version__
from dicexmbd_jax.image import channels as channels_lib
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.runs import pool
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.teach import features, forest, packing, teacher_folder
from dicexmbd_jax.teach import project as project_lib
from dicexmbd_jax.teach import strokes as strokes_lib
from dicexmbd_jax.teach.features import Feature
from dicexmbd_jax.teach.inputs import Eyes, view_image
from dicexmbd_jax.teach.strokes import Annotated
from dicexmbd_jax.teach.teacher import CHANNELS, Teacher, View, gather_rows

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Job:
  """A fit, checked and ready.

  Attributes:
    items: the images with strokes.
    lost: (stem, file, error) of what cannot be used.
    eyes: how images are looked at.
    selection: the features.
    seed: decides everything random.
    output: the teacher's folder.
    num_workers: processes, or None: one per core.
  """

  items: tuple[Annotated, ...]
  lost: tuple[tuple[str, str, str], ...]
  eyes: Eyes
  selection: tuple[Feature, ...]
  seed: int
  output: Path
  num_workers: int | None


@dataclasses.dataclass(frozen=True)
class Rows:
  """What one image adds: its annotated pixels.

  Attributes:
    values: float32 (n, columns).
    labels: int32 (n,).
    names: of the channels.
    num_channels: how many these are.
    warnings: one line each.
  """

  values: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]
  num_channels: int
  warnings: tuple[str, ...]


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: images, panel, annotations, output, channels, scale, seed,
      keep_forest, num_workers, config.

  Returns:
    0: done; 1: some images failed; 2: wrong call, or no teacher can be fit.
  """
  failures = FailureLog()
  try:
    if flags.keep_forest:
      check_flags(flags, flags.channels or "all")
      project_lib.adopt_project(flags)
      return 0
    job = prepare_job(flags)
    failures.write(job.output)  # Tells at once whether one can write there.
    for stem, file, error in job.lost:
      failures.add(stem, file, ValueError(error))
    rows = gather_files(job, failures)
    failures.write(job.output)
    fit_rows(job, rows, flags)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  failed = failures.describe()
  logging.info("%d images used%s: %s", len(rows), failed, job.output)
  return 1 if failures else 0


def prepare_job(flags) -> Job:
  """Checks the call, reads the project, pairs strokes with images.

  Raises:
    ValueError: the call is wrong, or nothing is there.
  """
  is_project = strokes_lib.is_project(flags.annotations)
  # A project's strokes were drawn on its own images, so these are taken as
  # they are; otherwise the teacher should not depend on the panel.
  channels = flags.channels or ("all" if is_project else "merged")
  check_flags(flags, channels)
  channels_lib.get_preset(flags.config.image.preset)
  selection = features.list_features()
  if is_project:
    project, selection = project_lib.read_project(flags.annotations)
    items, lost = strokes_lib.pair_lanes(project, flags.images)
  else:
    items, lost = strokes_lib.pair_labels(flags.annotations, flags.images)
  return Job(
    items=tuple(items),
    lost=tuple(lost),
    eyes=Eyes(
      panel=read_panel(flags.panel) if flags.panel else None,
      channels=channels,
      scale=flags.scale,
      image=flags.config.image.to_dict(),
    ),
    selection=selection,
    seed=flags.seed,
    output=Path(flags.output),
    num_workers=flags.num_workers,
  )


def check_flags(flags, channels: str) -> None:
  """Raises a ValueError if a flag's value is wrong."""
  pool.count_workers(flags.num_workers, 0)
  if channels not in CHANNELS:
    raise ValueError(
      f"--channels: found {channels}, expected one of {', '.join(CHANNELS)}"
    )
  if flags.scale not in (1, 2):
    raise ValueError(f"--scale: found {flags.scale}, expected 1 or 2")
  if not 0 <= flags.seed < 2**32:
    raise ValueError(f"--seed: found {flags.seed}, expected 0 to 2**32 - 1")
  if not flags.images and not strokes_lib.is_project(flags.annotations):
    raise ValueError("teach fit: expected also --images")


def gather_files(job: Job, failures: FailureLog) -> dict[str, Rows]:
  """Returns the rows of every image that could be read, by stem."""
  num_workers = pool.count_workers(job.num_workers, len(job.items))
  function = functools.partial(gather_file, job.eyes, job.selection)
  found: dict[str, Rows] = {}
  with Progress(len(job.items)) as progress:
    for item, result in pool.map_images(function, job.items, num_workers):
      if isinstance(result, Exception):
        # What is wrong with strokes names these, not the image.
        is_named = item.shown in str(result)
        file = item.shown if is_named else item.source.path
        failures.add(item.source.stem, file, result)
        continue
      for line in result.warnings:
        logging.warning("%s: %s", item.source.stem, line)
      progress.tell(f"{item.source.stem}: {describe_counts(result.labels)}")
      found[item.shown] = result
  return found


def gather_file(
  eyes: Eyes, selection: tuple[Feature, ...], item: Annotated
) -> Rows:
  """Returns one image's annotated pixels.

  Raises:
    ValueError: strokes or image cannot be read or do not fit one another.
  """
  strokes = strokes_lib.read_strokes(item)
  viewed = view_image(item.source, eyes, item.inner, item.axes)
  shape = viewed.planes.shape[:2]
  strokes = strokes_lib.fit_strokes(item, strokes, shape, eyes.scale)
  values, labels = gather_rows(viewed.planes, strokes, selection)
  num_channels = viewed.planes.shape[2]
  return Rows(values, labels, viewed.names, num_channels, viewed.warnings)


def fit_rows(job: Job, rows: Mapping[str, Rows], flags) -> None:
  """Fits the forest and writes the teacher.

  Raises:
    ValueError: images of different channels, fewer than two classes.
    OSError: a file cannot be written.
  """
  parts = list(rows.values())
  if not parts:
    raise ValueError(
      f"{flags.annotations}: found no strokes that can be used, expected some"
    )
  names, num_channels = check_channels(rows)
  labels = np.concatenate([part.labels for part in parts])
  try:
    trees = forest.fit_forest(
      np.concatenate([part.values for part in parts]), labels, job.seed
    )
  except ValueError as error:
    raise ValueError(f"{flags.annotations}: {error}") from error
  for name, count in zip(forest.CLASSES, count_labels(labels), strict=True):
    if not count:
      logging.warning(
        "%s: found no pixel of %s: its probability will be 0",
        flags.annotations,
        name,
      )
  eyes = job.eyes
  view = View(eyes.channels, names, num_channels, eyes.scale, eyes.image)
  record = describe_fit(job, rows, flags)
  teacher = Teacher(view, job.selection, trees, record)
  teacher_folder.write_teacher(job.output, *packing.pack_teacher(teacher))
  logging.info("%s", describe_counts(labels))


def check_channels(rows: Mapping[str, Rows]) -> tuple[tuple[str, ...], int]:
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


def describe_fit(job: Job, rows: Mapping[str, Rows], flags) -> dict[str, Any]:
  """Returns what the teacher was made from, for people."""
  return {
    "version": __version__,
    "seed": job.seed,
    "num_trees": forest.NUM_TREES,
    "annotations": str(flags.annotations),
    "panel": str(flags.panel) if flags.panel else None,
    "pixels": {
      shown: count_labels(part.labels) for shown, part in rows.items()
    },
  }


def count_labels(labels: np.ndarray) -> list[int]:
  """Counts the pixels of every class."""
  counts = np.bincount(labels, minlength=len(forest.CLASSES) + 1)
  return [int(count) for count in counts[1:]]


def describe_counts(labels: np.ndarray) -> str:
  """Says how many pixels of each class there are."""
  counts: Sequence[int] = count_labels(labels)
  return ", ".join(
    f"{count} px {name}"
    for count, name in zip(counts, forest.CLASSES, strict=True)
  )
