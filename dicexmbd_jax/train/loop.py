"""Training: the loop around the step, and validation between its steps."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dicexmbd_jax.model import unet
from dicexmbd_jax.train import checkpoints as checkpoints_lib
from dicexmbd_jax.train import dataset, input_pipeline, metrics, sharding
from dicexmbd_jax.train.processes import StopRequest
from dicexmbd_jax.train.program import Program
from dicexmbd_jax.train.speed import NO_PROFILE, Profile, Speed
from dicexmbd_jax.train.step import Example, TrainState, Weights

# Of a batch, on the device.
FIELDS = ("image", "target", "valid", "known", "is_real")
RUN_AHEAD = 2  # Steps the host may be ahead of the devices.


class Observer(Protocol):
  """Who writes down what the loop finds; on every process of a run."""

  def report(self, step: int, found: dict[str, float]):
    """Takes numbers of a step."""

  def keep(self, model: unet.UNet, numbers: dict[str, float], is_best: bool):
    """Takes the network of a checkpoint, its step and its scores."""

  def show(self, step: int, examples: Iterator[Example]):
    """Takes predicted validation records, to the last, for a picture."""

  def score(self, examples: Iterator[Example]) -> dict[str, float]:
    """Takes predicted validation records, to the last; returns scores."""


class Pace(Protocol):
  """When a run validates and ends, where steps alone do not decide that."""

  def scale(self) -> float:
    """Returns what the schedule's learning rate is multiplied with now."""

  def is_due(self) -> bool:
    """Returns whether to validate after this step."""

  def is_over(self) -> bool:
    """Returns whether this step is the last."""


def train_and_evaluate(
  program: Program,
  state: TrainState,
  config: ConfigDict,
  checkpoints: checkpoints_lib.Checkpoints,
  observer: Observer,
  pace: Pace | None = None,
  profile: Profile = NO_PROFILE,
) -> bool:
  """Trains to config.train.num_steps, or until asked to stop.

  Args:
    program: from make_program.
    state: to go on from; it is donated.
    config: the whole configuration.
    checkpoints: where the state is saved.
    observer: told of all that is measured.
    pace: of a run that ends by the clock; None: as the configuration says.
    profile: which steps are recorded.

  Returns:
    Whether the run is complete; else it was asked to stop, and has saved.

  Raises:
    FloatingPointError: a loss or gradient is not finite; the state before
      that step has been saved.
  """
  train = config.train
  start = int(state.step)
  stop, speed = StopRequest(), Speed(config, start)
  recent: collections.deque = collections.deque()  # Steps not looked at yet.
  batches = input_pipeline.make_batches(
    list_sources(config),
    "train",
    seed=config.seed,
    start_step=start,
    **_share_batches(config),
  )
  validation = open_validation(config)
  for step in range(start + 1, train.num_steps + 1):
    with speed.waiting():
      batch = next(batches)
    if pace is not None:
      state = set_scale(program, state, pace.scale())
    with profile.record(step):
      state, found = program.take_step(state, place_batch(batch, program.mesh))
    profile.end(step, found)
    recent.append((step, batch["record_id"], found))
    is_over = pace is not None and pace.is_over()
    is_last = is_over or step == train.num_steps
    is_stopped = stop.is_due(step)
    reports = is_last or step % train.report_steps == 0
    is_due = pace is not None and pace.is_due()
    validates = is_last or is_due or step % train.eval_steps == 0
    saves = validates or is_stopped or step % train.checkpoint_steps == 0
    is_exact = reports or saves or step == start + 1
    try:
      # The devices never wait for the host: it looks at what is done already.
      check_finite(recent, 0 if is_exact else RUN_AHEAD)
    except FloatingPointError:
      save(program, state, config, checkpoints, observer)
      raise
    numbers = read_numbers(found) | speed.read(step) if reports else {}
    scores: dict[str, float] = {}
    is_best = False
    if validates:
      state, scores, is_best = validate(
        program, state, config, observer, validation
      )
    if numbers | scores:
      observer.report(step, numbers | scores)
    if saves:
      save(program, state, config, checkpoints, observer, scores, is_best)
    if is_last:
      return True
    if is_stopped:
      return False
    validation.read_ahead()
    if saves or step == start + 1:
      speed.restart(step)  # Neither saving nor compiling is training.
  return True


def set_scale(program: Program, state: TrainState, scale: float) -> TrainState:
  """Returns the state whose next updates are multiplied by `scale`."""
  place = program.shardings.plateau.scale
  placed = jax.device_put(np.asarray(scale, state.plateau.scale.dtype), place)
  return dataclasses.replace(
    state, plateau=state.plateau._replace(scale=placed)
  )


def check_finite(recent: collections.deque, num_left: int):
  """Looks at all but the last steps, oldest first, and forgets them.

  Args:
    recent: (step, record ids, what the step found), the latest at the end.
    num_left: steps that may still be running, and are left alone.

  Raises:
    FloatingPointError: a step's loss or gradient is not finite.
  """
  while len(recent) > num_left:
    step, records, found = recent.popleft()
    if not found["is_finite"]:
      raise FloatingPointError(
        f"step {step}: found loss {float(found['loss']):g}, gradient norm "
        f"{float(found['gradient_norm']):g}, expected finite numbers; records "
        f"{', '.join(records)}"
      )


def read_numbers(found: dict[str, jax.Array]) -> dict[str, float]:
  """Returns a step's numbers on the host."""
  names = ("loss", "learning_rate", "gradient_norm")
  return {name: float(found[name]) for name in names}


