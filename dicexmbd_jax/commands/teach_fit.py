"""`teach fit`: from images and brush strokes to a teacher."""

import functools
import pathlib
from collections.abc import Sequence

from absl import logging

from dicexmbd_jax.io import write
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.runs import pool
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.teach import fit, project
from dicexmbd_jax.teach.features import Feature
from dicexmbd_jax.teach.fit import FitRequest, ImageRows
from dicexmbd_jax.teach.strokes import Annotated, is_project
from dicexmbd_jax.teach.teacher import CHANNELS, View
from dicexmbd_jax.teach.teacher_folder import write_teacher


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: images, panel, annotations, output, channels, scale, seed,
      keep_forest, num_workers, config.

  Returns:
    0: done; 1: some images failed; 2: wrong call, or no teacher can be fit.
  """
  try:
    request = read_request(flags)
    return adopt(request) if request.keeps_forest else fit_images(request)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)


def read_request(flags) -> FitRequest:
  """Checks the call.

  Raises:
    ValueError: a flag's value is wrong.
  """
  has_project = is_project(flags.annotations)
  # A project's strokes were drawn on its own images, so these are taken as
  # they are; otherwise the teacher should not depend on the panel.
  channels = flags.channels or ("all" if has_project else "merged")
  pool.count_workers(flags.num_workers, 0)
  if channels not in CHANNELS:
    raise ValueError(
      f"--channels: found {channels}, expected one of {', '.join(CHANNELS)}"
    )
  if flags.scale not in (1, 2):
    raise ValueError(f"--scale: found {flags.scale}, expected 1 or 2")
  if not 0 <= flags.seed < 2**32:
    raise ValueError(f"--seed: found {flags.seed}, expected 0 to 2**32 - 1")
  if not flags.images and not has_project:
    raise ValueError("teach fit: expected also --images")
  return FitRequest(
    annotations=flags.annotations,
    images=flags.images,
    panel_file=flags.panel or None,
    panel=read_panel(flags.panel) if flags.panel else None,
    view=View(channels, scale=flags.scale, image=flags.config.image.to_dict()),
    seed=flags.seed,
    output=pathlib.Path(flags.output),
    keeps_forest=flags.keep_forest,
    num_workers=flags.num_workers,
  )


def adopt(request: FitRequest) -> int:
  """Writes a teacher with the forest that a project stores; fits none.

  Raises:
    ValueError: no project, or none with a forest that fits its features.
    OSError: a file cannot be written.
  """
  teacher = project.adopt_project(request.annotations, request.view)
  write.sweep_temporary(request.output)
  write_teacher(request.output, teacher)
  num_trees = teacher.forest.roots.size
  logging.info("%d trees taken over: %s", num_trees, request.output)
  return 0


def fit_images(request: FitRequest) -> int:
  """Fits a teacher and writes it; returns the exit code.

  Raises:
    ValueError: no teacher can be fit.
    OSError: a file cannot be written.
  """
  failures = FailureLog()
  items, lost, selection = fit.pair_strokes(request)
  failures.write(request.output)  # Tells at once whether one can write there.
  for stem, file, error in lost:
    failures.add(stem, file, ValueError(error))
  rows = gather_images(request, selection, items, failures)
  failures.write(request.output)
  write.sweep_temporary(request.output)
  write_teacher(request.output, fit.fit_teacher(request, selection, rows))
  failed = failures.describe()
  logging.info("%d images used%s: %s", len(rows), failed, request.output)
  return 1 if failures else 0


def gather_images(
  request: FitRequest,
  selection: tuple[Feature, ...],
  items: Sequence[Annotated],
  failures: FailureLog,
) -> dict[str, ImageRows]:
  """Returns the rows of every image that can be read; logs the others."""
  num_workers = pool.count_workers(request.num_workers, len(items))
  function = functools.partial(fit.gather_image, request, selection)
  found: dict[str, ImageRows] = {}
  with Progress(len(items)) as progress:
    for item, result in pool.map_images(function, items, num_workers):
      if isinstance(result, Exception):
        # What is wrong with strokes names these, not the image.
        is_named = item.shown in str(result)
        file = item.shown if is_named else item.source.path
        failures.add(item.source.stem, file, result)
        continue
      for line in result.warnings:
        logging.warning("%s: %s", item.source.stem, line)
      counts = fit.describe_counts(result.labels)
      progress.tell(f"{item.source.stem}: {counts}")
      found[item.shown] = result
  return found
