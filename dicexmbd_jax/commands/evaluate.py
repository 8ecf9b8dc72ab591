"""`evaluate`: how good masks are against reference masks.

A file that cannot be used costs what needs it and no more: one line, a row of
failures.csv, and the exit code 1.
"""

import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from absl import logging

from dicexmbd_jax.io import images, labels, pairing, write
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.io.source import open_source
from dicexmbd_jax.report import cell_figures
from dicexmbd_jax.runs import progress, score_files
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.scores import boundary, evaluate, instances, profiles
from dicexmbd_jax.scores.evaluate import Evaluation
from dicexmbd_jax.types import ImageSource, LoadedImage, Panel

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Request:
  """What to score, against what, into which folder; checked.

  Attributes:
    methods: name -> folder or pattern of masks.
    reference: folder or pattern of reference masks.
    output: the output folder.
    images: to measure profiles on, or None.
    panel_path: which channels are what; None for two-channel stacks.
    tolerance_px: how far apart outlines may lie in the boundary scores.
    seed: of the bootstrap.
    label_components: whether in masks that number no cells (binary ones) each
      piece is taken for a cell; else they are refused.
  """

  methods: Mapping[str, str]
  reference: str
  output: Path
  images: str | None = None
  panel_path: Path | None = None
  tolerance_px: float = 1.0
  seed: int = 0
  label_components: bool = False

  def __post_init__(self):
    """Raises a ValueError where the arguments do not go together.

    Or where the output folder holds what images were segmented into, or a
    fine-tuning: all write a report.html and a failures.csv.
    """
    for mark in ("run.json", "shards", "state", "finetune.json"):
      if (self.output / mark).exists():
        raise ValueError(
          "--output: found results of predict, segment or finetune in "
          f"{self.output} ({mark}), expected another folder, such as "
          f"{self.output}/scores"
        )
    if self.panel_path and not self.images:
      raise ValueError("--panel: found no --images beside it, expected both")
    if self.seed < 0:
      raise ValueError(f"--seed: found {self.seed}, expected 0 or more")
    if not 0 <= self.tolerance_px < np.inf:
      raise ValueError(
        f"--tolerance_px: found {self.tolerance_px}, expected 0 or more"
      )


@dataclasses.dataclass(frozen=True)
class Task:
  """All files that belong to one image.

  Attributes:
    stem: the image's name.
    reference: the reference mask.
    masks: method -> mask; methods without one are absent.
    image: to measure profiles on, None where there is none.
  """

  stem: str
  reference: ImageSource
  masks: Mapping[str, ImageSource]
  image: ImageSource | None


def run(flags) -> int:
  """Evaluates one or several folders of masks.

  Args:
    flags: predicted (list of "DIR" or "name=DIR"), reference, output, images,
      panel, tolerance_px, seed, label_components.

  Returns:
    0: done; 1: some images could not be evaluated; 2: wrong call.
  """
  try:
    request = Request(
      methods=parse_methods(flags.predicted),
      reference=flags.reference,
      output=Path(flags.output),
      images=flags.images,
      panel_path=Path(flags.panel) if flags.panel else None,
      tolerance_px=flags.tolerance_px,
      seed=flags.seed,
      label_components=flags.label_components,
    )
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  return run_request(request)


def parse_methods(
  words: Sequence[str], flag: str = "predicted"
) -> dict[str, str]:
  """Splits "name=DIR"; a single "DIR" is called `predicted`.

  Args:
    words: values of the flag; an existing path that has a "=" in it is taken
      as a path.
    flag: its name, for messages.

  Raises:
    ValueError: several without a name, a name twice, or not fit for a file.
  """
  methods: dict[str, str] = {}
  for word in words:
    name, separator, pattern = word.partition("=")
    if not separator or os.path.exists(word):
      name, pattern = "predicted", word
      if len(words) > 1:
        raise ValueError(
          f"--{flag}: found {word!r}, one of {len(words)}, expected name=DIR"
        )
    if name in methods or not re.fullmatch(r"\w[\w .+\-]*", name):
      raise ValueError(
        f"--{flag}: found the name {name!r}, expected different names of "
        "letters, digits, blanks and _ - . +"
      )
    if not pattern:
      raise ValueError(f"--{flag}: found {word!r}, expected name=DIR")
    methods[name] = pattern
  return methods