def open_validation(config: ConfigDict) -> input_pipeline.Passes:
  """Opens this process's share of the validation records.

  Raises:
    ValueError: a dataset is missing or broken.
  """
  return input_pipeline.make_passes(
    list_sources(config), "validation", **_share_batches(config)
  )


def _share_batches(config: ConfigDict) -> dict[str, int]:
  """Returns what both ways of reading are told of this process's share."""
  return {
    "batch_size": config.train.batch_size,
    "process_index": jax.process_index(),
    "process_count": jax.process_count(),
    "num_workers": config.train.num_workers,
  }


def list_sources(config: ConfigDict) -> list[input_pipeline.Source]:
  """Returns the record folders to train on, with their weights."""
  return [
    input_pipeline.Source(source.path, source.weight)
    for source in config.train.data.values()
  ]


def hash_records(config: ConfigDict) -> dict[str, str]:
  """Returns hashes of the record folders by their names in `train.data`.

  Raises:
    ValueError, OSError: as dataset.hash_dataset.
  """
  return {
    name: dataset.hash_dataset(source.path)
    for name, source in config.train.data.items()
  }


def place_batch(batch, mesh: Mesh) -> dict[str, jax.Array]:
  """Puts the arrays of this process's share of a batch on its devices."""
  return sharding.place_batch({name: batch[name] for name in FIELDS}, mesh)


def save(
  program: Program,
  state: TrainState,
  config: ConfigDict,
  checkpoints: checkpoints_lib.Checkpoints,
  observer: Observer,
  scores: Mapping[str, float] = MappingProxyType({}),
  is_best: bool = False,
):
  """Keeps the network and saves the state, unless its step is saved already.

  The network first: a run never goes on after a step whose network it lacks.

  Args:
    program: from make_program.
    state: what is saved.
    config: the whole configuration.
    checkpoints: where the state is saved.
    observer: who keeps the network.
    scores: what validation found of it; empty where it was not validated.
    is_best: whether no other had a lower validation loss.
  """
  step = int(state.step)
  if checkpoints.has(step):
    return
  model = export_model(program, state.weights())
  known = {name: score for name, score in scores.items() if np.isfinite(score)}
  observer.keep(model, {"step": step} | known, is_best)
  checkpoints.save(step, state, config, scores.get("validation_loss"))


def validate(
  program: Program,
  state: TrainState,
  config: ConfigDict,
  observer: Observer,
  validation: input_pipeline.Passes,
) -> tuple[TrainState, dict[str, float], bool]:
  """Scores the validation records.

  Returns:
    The state, which knows of the loss; the scores, empty where there are no
    validation records; and whether the network is the best so far, which it
    always is without such records.
  """
  train, step = config.train, int(state.step)
  weights = state.weights()
  scores = score_records(program, weights, validation)
  loss = scores.get("validation_loss")
  if loss is None:
    return state, scores, True
  is_best = bool(np.float32(loss) < float(state.best_loss))
  is_last = step == train.num_steps
  index = step // train.eval_steps
  if is_last or index % train.strip_every == 0:
    observer.show(step, predict_records(program, weights, validation, 8))
  has_turn = train.cells_every > 0 and index % train.cells_every == 0
  scores_cells = is_last or has_turn
  if scores_cells and train.cells_records:
    examples = predict_records(
      program, weights, validation, train.cells_records
    )
    scores |= observer.score(examples)
  return program.end_validation(state, np.float32(loss)), scores, is_best


def score_records(
  program: Program, weights: Weights, validation: input_pipeline.Passes
) -> dict[str, float]:
  """Returns loss and pixel scores of all validation records."""
  total: Any = None
  for batch in validation.read():
    sums = program.score_batch(weights, place_batch(batch, program.mesh))
    total = sums if total is None else jax.tree.map(jnp.add, total, sums)
  if total is None:
    return {}
  total = jax.device_get(total)
  scores = metrics.finish_scores(total["pixels"])
  loss = total["loss_sum"] / max(total["num_px"], 1)
  return {"validation_loss": float(loss)} | {
    f"validation_{name}": float(score) for name, score in scores.items()
  }


def predict_records(
  program: Program,
  weights: Weights,
  validation: input_pipeline.Passes,
  num_records: int,
) -> Iterator[Example]:
  """Yields the first validation records with their probabilities.

  Every process gets all of them, and has to take all: their devices work
  together.
  """
  for batch in validation.read():
    placed = place_batch(batch, program.mesh)
    found = jax.device_get(program.predict_batch(weights, placed))
    for index in range(min(num_records, len(found["is_real"]))):
      if found["is_real"][index]:
        yield {name: values[index] for name, values in found.items()}
    num_records -= len(found["is_real"])
    if num_records <= 0:
      return


def export_model(program: Program, weights: Weights) -> unet.UNet:
  """Returns the network in evaluation mode, whole on every device."""
  weights = jax.device_get(program.gather(weights))
  model = nnx.merge(program.graph, weights["params"], weights["stats"])
  model.eval()
  return model


def restore_state(
  program: Program, config: ConfigDict, checkpoints
) -> TrainState | None:
  """Returns the state of the newest whole checkpoint; None: there is none.

  Raises:
    ValueError: the checkpoint is of another configuration, or none is whole.
  """
  state = checkpoints.restore(program.shapes, config, program.shardings)
  if state is None:
    return None
  # It may be the one before a step that failed.
  is_finite = sharding.place_everywhere(np.ones((), bool), program.mesh)
  return dataclasses.replace(state, is_finite=is_finite)
