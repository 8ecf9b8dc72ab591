"""The trainer's loop, ended by the clock, judged by cells."""

import contextlib
import dataclasses
import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax.io import json_file, write
from dicexmbd_jax.model import weights
from dicexmbd_jax.model.unet import UNet
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.train import check, loop, processes
from dicexmbd_jax.train.checkpoints import Checkpoints
from dicexmbd_jax.train.program import make_program

Path = pathlib.Path
CLOCK = "clock.json"
OWN, REHEARSAL = "labelled", "simulated"
REHEARSAL_SHARE = 0.25
NUM_VALIDATIONS = 10  # About; fewer where one takes long.
MAX_VALIDATION_SHARE = 0.15  # Of the time.
TELL_EVERY_S = 10.0
_ENDLESS = 1_000_000_000  # Steps: the clock ends the run.
# Weights that have learnt already: gentler than a training from nothing.
_TRAIN: dict[str, Any] = {
  "num_workers": 0,
  "num_steps": _ENDLESS,
  "num_epochs": None,
  "batch_size": 4,
  "accumulate_steps": 1,
  "crop_px": 160,
  "shard_above": None,
  "schedule": "constant",  # The clock lowers the learning rate.
  "learning_rate": 1e-3,
  "warmup_steps": 20,
  "plateau_factor": 0.1,
  "plateau_patience": 3,
  "weight_decay": 1e-3,
  "clip_norm": 1.0,
  "average_decay": 0.98,
  "report_steps": 5,
  "eval_steps": _ENDLESS,
  "checkpoint_steps": _ENDLESS,
  "keep_checkpoints": 1,
  "strip_every": 1,
  "cells_every": 0,
  "cells_records": 0,
  "loss": {"class_weights": [1.0, 1.0, 1.0], "dice_weight": 0.0},
  "augment": {
    "contrast": 0.25,
    "intensity": 0.25,
    "rotation_deg": 180.0,
    "interpolated": 0.2,
    "flip": True,
    "noise": 3.0,
    "log_scale": 0.15,
    "blur_px": 0.3,
    "gamma": 0.15,
    "channel_dropout": 0.05,
    "nuclear_dropout": 0.0,
    "poisson": 0.0,
    "shift": 1.0,
    "background": 0.1,
    "dim": 0.7,
    "empty": 0.02,
  },
}


