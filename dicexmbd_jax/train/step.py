"""One training step, and what validation computes: pure functions."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax.train import augment, losses, metrics, records
from dicexmbd_jax.train import optimizer as optimizer_lib

Weights = dict[str, nnx.State]  # "params", "stats"
Example = dict[str, Any]  # record_id, image, target, valid, probabilities


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
    best_loss=jnp.full((), jnp.inf, jnp.float32),
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
    batch: image (b, p, p, c) 0..255, target (b, p, p, 3), valid (b, p, p, 1),
      known (b, p, p, 3), as records.decode_arrays takes them.
  """
  train, batch = config.train, records.decode_arrays(batch)
  # Of seed and step alone: the same on any number of devices, and again.
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  patches = augment.augment_batch(
    key,
    (batch["image"], batch["target"], batch["valid"], batch["known"]),
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
  graph: nnx.GraphDef,
  config: ConfigDict,
  weights: Weights,
  patches: augment.Patches,
):
  """Returns loss, statistics and gradient of a batch, part by part.

  The parts are summed by their share of what is known, which gives the whole
  batch's mean cross-entropy and its gradient, but for BatchNorm: it sees each
  part by itself (over all devices), and its running statistics move once a
  part. A scan inside the step, and not optax.MultiSteps: a step then means the
  same for schedule, average, seed and data, however many parts it has.

  Args:
    graph: the network's structure.
    config: `config.train`.
    weights: parameters and statistics.
    patches: image, target, valid and known, each (b, h, w, *).
  """
  num_parts = config.accumulate_steps
  if num_parts == 1:
    return compute_gradients(graph, config, weights, patches)
  # Part i has the i-th of every num_parts examples, which are on all devices.
  parts = jax.tree.map(
    lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), patches
  )
  class_weights = jnp.asarray(config.loss.class_weights, jnp.float32)
  share = (parts[2] * parts[3] * class_weights).sum((1, 2, 3, 4))
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
  graph: nnx.GraphDef,
  config: ConfigDict,
  weights: Weights,
  patches: augment.Patches,
):
  """Returns loss, statistics and gradient; see accumulate_gradients."""
  image, target, valid, known = patches

  def compute_loss(params):
    model = nnx.merge(graph, params, weights["stats"], copy=True)
    model.train()
    logits = model(image, valid)
    loss = losses.compute_loss(logits, target, valid * known, config.loss)
    return loss, nnx.state(model, nnx.BatchStat)

  (loss, stats), grads = jax.value_and_grad(compute_loss, has_aux=True)(
    weights["params"]
  )
  return loss, stats, grads


def run_network(graph: nnx.GraphDef, weights: Weights, batch) -> jax.Array:
  """Returns the logits of whole patches of any size, as prediction does."""
  model = nnx.merge(graph, weights["params"], weights["stats"])
  model.eval()
  height, width = batch["image"].shape[1:3]
  stride = 2**model.depth
  fill = [(0, 0), (0, -height % stride), (0, -width % stride), (0, 0)]
  image = jnp.pad(batch["image"], fill)
  return model(image, jnp.pad(batch["valid"], fill))[:, :height, :width]


def score_batch(
  graph: nnx.GraphDef, config: ConfigDict, weights: Weights, batch
) -> dict[str, Any]:
  """Returns sums over what is known of a batch's real examples."""
  batch = records.decode_arrays(batch)
  logits = run_network(graph, weights, batch)
  valid = batch["valid"] * batch["known"]
  valid = valid * batch["is_real"][:, None, None, None]
  loss = losses.compute_loss(logits, batch["target"], valid, config.loss)
  num_px = valid.mean(-1).sum()
  return {
    "loss_sum": loss * num_px,
    "num_px": num_px,
    "pixels": metrics.pixel_scores(logits, batch["target"], valid),
  }


def predict_batch(graph: nnx.GraphDef, weights: Weights, batch) -> Example:
  """Returns the batch, decoded, with its probabilities."""
  batch = records.decode_arrays(batch)
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
