"""How batches and the training state lie on many devices.

One mesh axis, "data": each device works on its share of the batch. The state is
on every device, or, where a run asks for it, its big arrays are spread over
the same axis (as FSDP does); the compiler adds what must be sent. The same
program runs on one device, on many, and in many processes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns devices in one row; None: all devices of all processes."""
  devices = jax.devices() if devices is None else list(devices)
  return jax.make_mesh(
    (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
  )


def check_batch(config: ConfigDict, num_devices: int, num_processes: int = 1):
  """Raises ValueError unless the devices divide the batch.

  Args:
    config: `config.train`: batch_size examples a step, in accumulate_steps
      equal parts.
    num_devices: of all processes.
    num_processes: each reads an equal share.
  """
  num_parts = num_devices * config.accumulate_steps
  if config.batch_size % num_parts or config.batch_size % num_processes:
    raise ValueError(
      f"config.train.batch_size: found {config.batch_size}, expected a "
      f"multiple of {num_parts}: {num_devices} devices ({num_processes} "
      f"processes) x accumulate_steps {config.accumulate_steps}"
    )


def replicate(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: its first axis over the devices."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


def shard_state(state: Any, mesh: Mesh, shard_above: int | None) -> Any:
  """Returns a sharding for every array of the state.

  Args:
    state: arrays, or their shapes.
    mesh: from `make_mesh`.
    shard_above: arrays of more numbers are spread along their longest axis
      that the devices divide; None: none is.
  """
  return jax.tree.map(
    lambda leaf: NamedSharding(mesh, _plan_array(leaf, mesh, shard_above)),
    state,
  )


def _plan_array(leaf, mesh: Mesh, shard_above: int | None) -> PartitionSpec:
  if shard_above is None or leaf.size <= shard_above:
    return PartitionSpec()
  divided = [n if n % mesh.size == 0 else 0 for n in leaf.shape]
  if not any(divided):
    return PartitionSpec()
  axis = int(np.argmax(divided))
  return PartitionSpec(*[None] * axis, AXIS)


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Puts this process's share of a batch on its devices."""
  spread = split_batch(mesh)
  return {
    name: jax.make_array_from_process_local_data(spread, values)
    for name, values in batch.items()
  }


def place_everywhere(values: np.ndarray, mesh: Mesh) -> jax.Array:
  """Puts what every process has on the host on all devices, whole."""
  return jax.make_array_from_callback(
    values.shape, replicate(mesh), lambda index: values[index]
  )