def plan_training(
  config: ConfigDict, work: Path, seed: int, crop_px: int | None = None
) -> ConfigDict:
  """Returns the configuration of the training.

  Args:
    config: of the model to start from.
    work: where the records are.
    seed: of crops and augmentation.
    crop_px: edge of the crops; None: as usual.
  """
  planned = config.copy_and_resolve_references()
  planned.seed = seed
  planned.train = ConfigDict(_TRAIN)
  planned.train.crop_px = crop_px or _TRAIN["crop_px"]
  num_devices, _ = processes.count()
  parts = -(-_TRAIN["batch_size"] // num_devices)
  planned.train.batch_size = parts * num_devices
  shares = {OWN: 1 - REHEARSAL_SHARE, REHEARSAL: REHEARSAL_SHARE}
  planned.train.data = ConfigDict(
    {
      name: {"path": str(work / name), "weight": share}
      for name, share in shares.items()
    }
  )
  return planned


class ClockPace:
  """A run that ends by the clock, and validates as often as it can afford.

  The learning rate falls to zero as a cosine of the time that is gone.
  """

  def __init__(self, budget_s: float, spent_s: float = 0.0):
    """Starts the clock.

    Args:
      budget_s: seconds of training, those before a stop included.
      spent_s: seconds before it.
    """
    self._started_s = time.monotonic()
    self._budget_s, self._before_s = max(budget_s, 1e-3), spent_s
    self._last_s = self._started_s
    self._cost_s = 0.0

  @property
  def spent_s(self) -> float:
    """Seconds of training so far."""
    return self._before_s + time.monotonic() - self._started_s

  @property
  def left_s(self) -> float:
    """Seconds of training that are left."""
    return max(self._budget_s - self.spent_s, 0.0)

  def scale(self) -> float:
    """Returns what the learning rate is multiplied with."""
    share = min(self.spent_s / self._budget_s, 1.0)
    return 0.5 * (1 + math.cos(math.pi * share))

  def is_due(self) -> bool:
    """Returns whether it is time to validate."""
    wait_s = max(
      self._budget_s / NUM_VALIDATIONS, self._cost_s / MAX_VALIDATION_SHARE
    )
    # The last one comes soon anyway.
    return (
      time.monotonic() - self._last_s >= wait_s and self.left_s > wait_s / 2
    )

  def is_over(self) -> bool:
    """Returns whether time is up, but for the last validation."""
    return self.left_s <= self._cost_s

  def note_validation(self, seconds: float):
    """Takes what a validation has cost."""
    self._cost_s = seconds
    self._last_s = time.monotonic()


@dataclasses.dataclass
class Course:
  """How a training went: what the observer keeps and writes down.

  Attributes:
    best_f1: highest validation score so far.
    history: (seconds, F1) of each validation.
    num_steps: steps done.
  """

  best_f1: float
  history: list[tuple[float, float]]
  num_steps: int = 0


class Watch:
  """Judges each checkpoint's network, keeps the best, tells the time left."""

  def __init__(
    self,
    work: Path,
    config: ConfigDict,
    judge: Callable[[UNet], float],
    course: Course,
    clock: tuple[ClockPace, Progress, float],
  ):
    """Starts watching.

    Args:
      work: folder of the run.
      config: goes with the weights.
      judge: returns a network's validation score.
      course: is kept up to date.
      clock: the pace, the bar, and the shipped model's score.
    """
    self._work, self._config, self._judge = work, config, judge
    self._course = course
    self._pace, self._bar, self._before = clock
    self._told_s = 0.0
    self._shown_s = 0

  def report(self, step: int, found: dict[str, float]):
    """Tells loss, time left and the best score so far."""
    self._course.num_steps = step
    now = time.monotonic()
    if now - self._told_s < TELL_EVERY_S or "loss" not in found:
      return
    self._told_s = now
    spent = round(self._pace.spent_s)
    self._bar.tell(
      f"{describe_time(self._pace.left_s)} left to train  "
      f"loss {found['loss']:.3f}  F1 {self._course.best_f1:.3f} so far, "
      f"{self._before:.3f} at the start",
      spent - self._shown_s,
    )
    self._shown_s = spent

  def keep(self, model: UNet, numbers: dict[str, float], is_best: bool):
    """Judges a network, unless there is no time for that."""
    del is_best  # By the loss of records, of which there are none here.
    course, step = self._course, int(numbers["step"])
    course.num_steps = step
    if self._pace.is_over() or self._pace.is_due() or not course.history:
      started_s = time.monotonic()
      score = self._judge(model)
      self._pace.note_validation(time.monotonic() - started_s)
      course.history.append((round(self._pace.spent_s, 1), score))
      if score > course.best_f1:
        course.best_f1 = score
        weights.write_model(
          self._work / "best", model, self._config, "float32",
          {"step": step, "validation_f1": score},
        )  # fmt: skip
      self._bar.note(f"step {step}: validation F1 {score:.3f}")
    write.write_json(
      self._work / CLOCK,
      {
        "spent_s": self._pace.spent_s,
        "best_f1": course.best_f1,
        "history": course.history,
        "num_steps": step,
      },
    )

  def show(self, step: int, examples: Iterator):
    """Takes no examples: there are no validation records."""

  def score(self, examples: Iterator) -> dict[str, float]:
    """Scores no records; `keep` judges whole images."""
    return {}


def read_course(work: Path, start_f1: float) -> tuple[Course, float]:
  """Returns how a run that was stopped went, and its seconds; else a start."""
  path = work / CLOCK
  if not path.exists():
    return Course(start_f1, []), 0.0
  found = json_file.read_json(path)
  history = [(float(s), float(f1)) for s, f1 in found["history"]]
  best = max([start_f1, *(f1 for _, f1 in history)])
  return Course(best, history, int(found["num_steps"])), float(found["spent_s"])


def train(
  model: UNet,
  config: ConfigDict,
  work: Path,
  judge: Callable[[UNet], float],
  plan: tuple[float, float],
) -> tuple[Course, bool]:
  """Trains for some seconds, or goes on where it was stopped.

  Args:
    model: to start from.
    config: from plan_training.
    work: folder of the run; best/ in it is the best network so far, if any is
      better than the start.
    judge: returns a network's validation score.
    plan: seconds of training, those before a stop included; the score at the
      start.

  Returns:
    How it went, and whether it came to its end; else it was asked to stop.

  Raises:
    FloatingPointError: a loss is not finite; best/ is as it was before.
    ValueError, OSError: records or files that cannot be read or written.
  """
  budget_s, start_f1 = plan
  course, spent_s = read_course(work, start_f1)
  config = check.complete_config(config)
  check.check_config(config)
  program = make_program(model, config)
  checkpoints = Checkpoints(
    work / "checkpoints",
    config.train.keep_checkpoints,
    loop.hash_records(config),
  )
  state = loop.restore_state(program, config, checkpoints)
  if state is None:
    state = program.make_state()
  elif spent_s >= budget_s:
    checkpoints.close()
    return course, True
  else:
    logging.info("going on after step %d", int(state.step))
  pace = ClockPace(budget_s, spent_s)
  try:
    with (
      restore_handlers(),
      Progress(round(budget_s), "second", round(spent_s)) as bar,
    ):
      watch = Watch(work, config, judge, course, (pace, bar, start_f1))
      is_done = loop.train_and_evaluate(
        program, state, config, checkpoints, watch, pace
      )
  except BaseException:
    with contextlib.suppress(Exception):  # The first error says it.
      checkpoints.close()
    raise
  checkpoints.close()
  return course, is_done


@contextlib.contextmanager
def restore_handlers() -> Iterator[None]:
  """Lets what is in it remember signals; what follows ends by them."""
  handlers = {
    number: signal.getsignal(number)
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def describe_time(seconds: float) -> str:
  """Returns "12 min", or "40 s" below two minutes."""
  return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