def run_request(
  request: Request,
  log: FailureLog | None = None,
  stems: Collection[str] | None = None,
) -> int:
  """Evaluates masks by method and writes every result.

  Args:
    request: what to score.
    log: what went wrong before.
    stems: the references to use; None: all.

  Returns:
    As `run`.
  """
  started_s = time.perf_counter()
  results = score_files.Results(
    {name: {} for name in request.methods}, log=log or FailureLog()
  )
  try:
    path = request.panel_path
    panel = read_panel(path) if path else None
    tasks = plan_tasks(request, panel, stems, results.log)
    write.sweep_temporary(request.output)
  except (ValueError, OSError) as error:
    return refuse_call(error, request.reference)
  with progress.Progress(len(tasks)) as shown:
    for task in tasks:
      evaluate_task(task, panel, request, results)
      shown.tell(describe_scores(results.scores, task.stem))
  try:
    summary = score_files.write_tables(results, request.output, request.seed)
    score_files.write_report(
      results,
      make_example(results, tasks, request.label_components),
      summary,
      request.output,
      describe_request(request),
    )
  except OSError as error:
    return refuse_call(error, request.output)
  seconds = time.perf_counter() - started_s
  logging.info("%d images, %.1f s: %s", len(tasks), seconds, request.output)
  return 1 if results.log else 0


def describe_request(request: Request) -> dict[str, str]:
  """Returns what the report tells about the call."""
  return {
    "Reference": request.reference,
    "Images": request.images or "none: no profiles",
    "Boundary tolerance": f"{request.tolerance_px:g} px",
    "Bootstrap": f"10,000 draws of images, seed {request.seed}",
  }


def plan_tasks(
  request: Request,
  panel: Panel | None,
  only: Collection[str] | None,
  log: FailureLog,
) -> list[Task]:
  """Pairs the files of all folders by stem; logs what is alone.

  Returns:
    One task for each reference that any method has a mask for.

  Raises:
    ValueError: a folder without masks or images.
    OSError: a folder cannot be read.
  """
  references, lost = pairing.list_masks(find_masks(request.reference))
  masks: dict[str, pairing.Sources] = {}
  for name, pattern in request.methods.items():
    found, unlisted = pairing.list_masks(find_masks(pattern))
    if Path(pattern).is_file() and Path(request.reference).is_file():
      found = pairing.match_alone(found, references)
    masks[name], alone = pairing.pair_sources(found, references, pattern)
    alone = [row for row in alone if only is None or row[0] in only]
    lost += [*unlisted, *alone]
  stems = [
    stem
    for stem in references
    if (only is None or stem in only)
    and any(stem in found for found in masks.values())
  ]
  shown: pairing.Sources = {}
  if request.images:
    shown, unlisted = pairing.list_stacks(request.images, panel)
    lost += unlisted
    for stem in stems:
      if stem not in shown:
        line = f"{request.images}: found no image {stem}, expected one"
        lost.append((stem, request.images, line))
  for stem, file, line in lost:
    log.add(stem, file, ValueError(line))
  return [
    Task(
      stem,
      references[stem],
      {name: found[stem] for name, found in masks.items() if stem in found},
      shown.get(stem),
    )
    for stem in stems
  ]


def find_masks(pattern: str) -> str:
  """Returns the subfolder `masks` where there is one, else the pattern."""
  folder = Path(pattern) / "masks"
  return str(folder) if folder.is_dir() else pattern


def evaluate_task(
  task: Task,
  panel: Panel | None,
  request: Request,
  results: score_files.Results,
) -> None:
  """Evaluates all methods on one image and adds to the results."""
  try:
    reference = read_mask(task.reference, request.label_components)
  except Exception as error:  # One bad image must not stop the others.
    results.log.add(task.stem, task.reference.path, error)
    return
  image = load_image(task, panel, reference, results)
  for name, source in task.masks.items():
    try:
      predicted = read_mask(source, request.label_components)
      check_size(source, predicted, task.reference, reference)
      evaluation = evaluate.evaluate_image(
        predicted, reference, request.tolerance_px
      )
    except Exception as error:  # One bad image must not stop the others.
      results.log.add(task.stem, source.path, error)
      continue
    row = {"method": name, "image": task.stem}
    scores = dict(evaluation.scores)
    cells = evaluate.tabulate_cells(evaluation)
    if image is not None:
      scores |= add_profiles(
        image, (predicted, reference), evaluation, cells, (row, results)
      )
    results.scores[name][task.stem] = scores
    results.cells.append(score_files.make_table(row, cells))


