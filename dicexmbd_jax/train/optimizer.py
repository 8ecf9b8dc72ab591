"""The optimizer and its learning rate."""

import math

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

SCHEDULES = ("constant", "plateau", "cosine")
# Of fewer, a rate and a warm-up cannot be scaled from those of many.
_MIN_STEPS = 100


def make_schedule(config: ConfigDict) -> optax.Schedule:
  """Returns the learning rate by step, before any plateau's reduction.

  Args:
    config: `config.train`. All schedules rise from 0 over warmup_steps;
      "cosine" then falls to 0 at num_steps.
  """
  rate, warmup = config.learning_rate, config.warmup_steps
  if config.schedule == "cosine":
    return optax.warmup_cosine_decay_schedule(
      0.0, rate, warmup, max(config.num_steps, warmup + 1)
    )
  if not warmup:
    return optax.constant_schedule(rate)
  return optax.warmup_constant_schedule(0.0, rate, warmup)


def choose_reference(config: ConfigDict, file: ConfigDict) -> ConfigDict:
  """Returns the section whose batch, learning rate and steps belong together.

  Those of the file were found together, and a call that changes the batch alone
  leaves that so. One with a learning rate of its own has chosen all three.

  Args:
    config: `config.train` of the call.
    file: of its file, without what the call overrides.
  """
  has_own = config.learning_rate != file.learning_rate
  return config if has_own or config.batch_size == file.batch_size else file


def describe_batch(config: ConfigDict, file: ConfigDict) -> str:
  """Says what belongs together when a batch is changed, one line.

  Args:
    config: `config.train` of the call.
    file: of its file, without what the call overrides.
  """
  reference = choose_reference(config, file)
  if config.batch_size != reference.batch_size:
    return (
      f"{advise_batch(reference, config.batch_size)}; found learning_rate "
      f"{config.learning_rate:g} and num_steps {config.num_steps}"
    )
  return (
    f"batch_size {config.batch_size}, learning_rate {config.learning_rate:g} "
    f"and num_steps {config.num_steps} belong together; "
    f"{advise_batch(reference, 4 * config.batch_size)}"
  )


def advise_batch(reference: ConfigDict, batch_size: int) -> str:
  """Says what to change with the batch, one line.

  Adam's rate goes with the square root of the batch (Malladi et al. 2022, "On
  the SDEs and scaling rules for adaptive gradient algorithms"); the examples
  seen stay the same.

  Args:
    reference: `config.train`, whose batch, rate and steps belong together.
    batch_size: another batch.
  """
  times = batch_size / reference.batch_size
  change = f"with a batch of {batch_size} in place of {reference.batch_size}"
  counts = ["num_steps", "warmup_steps"]
  if reference.get("num_epochs") is not None:
    counts = ["warmup_steps"]  # The steps follow from the epochs.
  elif reference.num_steps / times < _MIN_STEPS <= reference.num_steps:
    return (
      f"{change} the {reference.num_steps} steps become "
      f"{reference.num_steps / times:.2g}, too few to scale from: choose "
      "learning_rate and num_steps anew, or a smaller batch"
    )
  steps = ", ".join(
    f"{name} {round(reference[name] / times)} in place of {reference[name]}"
    for name in counts
  )
  return (
    f"{change}: learning_rate {reference.learning_rate * math.sqrt(times):.2g} "
    f"in place of {reference.learning_rate:g} (x {math.sqrt(times):.3g}, "
    f"the square root of {times:.3g}), {steps}"
  )


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
  """AdamW (Adam where weight_decay is 0), with gradient clipping.

  Args:
    config: `config.train`; clip_norm 0 does not clip.
  """
  adam = optax.adamw(make_schedule(config), weight_decay=config.weight_decay)
  if not config.clip_norm:
    return adam
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)


def make_plateau(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
  """Scales the learning rate down when the validation loss stands still.

  Its `update` is called once a validation, not once a step; the step
  multiplies its updates by the state's `scale`. The scale falls by
  plateau_factor at the plateau_patience-th validation in a row without
  progress (a fall by more than 0.01 %).
  """
  return optax.contrib.reduce_on_plateau(
    config.plateau_factor, config.plateau_patience
  )


def advance_plateau(config: ConfigDict, state, validation_loss: jax.Array):
  """Returns the plateau's state after a validation; only "plateau" moves."""
  if config.schedule != "plateau":
    return state
  _, state = make_plateau(config).update({}, state, value=validation_loss)
  return state


def update_average(average, current, step: jax.Array, decay: float):
  """Returns the exponential moving average of weights after a step.

  Args:
    average: before the step.
    current: the weights after it.
    step: steps done before this one.
    decay: in the long run. A short memory first: early averages would
      remember the random start.
  """
  share = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return optax.incremental_update(current, average, share)
