"""Training: one pure step, jitted once over all devices, and its loop."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dicexmbd_jax import input_pipeline, train_checkpoint
from dicexmbd_jax.model import augment, losses, metrics, sharding, unet
from dicexmbd_jax.model import optimizer as optimizer_lib
from dicexmbd_jax.model.processes import StopRequest
from dicexmbd_jax.model.speed import Speed

Patches = tuple[jax.Array, jax.Array, jax.Array]  # image, target, valid
Weights = dict[str, nnx.State]  # "params", "stats"
Example = dict[str, Any]  # record_id, image, target, valid, probabilities
FIELDS = ("image", "target", "valid", "is_real")  # Of a batch, on the device.
RUN_AHEAD = 2  # Steps the host may be ahead of the devices.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that changes from step to step, and all that a checkpoint holds.

  Attributes:
    step: steps done.
    params: float32, whatever the computation's type.
    stats: BatchNorm's running mean and variance.
    optimizer: of optax.
    average: moving average of params and stats; {} where there is none.
    plateau: of reduce-on-plateau: scale, best loss, validations without
      progress.
    best_loss: lowest validation loss so far.
    loss_sum: over the steps since the last report.
    is_finite: False from the first step on whose loss, gradient or update was
      not; everything else is then as it was before that step.
  """

  step: jax.Array
  params: nnx.State
  stats: nnx.State
  optimizer: optax.OptState
  average: Weights
  plateau: optax.OptState
  best_loss: jax.Array
  loss_sum: jax.Array
  is_finite: jax.Array

  def weights(self) -> Weights:
    """Returns what is validated and kept: the average, where there is one."""
    return self.average or {"params": self.params, "stats": self.stats}


@dataclasses.dataclass(frozen=True)
class Program:
  """The compiled functions of a run, and where their arrays lie."""

  graph: nnx.GraphDef
  mesh: Mesh
  shapes: TrainState  # Shapes and types.
  shardings: TrainState
  make_state: Callable[[], TrainState]
  take_step: Callable[[TrainState, Any], tuple[TrainState, dict]]
  end_validation: Callable[[TrainState, Any], TrainState]
  score_batch: Callable[[Weights, Any], dict]
  predict_batch: Callable[[Weights, Any], Example]
  gather: Callable[[Weights], Weights]


class Observer(Protocol):
  """Who writes down what the loop finds; on every process of a run."""

  def report(self, step: int, found: dict[str, float]):
    """Takes numbers of a step."""

  def keep(self, step: int, model: unet.UNet):
    """Takes the best network so far."""

  def show(self, step: int, examples: Iterator[Example]):
    """Takes predicted validation records, to the last, for a picture."""

  def score(self, examples: Iterator[Example]) -> dict[str, float]:
    """Takes predicted validation records, to the last; returns scores."""


def make_state(
  tx: optax.GradientTransformation, config: ConfigDict, weights: Weights
) -> TrainState:
  """Returns the state before the first step; `config` is `config.train`."""
  # Copies: the state is donated, and no buffer may be donated twice.
  average = jax.tree.map(jnp.copy, weights) if config.average_decay else {}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=weights["params"],
    stats=weights["stats"],
    optimizer=tx.init(weights["params"]),
    average=average,
    plateau=optimizer_lib.make_plateau(config).init(jnp.zeros(())),
    best_loss=jnp.full((), jnp.inf),
    loss_sum=jnp.zeros(()),
    is_finite=jnp.ones((), bool),
  )


