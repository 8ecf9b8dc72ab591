"""What a training run tells and writes while it goes on.

Process 0 writes; the others only take their part in what all devices compute.
"""

import collections
import contextlib
import logging as standard_logging
import pathlib
from collections.abc import Iterator

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax.io import write
from dicexmbd_jax.masks import segment
from dicexmbd_jax.model import weights
from dicexmbd_jax.model.unet import UNet
from dicexmbd_jax.report import strip
from dicexmbd_jax.runs import progress
from dicexmbd_jax.scores import match
from dicexmbd_jax.train import loop, metric_log, processes
from dicexmbd_jax.train.step import Example
from dicexmbd_jax.train.workdir import Workdir

# What is told of every few steps; all else comes of a validation.
TRAINING = (
  "loss",
  "learning_rate",
  "gradient_norm",
  "images_per_second",
  "model_tflops",
  "mfu",
  "input_wait",
)


class TrainLog:
  """Writes metrics, pictures and the best network into the workdir."""

  def __init__(
    self,
    workdir: pathlib.Path,
    config: ConfigDict,
    step: int,
    bar: progress.Progress,
    place: Workdir | None = None,
  ):
    """Opens the metrics; `step` is the one that the run goes on after.

    Args:
      workdir: folder of this machine.
      config: the whole configuration.
      step: the one that the run goes on after.
      bar: on which it is told.
      place: where what is in the folder is kept; None: there.
    """
    self._place = place or Workdir(str(workdir))
    self._workdir, self._config, self._bar = workdir, config, bar
    write.sweep_temporary(workdir)
    for folder in (workdir / "last", workdir / "best"):
      # What may change when a run goes on, as `segment`, holds for both.
      if (folder / weights.CONFIG).exists():
        weights.write_config(folder, config)
    self._metrics = metric_log.MetricLog(workdir, step)
    self._step = step

  def report(self, step: int, found: dict[str, float]):
    """Writes numbers of a step, and tells them."""
    self._metrics.write(step, found)
    now = {name: value for name, value in found.items() if name in TRAINING}
    self._bar.tell(_format(now), step - self._step)
    # Not in the bar, which the next report replaces and a terminal cuts off.
    rest = {name: value for name, value in found.items() if name not in now}
    if rest:
      self._bar.note(f"step {step}: {_format(rest)}")
    self._step = step
    self._place.push_sometimes()

  def keep(self, model: UNet, numbers: dict[str, float], is_best: bool):
    """Writes the model folders: last/, and best/ where it is the best."""
    for name in ("last", "best") if is_best else ("last",):
      folder = self._workdir / name
      weights.write_model(folder, model, self._config, "float32", numbers)
    self._place.push()  # Before the checkpoint: see loop.save.

  def show(self, step: int, examples: Iterator[Example]):
    """Draws validation records beside what the network makes of them."""
    rows = [
      (example["image"], example["target"], example["probabilities"],
       _find_cells(example["probabilities"], self._config))
      for example in examples
    ]  # fmt: skip
    self._metrics.write_image(step, "validation", strip.draw_strip(rows))

  def score(self, examples: Iterator[Example]) -> dict[str, float]:
    """Returns how well the network's cells agree with the teacher's.

    Records have no true cells: the reference is what the segmenter makes of
    the target. Patches without a cell in both are left out.
    """
    scores = []
    for example in examples:
      found = _find_cells(example["probabilities"], self._config)
      wanted = _find_cells(example["target"], self._config)
      if found.any() or wanted.any():
        scores.append(match.score_f1(found, wanted))
    return {"f1_against_teachers_cells": float(np.mean(scores or [np.nan]))}

  def close(self):
    """Closes the files."""
    self._metrics.close()


class Bystander:
  """A process that is not the first: it computes, and writes nothing."""

  def report(self, step: int, found: dict[str, float]):
    """Does nothing: process 0 found the same."""

  def keep(self, model: UNet, numbers: dict[str, float], is_best: bool):
    """Does nothing."""

  def show(self, step: int, examples: Iterator[Example]):
    """Takes its part in computing all examples."""
    collections.deque(examples, maxlen=0)

  def score(self, examples: Iterator[Example]) -> dict[str, float]:
    """Takes its part in computing all examples."""
    collections.deque(examples, maxlen=0)
    return {}


@contextlib.contextmanager
def open_log(
  workdir: Workdir, config: ConfigDict, step: int
) -> Iterator[loop.Observer]:
  """Gives this process's log of a run that goes on after `step`."""
  if not processes.is_main():
    yield Bystander()
    return
  num_steps = config.train.num_steps
  with progress.Progress(num_steps, "step", step, silent_s=0) as bar:
    log = TrainLog(workdir.folder, config, step, bar, workdir)
    try:
      yield log
    except BaseException:
      with contextlib.suppress(OSError):  # The first error says it.
        log.close()
      raise
    log.close()


def name_process():
  """Puts the process's number in front of its lines, where there are many."""
  name = processes.describe_process()
  if name:
    handler = logging.get_absl_handler()
    handler.setFormatter(standard_logging.Formatter(f"{name}: %(message)s"))


def _format(found: dict[str, float]) -> str:
  return "  ".join(f"{name} {value:.4g}" for name, value in found.items())


def _find_cells(maps: np.ndarray, config: ConfigDict) -> np.ndarray:
  return segment.segment_image(np.ascontiguousarray(maps), config.segment).cells
