"""Training: one jitted step, and the loop around it, on a single device."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax.image import targets
from dicexmbd_jax.model import augment, losses, unet
from dicexmbd_jax.types import Image

Patches = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, target, valid


@dataclasses.dataclass(frozen=True)
class Example:
  """One whole training image.

  Attributes:
    name: for messages.
    image: 0..255, as prediction sees it.
    target: the teacher's nucleus, membrane/cytoplasm, background.
    share: relative number of patches drawn from it.
  """

  name: str
  image: Image
  target: targets.Target
  share: float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that changes from step to step.

  `average` is the exponential moving average of parameters and BatchNorm
  statistics: the weights that are kept.
  """

  step: jax.Array
  params: nnx.State
  stats: nnx.State
  optimizer: optax.OptState
  average: tuple[nnx.State, nnx.State]


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
  """AdamW with warm-up, cosine decay to zero and gradient clipping."""
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, config.warmup_steps, config.num_steps
  )
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(schedule, weight_decay=config.weight_decay),
  )


def make_train_step(
  graph, tx: optax.GradientTransformation, config: ConfigDict
):
  """Returns the jitted step: (state, key, batch) -> (state, loss).

  Args:
    graph: the network's structure, from `nnx.split`.
    tx: the optimizer.
    config: `config.train`.
  """
  strengths = augment.Strengths(**config.augment)

  def train_step(state: TrainState, key, batch):
    key = jax.random.fold_in(key, state.step)
    image, target, valid = augment.augment_batch(
      key, batch, strengths, config.crop_px
    )

    def compute_loss(params):
      model = nnx.merge(graph, params, state.stats, copy=True)
      model.train()
      loss = losses.binary_cross_entropy(model(image, valid), target, valid)
      return loss, nnx.state(model, nnx.BatchStat)

    (loss, stats), grads = jax.value_and_grad(compute_loss, has_aux=True)(
      state.params
    )
    updates, optimizer = tx.update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    # A short memory first: early averages would remember the random start.
    decay = jnp.minimum(
      config.average_decay, (1.0 + state.step) / (10.0 + state.step)
    )
    average = optax.incremental_update(
      (params, stats), state.average, 1.0 - decay
    )
    step = state.step + 1
    return TrainState(step, params, stats, optimizer, average), loss

  return jax.jit(train_step, donate_argnums=0)


def train(
  model: unet.UNet,
  examples: Sequence[Example],
  config: ConfigDict,
  report: Callable[[int, float, unet.UNet], None] | None = None,
) -> unet.UNet:
  """Trains a network.

  Args:
    model: random, or trained already; it is left as it is.
    examples: the training images, in memory.
    config: the whole configuration; the seed decides everything random.
    report: called every `config.train.report_steps` steps, and after the last,
      with the step, the mean loss since the last call and the averaged model.

  Returns:
    The network with averaged weights, in evaluation mode.

  Raises:
    FloatingPointError: the loss is no longer finite.
  """
  parts: tuple = nnx.split(model, nnx.Param, nnx.BatchStat)
  graph, params, stats = parts
  tx = make_optimizer(config.train)
  # Copies: the state is donated, and no buffer may be donated twice.
  average = jax.tree.map(jnp.copy, (params, stats))
  state = TrainState(
    jnp.zeros((), jnp.int32), params, stats, tx.init(params), average
  )
  train_step = make_train_step(graph, tx, config.train)
  key = jax.random.key(config.seed)
  batches = draw_batches(examples, config.train, config.seed)
  recent = []
  for step in range(1, config.train.num_steps + 1):
    state, loss = train_step(state, key, next(batches))
    recent.append(loss)
    if step % config.train.report_steps and step < config.train.num_steps:
      continue
    mean = float(np.mean(jax.device_get(recent)))
    recent = []
    if not np.isfinite(mean):
      raise FloatingPointError(f"step {step}: found loss {mean}, not finite")
    logging.info("step %d  loss %.4f", step, mean)
    if report is not None:
      report(step, mean, _evaluation_model(graph, state))
  return _evaluation_model(graph, state)


def _evaluation_model(graph, state: TrainState) -> unet.UNet:
  # The next step donates the state's buffers: the model gets its own.
  params, stats = jax.tree.map(jnp.copy, state.average)
  model = nnx.merge(graph, params, stats)
  model.eval()
  return model


def draw_batches(
  examples: Sequence[Example], config: ConfigDict, seed: int
) -> Iterator[Patches]:
  """Yields endless batches (image, target, valid) of random windows.

  Windows are `config.window_px` wide, more than the crop, so that rotated and
  shrunken crops find pixels; what lies outside of its image is not valid.
  """
  rng = np.random.default_rng(seed)
  shares = np.array([example.share for example in examples], np.float64)
  shares /= shares.sum()
  size = config.window_px
  while True:
    windows = []
    for index in rng.choice(len(examples), config.batch_size, p=shares):
      example = examples[index]
      centre = [rng.integers(0, n) for n in example.image.shape[:2]]
      windows.append(cut_window(example, centre, size))
    image, target, valid = map(np.stack, zip(*windows, strict=True))
    yield image, target, valid


def cut_window(example: Example, centre: Sequence[int], size: int) -> Patches:
  """Returns (image, target, valid) of size x size around a pixel."""
  source, window = [], []
  for middle, length in zip(centre, example.image.shape[:2], strict=True):
    low = middle - size // 2
    start, stop = max(low, 0), min(low + size, length)
    source.append(slice(start, stop))
    window.append(slice(start - low, stop - low))
  inside = np.ones((*example.image.shape[:2], 1), np.float32)
  patches = []
  for field in (example.image, example.target, inside):
    patch = np.zeros((size, size, field.shape[-1]), np.float32)
    patch[tuple(window)] = field[tuple(source)]
    patches.append(patch)
  image, target, valid = patches
  return image, target, valid