def take_step(
  graph: nnx.GraphDef,
  tx: optax.GradientTransformation,
  config: ConfigDict,
  state: TrainState,
  batch: dict[str, jax.Array],
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Returns the state after one step, and what to report.

  Args:
    graph: the network's structure, from `nnx.split`.
    tx: the optimizer.
    config: the whole configuration.
    state: before the step.
    batch: image (b, p, p, c) 0..255, target (b, p, p, 3), valid (b, p, p, 1).
  """
  train = config.train
  # Of seed and step alone: the same on any number of devices, and again.
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  patches = augment.augment_batch(
    key,
    (batch["image"], batch["target"], batch["valid"]),
    augment.Strengths(**train.augment),
    train.crop_px,
  )
  loss, stats, grads = accumulate_gradients(
    graph, train, {"params": state.params, "stats": state.stats}, patches
  )
  norm = optax.tree.norm(grads)
  updates, optimizer = tx.update(grads, state.optimizer, state.params)
  scale = state.plateau.scale
  updates = jax.tree.map(lambda update: scale * update, updates)
  params = optax.apply_updates(state.params, updates)
  average = state.average
  if train.average_decay:
    average = optimizer_lib.update_average(
      average,
      {"params": params, "stats": stats},
      state.step,
      train.average_decay,
    )
  # Kept in the state, so that a run that was stopped reports the same.
  num_summed = state.step % train.report_steps + 1
  loss_sum = jnp.where(num_summed == 1, 0, state.loss_sum) + loss
  # Finite gradients can still make weights that are not.
  size = loss + norm + optax.tree.norm(updates)
  is_finite = state.is_finite & jnp.isfinite(size)
  after = dataclasses.replace(
    state,
    step=state.step + 1,
    params=params,
    stats=stats,
    optimizer=optimizer,
    average=average,
    loss_sum=loss_sum,
  )
  after = jax.tree.map(functools.partial(jnp.where, is_finite), after, state)
  found = {
    "loss": loss_sum / num_summed,
    "learning_rate": optimizer_lib.make_schedule(train)(state.step) * scale,
    "gradient_norm": norm,
    "is_finite": is_finite,
  }
  return dataclasses.replace(after, is_finite=is_finite), found


def accumulate_gradients(
  graph: nnx.GraphDef, config: ConfigDict, weights: Weights, patches: Patches
):
  """Returns loss, statistics and gradient of a batch, part by part.

  The parts are summed by their share of valid pixels, which gives the whole
  batch's mean cross-entropy and its gradient, but for BatchNorm: it sees each
  part by itself (over all devices), and its running statistics move once a
  part. A scan inside the step, and not optax.MultiSteps: a step then means the
  same for schedule, average, seed and data, however many parts it has.

  Args:
    graph: the network's structure.
    config: `config.train`.
    weights: parameters and statistics.
    patches: image, target and valid, each (b, h, w, *).
  """
  num_parts = config.accumulate_steps
  if num_parts == 1:
    return compute_gradients(graph, config, weights, patches)
  # Part i has the i-th of every num_parts examples, which are on all devices.
  parts = jax.tree.map(
    lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), patches
  )
  share = parts[2].sum((1, 2, 3, 4))
  share = share / jnp.maximum(share.sum(), 1)

  def add_part(total, part):
    loss_sum, stats, grad_sum = total
    share, patches = part
    loss, stats, grads = compute_gradients(
      graph, config, {"params": weights["params"], "stats": stats}, patches
    )
    grad_sum = jax.tree.map(lambda a, b: a + share * b, grad_sum, grads)
    return (loss_sum + share * loss, stats, grad_sum), None

  zeros = jax.tree.map(jnp.zeros_like, weights["params"])
  start = jnp.zeros(()), weights["stats"], zeros
  return jax.lax.scan(add_part, start, (share, parts))[0]


def compute_gradients(
  graph: nnx.GraphDef, config: ConfigDict, weights: Weights, patches: Patches
):
  """Returns loss, statistics and gradient; see accumulate_gradients."""
  image, target, valid = patches

  def compute_loss(params):
    model = nnx.merge(graph, params, weights["stats"], copy=True)
    model.train()
    logits = model(add_channels(image, model), valid)
    loss = losses.compute_loss(logits, target, valid, config.loss)
    return loss, nnx.state(model, nnx.BatchStat)

  (loss, stats), grads = jax.value_and_grad(compute_loss, has_aux=True)(
    weights["params"]
  )
  return loss, stats, grads


def add_channels(image: jax.Array, model: unet.UNet) -> jax.Array:
  """Adds channels of zeros up to the network's number (published: 3)."""
  num_missing = model.encoders[0].conv1.in_features - image.shape[-1]
  return jnp.pad(image, [(0, 0), (0, 0), (0, 0), (0, num_missing)])


def run_network(graph: nnx.GraphDef, weights: Weights, batch) -> jax.Array:
  """Returns the logits of whole patches of any size, as prediction does."""
  model = nnx.merge(graph, weights["params"], weights["stats"])
  model.eval()
  height, width = batch["image"].shape[1:3]
  stride = 2**model.depth
  fill = [(0, 0), (0, -height % stride), (0, -width % stride), (0, 0)]
  image = jnp.pad(add_channels(batch["image"], model), fill)
  return model(image, jnp.pad(batch["valid"], fill))[:, :height, :width]


def score_batch(
  graph: nnx.GraphDef, config: ConfigDict, weights: Weights, batch
) -> dict[str, Any]:
  """Returns sums over the valid pixels of a batch's real examples."""
  logits = run_network(graph, weights, batch)
  valid = batch["valid"] * batch["is_real"][:, None, None, None]
  loss = losses.compute_loss(logits, batch["target"], valid, config.loss)
  num_px = valid.sum()
  return {
    "loss_sum": loss * num_px,
    "num_px": num_px,
    "pixels": metrics.pixel_scores(logits, batch["target"], valid),
  }


def predict_batch(graph: nnx.GraphDef, weights: Weights, batch) -> Example:
  """Returns the batch with its probabilities."""
  logits = run_network(graph, weights, batch)
  return {**batch, "probabilities": jax.nn.sigmoid(logits)}


def end_validation(
  config: ConfigDict, state: TrainState, loss: jax.Array
) -> TrainState:
  """Returns the state that knows of a validation loss."""
  return dataclasses.replace(
    state,
    plateau=optimizer_lib.advance_plateau(config, state.plateau, loss),
    best_loss=jnp.minimum(state.best_loss, loss),
  )


def make_program(
  model: unet.UNet, config: ConfigDict, num_devices: int | None = None
) -> Program:
  """Plans where arrays lie and prepares the functions; compiles nothing yet.

  Args:
    model: the network to start from; it is left as it is.
    config: the whole configuration.
    num_devices: None: all devices of all processes.
  """
  mesh = sharding.make_mesh(num_devices)
  parts: tuple = nnx.split(model, nnx.Param, nnx.BatchStat)
  graph, params, stats = parts
  weights = jax.tree.map(np.asarray, {"params": params, "stats": stats})
  tx = optimizer_lib.make_optimizer(config.train)
  make = functools.partial(make_state, tx, config.train)
  shapes = jax.eval_shape(make, weights)
  shardings = sharding.shard_state(shapes, mesh, config.train.shard_above)
  everywhere = sharding.replicate(mesh)
  jit = functools.partial(jax.jit, out_shardings=everywhere)
  return Program(
    graph=graph,
    mesh=mesh,
    shapes=shapes,
    shardings=shardings,
    make_state=lambda: jax.jit(make, out_shardings=shardings)(weights),
    take_step=jax.jit(
      functools.partial(take_step, graph, tx, config),
      donate_argnums=0,
      out_shardings=(shardings, everywhere),
    ),
    end_validation=jax.jit(
      functools.partial(end_validation, config.train),
      donate_argnums=0,
      out_shardings=shardings,
    ),
    score_batch=jit(functools.partial(score_batch, graph, config.train)),
    predict_batch=jit(functools.partial(predict_batch, graph)),
    gather=jit(functools.partial(jax.tree.map, jnp.copy)),
  )


def check_program(program: Program, config: ConfigDict):
  """Traces one step, which shows what cannot be computed.

  Raises:
    ValueError: records and configuration do not fit.
  """
  [patch_px] = {
    input_pipeline.Records(source.path, "train").patch_px
    for source in list_sources(config)
  }
  if config.train.crop_px > patch_px:
    raise ValueError(
      f"config.train.crop_px: found {config.train.crop_px}, expected at most "
      f"{patch_px} as the records have"
    )
  shape = config.train.batch_size, patch_px, patch_px
  batch = {
    "image": jax.ShapeDtypeStruct((*shape, 2), jnp.float32),
    "target": jax.ShapeDtypeStruct((*shape, 3), jnp.float32),
    "valid": jax.ShapeDtypeStruct((*shape, 1), jnp.float32),
    "is_real": jax.ShapeDtypeStruct(shape[:1], jnp.bool_),
  }
  try:
    jax.eval_shape(program.take_step, program.shapes, batch)
  except (TypeError, AttributeError, KeyError) as error:
    text = " ".join(str(error).split())
    raise ValueError(f"--config: found a step that fails: {text}") from error


def train_and_evaluate(
  program: Program,
  state: TrainState,
  config: ConfigDict,
  checkpoints: train_checkpoint.Checkpoints,
  observer: Observer,
) -> bool:
  """Trains to config.train.num_steps, or until asked to stop.

  Args:
    program: from make_program.
    state: to go on from; it is donated.
    config: the whole configuration.
    checkpoints: where the state is saved.
    observer: told of all that is measured.

  Returns:
    Whether the run is complete; else it was asked to stop, and has saved.

  Raises:
    FloatingPointError: a loss or gradient is not finite; the state before
      that step has been saved.
  """
  train = config.train
  start = int(state.step)
  stop, speed = StopRequest(), Speed(config)
  recent: collections.deque = collections.deque()  # Steps not looked at yet.
  batches = read_batches(config, "train", start)
  for step in range(start + 1, train.num_steps + 1):
    batch = next(batches)
    state, found = program.take_step(state, place_batch(batch, program.mesh))
    recent.append((step, batch["record_id"], found))
    is_last, is_stopped = step == train.num_steps, stop.is_due(step)
    reports = is_last or step % train.report_steps == 0
    validates = is_last or step % train.eval_steps == 0
    saves = validates or is_stopped or step % train.checkpoint_steps == 0
    is_exact = reports or saves or step == start + 1
    try:
      # The devices never wait for the host: it looks at what is done already.
      check_finite(recent, 0 if is_exact else RUN_AHEAD)
    except FloatingPointError:
      checkpoints.save(int(state.step), state, config)
      raise
    numbers: dict[str, float] = {}
    if reports:
      numbers |= read_numbers(found) | speed.read(step)
    if validates:
      state, scores = validate(program, state, config, observer)
      numbers |= scores
    if numbers:
      observer.report(step, numbers)
    if saves:
      checkpoints.save(step, state, config, numbers.get("validation_loss"))
    if is_stopped and not is_last:
      return False
    if saves or step == start + 1:
      speed.restart(step)  # Neither saving nor compiling is training.
  return True


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


def read_batches(config: ConfigDict, split: str, start_step: int = 0):
  """Returns this process's share of the batches of a split."""
  return input_pipeline.make_batches(
    list_sources(config),
    split,
    batch_size=config.train.batch_size,
    seed=config.seed,
    start_step=start_step,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    num_workers=config.train.num_workers,
    is_training=split == "train",
  )


def list_sources(config: ConfigDict) -> list[input_pipeline.Source]:
  """Returns the record folders to train on, with their weights."""
  return [
    input_pipeline.Source(source.path, source.weight)
    for source in config.train.data.values()
  ]


def place_batch(batch, mesh: Mesh) -> dict[str, jax.Array]:
  """Puts the arrays of this process's share of a batch on its devices."""
  return sharding.place_batch({name: batch[name] for name in FIELDS}, mesh)


def validate(
  program: Program, state: TrainState, config: ConfigDict, observer: Observer
) -> tuple[TrainState, dict[str, float]]:
  """Scores the validation records; keeps the network if it is the best.

  Returns:
    The state, which knows of the loss, and the scores; empty where there are
    no validation records, and the network is kept whatever it is.
  """
  train, step = config.train, int(state.step)
  weights = state.weights()
  scores = score_records(program, weights, config)
  loss = scores.get("validation_loss")
  if loss is None or np.float32(loss) < float(state.best_loss):
    observer.keep(step, export_model(program, weights))
  if loss is None:
    return state, scores
  is_last = step == train.num_steps
  index = step // train.eval_steps
  if is_last or index % train.strip_every == 0:
    observer.show(step, predict_records(program, weights, config, 8))
  has_turn = train.cells_every > 0 and index % train.cells_every == 0
  scores_cells = is_last or has_turn
  if scores_cells and train.cells_records:
    examples = predict_records(program, weights, config, train.cells_records)
    scores |= observer.score(examples)
  return program.end_validation(state, np.float32(loss)), scores


def score_records(
  program: Program, weights: Weights, config: ConfigDict
) -> dict[str, float]:
  """Returns loss and pixel scores of all validation records."""
  total: Any = None
  for batch in read_batches(config, "validation"):
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
  program: Program, weights: Weights, config: ConfigDict, num_records: int
) -> Iterator[Example]:
  """Yields the first validation records with their probabilities.

  Every process gets all of them, and has to take all: their devices work
  together.
  """
  for batch in read_batches(config, "validation"):
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
  state = checkpoints.restore(program.shapes, config)
  if state is None:
    return None
  # It may be the one before a step that failed.
  state = dataclasses.replace(state, is_finite=np.ones((), bool))
  return sharding.place_state(state, program.shardings)