def add_profiles(
  image: LoadedImage,
  masks: tuple[np.ndarray, np.ndarray],
  evaluation: Evaluation,
  cells: dict[str, np.ndarray],
  target: tuple[dict[str, str], score_files.Results],
) -> dict[str, float]:
  """Correlates profiles; adds a column to cells and a table to the results."""
  row, results = target
  found = profiles.correlate_profiles(image.stack, *masks, evaluation)
  overlap, pairs = evaluation.overlap, evaluation.errors.pairs
  column = np.full(len(cells["id"]), np.nan)
  column[overlap.predicted[pairs]] = found.cells
  column[overlap.num_predicted + overlap.reference[pairs]] = found.cells
  cells["profile_pearson"] = column
  columns = {
    "marker": np.array(image.names),
    "pearson": found.markers,
    "num_cells": np.full(len(image.names), len(pairs)),
  }
  results.markers.append(score_files.make_table(row, columns))
  return found.score()


def read_mask(
  source: ImageSource, label_components: bool = False
) -> np.ndarray:
  """Reads the labels of one file, in a zip archive or not.

  Args:
    source: the file.
    label_components: as in Request.

  Raises:
    ValueError: no labels, or labels that number no cells.
  """
  with open_source(source.path, source.member) as path:
    mask = labels.read_labels(path)
  try:
    instances.check_instances(mask)
  except ValueError as error:
    if label_components:
      return instances.label_components(mask)
    raise ValueError(
      f"{source.path}: {error}; --label_components takes each piece for a cell"
    ) from error
  return mask


def load_image(
  task: Task,
  panel: Panel | None,
  reference: np.ndarray,
  results: score_files.Results,
) -> LoadedImage | None:
  """Reads the image to measure on; None, and a failure, if that fails."""
  if task.image is None:
    return None
  try:
    image = images.read_image(task.image, panel)
    check_size(task.image, image.stack, task.reference, reference)
    for name, plane in zip(
      image.names, np.moveaxis(image.stack, -1, 0), strict=True
    ):
      if not np.isfinite(plane).all():
        raise ValueError(f"found NaN or infinite {name}, expected counts")
  except Exception as error:  # One bad image must not stop the others.
    results.log.add(task.stem, task.image.path, error)
    return None
  return image


def check_size(
  source: ImageSource,
  pixels: np.ndarray,
  reference_source: ImageSource,
  reference: np.ndarray,
) -> None:
  """Raises a ValueError unless both have the same height and width."""
  if pixels.shape[:2] != reference.shape:
    found, wanted = (
      f"{shape[0]} x {shape[1]}" for shape in (pixels.shape, reference.shape)
    )
    raise ValueError(
      f"{source.path}: found {found} pixels (y, x), expected {wanted} as in "
      f"{reference_source.path}"
    )


def describe_scores(
  scores: Mapping[str, Mapping[str, Mapping[str, float]]], stem: str
) -> str:
  """Names each method's F1 on one image."""
  parts = [
    f"{name} {found[stem]['f1_iou_0.50']:.3f}"
    for name, found in scores.items()
    if stem in found
  ]
  return f"{stem}: F1 at IoU 0.5: {', '.join(parts) or 'none'}"


def make_example(
  results: score_files.Results, tasks: Sequence[Task], label_components: bool
) -> cell_figures.Example | None:
  """Paints the matches of the most ordinary image: median F1, most methods."""
  values = {
    task.stem: [
      s[task.stem]["cell_f1"] for s in results.scores.values() if task.stem in s
    ]
    for task in tasks
  }
  most = max(map(len, values.values()), default=0)
  means = {s: np.mean(v) for s, v in values.items() if most and len(v) == most}
  if not means:
    return None
  stem = sorted(means, key=lambda s: means[s])[len(means) // 2]
  task = next(task for task in tasks if task.stem == stem)
  reference = read_mask(task.reference, label_components)
  painted = {}
  for name, source in task.masks.items():
    if stem in results.scores[name]:
      predicted = read_mask(source, label_components)
      evaluation = evaluate.evaluate_image(predicted, reference)
      painted[name] = evaluate.paint_matches(predicted, evaluation)
  outlines = boundary.find_boundaries(reference)
  return cell_figures.Example(stem, painted, outlines)
