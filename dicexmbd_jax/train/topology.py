"""Devices that are not there, for which a program can be compiled."""

import contextlib
import os
import re

import jax
from jax.experimental import topologies

MAX_CPUS = 4096  # Of one machine, all virtual.
TPUS = ("v4", "v5e", "v5p", "v6e")
# What XLA must know of a GPU: as the CUDA driver tells it, see NVIDIA's table
# of compute capabilities. Capability, cores (SMs), arithmetic units of each,
# shared memory of a core and of a block at most, second cache, clock, memory.
_HOPPER = (9, 132, 128, 233472, 232448, 52428800, 1.98)
GPUS = {
  "a100": ("NVIDIA A100-SXM4-80GB", 8, 108, 64, 167936, 166912, 41943040)
  + (1.41, 2039, 85.0),
  "h100": ("NVIDIA H100 80GB HBM3", *_HOPPER, 3352, 85.0),
  "h200": ("NVIDIA H200", *_HOPPER, 4800, 150.0),
}
_GPUS_A_HOST = 8
_WANTED = (
  f"KIND:SHAPE, as in v5e:2x4, v5p:2x2x2, h100:8 or cpu:8; kinds: "
  f"{', '.join((*TPUS, *GPUS, 'cpu'))}"
)


def list_devices(topology: str) -> list[jax.Device]:
  """Returns the devices of a topology; only a CPU's can run anything.

  Args:
    topology: KIND:SHAPE, as in v5e:2x4.

  Raises:
    ValueError: there is no such topology, or no compiler for it here.
  """
  found = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", topology)
  kind, shape = found.groups() if found else ("", "")
  if kind in TPUS:
    return _list_tpus(topology)
  if kind in GPUS and shape.isdigit() and int(shape):
    return _list_gpus(topology, kind, int(shape))
  if kind == "cpu" and shape.isdigit() and int(shape):
    return _list_cpus(topology, int(shape))
  raise ValueError(f"--topology: found {topology!r}, expected {_WANTED}")


def start_compiler() -> None:
  """Keeps JAX from looking for accelerators, before it does so."""
  # Read by libtpu: there is no cloud to ask what the machine is.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_WORKER_ID", "0")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
  # Nobody's chips are taken: two may compile at once.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  jax.config.update("jax_platforms", "cpu")


def _list_tpus(topology: str) -> list[jax.Device]:
  try:
    found = topologies.get_topology_desc(topology, "tpu")
  except Exception as error:  # RuntimeErrors and JaxRuntimeErrors of libtpu.
    text = _first_line(error)
    if "libtpu" in text or "Unknown backend" in text:
      raise ValueError(
        f"--topology={topology}: found no compiler for TPUs ({text}), expected "
        f'libtpu: pip install "jax[tpu]=={jax.__version__}"'
      ) from error
    raise ValueError(
      f"--topology: found {topology!r} ({text}), expected {_WANTED}"
    ) from error
  return list(found.devices)


def _list_gpus(topology: str, kind: str, number: int) -> list[jax.Device]:
  hosts, rest = divmod(number, _GPUS_A_HOST)
  if hosts and rest:
    raise ValueError(
      f"--topology: found {topology!r}, expected 1 to 8 GPUs, or hosts of 8"
    )
  shape = f"1x{hosts}x{_GPUS_A_HOST}" if hosts else f"1x1x{number}"
  try:
    found = topologies.get_topology_desc(
      kind, "cuda", target_config=_describe_gpu(*GPUS[kind]), topology=shape
    )
  except Exception as error:  # As above, of the CUDA plugin.
    packages = " ".join(
      f"jax-cuda12-{name}=={jax.__version__}" for name in ("pjrt", "plugin")
    )
    raise ValueError(
      f"--topology={topology}: found no compiler for GPUs "
      f"({_first_line(error)}), expected the extra gpu; without a GPU, pip "
      f"install --no-deps {packages} is enough"
    ) from error
  return list(found.devices)


def _describe_gpu(
  name: str,
  capability: int,
  num_cores: int,
  num_units: int,
  shared_core: int,
  shared_block: int,
  cache: int,
  clock_ghz: float,
  bandwidth_gb_s: int,
  memory_gb: float,
) -> str:
  """Returns XLA's GpuTargetConfigProto as text."""
  return f"""
    gpu_device_info {{
      cuda_compute_capability {{ major: {capability} }}
      core_count: {num_cores} fpus_per_core: {num_units}
      clock_rate_ghz: {clock_ghz} l2_cache_size: {cache}
      memory_bandwidth: {bandwidth_gb_s * 10**9}
      device_memory_size: {int(memory_gb * 1e9)}
      shared_memory_per_core: {shared_core} shared_memory_per_block: 49152
      shared_memory_per_block_optin: {shared_block}
      threads_per_block_limit: 1024 threads_per_warp: 32
      threads_per_core_limit: 2048 registers_per_core_limit: 65536
      registers_per_block_limit: 65536 block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535 block_dim_limit_z: 65535
    }}
    platform_name: "CUDA"
    runtime_version {{ major: 12 minor: 8 }}
    dnn_version_info {{ major: 9 minor: 7 }}
    device_description_str: "{name}"
  """


def _list_cpus(topology: str, number: int) -> list[jax.Device]:
  if number > MAX_CPUS:
    raise ValueError(
      f"--topology: found {topology!r}, expected at most {MAX_CPUS} devices"
    )
  if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    # Where JAX runs already, it keeps the devices that it has.
    with contextlib.suppress(RuntimeError):
      jax.config.update("jax_num_cpu_devices", number)
  devices = jax.devices("cpu")
  if number > len(devices):
    raise ValueError(
      f"--topology: found {topology!r} and {len(devices)} devices, expected "
      "as many"
    )
  return devices[:number]


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
