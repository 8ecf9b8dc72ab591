"""A run's compiled functions, and where its arrays lie."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dicexmbd_jax.model import unet
from dicexmbd_jax.train import optimizer, sharding, step
from dicexmbd_jax.train.step import Example, TrainState, Weights

# Channels that a TPU computes at once.
TPU_LANES = 128
# Off: cutting an image into eight strips, with copies of their seams before and
# after each convolution, where a device has fewer than eight examples.
TPU_OPTIONS: dict[str, str | bool] = {
  "xla_tpu_run_space_to_batch": False,
  "xla_tpu_run_space_to_batch_on_new_platforms": False,
}


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


def make_program(
  model: unet.UNet,
  config: ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> Program:
  """Plans where arrays lie and prepares the functions; compiles nothing yet.

  Args:
    model: the network to start from; it is left as it is.
    config: the whole configuration.
    devices: None: all devices of all processes; others need not be there, as
      long as nothing is run.
  """
  mesh = sharding.make_mesh(devices)
  parts: tuple = nnx.split(_suit(model, mesh), nnx.Param, nnx.BatchStat)
  graph, params, stats = parts
  weights = jax.tree.map(np.asarray, {"params": params, "stats": stats})
  tx = optimizer.make_optimizer(config.train)
  make = functools.partial(step.make_state, tx, config.train)
  shapes = jax.eval_shape(make, weights)
  shardings = sharding.shard_state(shapes, mesh, config.train.shard_above)
  everywhere = sharding.replicate(mesh)
  options = find_options(mesh)
  jit = functools.partial(
    jax.jit, out_shardings=everywhere, compiler_options=options
  )
  return Program(
    graph=graph,
    mesh=mesh,
    shapes=shapes,
    shardings=shardings,
    make_state=lambda: jax.jit(make, out_shardings=shardings)(weights),
    take_step=jax.jit(
      functools.partial(step.take_step, graph, tx, config),
      donate_argnums=0,
      out_shardings=(shardings, everywhere),
      compiler_options=options,
    ),
    end_validation=jax.jit(
      functools.partial(step.end_validation, config.train),
      donate_argnums=0,
      out_shardings=shardings,
    ),
    score_batch=jit(functools.partial(step.score_batch, graph, config.train)),
    predict_batch=jit(functools.partial(step.predict_batch, graph)),
    gather=jit(functools.partial(jax.tree.map, jnp.copy)),
  )


def _suit(model: unet.UNet, mesh: Mesh) -> unet.UNet:
  """Returns the network as the devices compute it best."""
  if mesh.devices.flat[0].platform != "tpu":
    return model
  model = nnx.clone(model)
  model.lanes = TPU_LANES
  return model


def find_options(mesh: Mesh) -> dict[str, str | bool] | None:
  """Returns what the devices' compiler is told; None: nothing.

  Asked by compiling next to nothing, since options come and go.
  """
  device = (*mesh.local_devices, *mesh.devices.flat)[0]
  if device.platform != "tpu":
    return None
  place = jax.sharding.SingleDeviceSharding(device)
  number = jax.ShapeDtypeStruct((), jnp.float32, sharding=place)
  try:
    jax.jit(jnp.negative).lower(number).compile(compiler_options=TPU_OPTIONS)
  except jax.errors.JaxRuntimeError:
    return None
  return dict(TPU_OPTIONS)


def describe_step(
  program: Program, config: ConfigDict, patch_px: int
) -> tuple[TrainState, dict[str, jax.ShapeDtypeStruct]]:
  """Returns state and batch of a step: shapes, types and where they lie."""
  shape = config.train.batch_size, patch_px, patch_px
  spread = sharding.split_batch(program.mesh)
  describe = functools.partial(jax.ShapeDtypeStruct, sharding=spread)
  batch = {
    "image": describe((*shape, 2), jnp.float32),
    "target": describe((*shape, 3), jnp.uint16),
    "valid": describe((*shape, 1), jnp.uint8),
    "known": describe((*shape, 3), jnp.uint8),
    "is_real": describe(shape[:1], jnp.bool_),
  }
  # As the run will call it, so that the first step is not traced again.
  state = jax.tree.map(
    lambda leaf, way: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=way
    ),
    program.shapes,
    program.shardings,
  )
  return state, batch


def trace_step(program: Program, config: ConfigDict, patch_px: int):
  """Traces one step, which shows what cannot be computed.

  Args:
    program: from make_program.
    config: the whole configuration.
    patch_px: edge of the records.

  Raises:
    ValueError: records and configuration do not fit.
  """
  state, batch = describe_step(program, config, patch_px)
  try:
    jax.eval_shape(program.take_step, state, batch)
  except (TypeError, AttributeError, KeyError) as error:
    text = " ".join(str(error).split())
    raise ValueError(f"--config: found a step that fails: {text}") from error
