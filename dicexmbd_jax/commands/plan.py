"""`plan`: whether a training step fits its devices, and what bounds it.

Compiles for devices that are not there. Exit codes: 0 it fits, or nobody
knows; 1 it does not fit; 2 wrong call, or no compiler for such devices.
"""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from dicexmbd_jax.io import write
from dicexmbd_jax.runs.failures import refuse_call
from dicexmbd_jax.train import check, plan, sharding, topology

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Request:
  """One call of `plan`.

  Attributes:
    topology: KIND:SHAPE.
    config: the whole configuration, checked.
    file: as its file has it, without what the call overrides.
    patch_px: edge of the records.
    output: folder of plan.json and step.hlo; None: the text alone.
  """

  topology: str
  config: ConfigDict
  file: ConfigDict
  patch_px: int
  output: Path | None


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: config, file_config, topology, output.
  """
  try:
    request = read_request(flags)
    if request.output:
      request.output.mkdir(parents=True, exist_ok=True)  # Not after minutes.
    topology.start_compiler()
    devices = topology.list_devices(request.topology)
    config, notes = fit_batch(request, len(devices))
    found, text = plan.plan_step(config, devices, request.patch_px)
    lines = plan.describe_plan(found, config, request.file)
    print("\n".join([*notes, *lines]))
    if request.output:
      values = dataclasses.asdict(found) | {"is_fitting": found.is_fitting}
      write.write_json(request.output / "plan.json", values)
      write.write_text(request.output / "step.hlo", text)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output or ".")
  return 1 if found.is_fitting is False else 0


def read_request(flags) -> Request:
  """Returns the call, checked.

  Raises:
    ValueError: the configuration cannot be meant.
  """
  config = flags.config.copy_and_resolve_references()
  if "train" not in config:
    raise ValueError("--config: found no train, expected a training's")
  check.TrainSection.read(config.train)
  check.check_crop(config)
  output = flags.output and Path(flags.output)
  patch_px = check.plan_patch_px(config)
  return Request(flags.topology, config, flags.file_config, patch_px, output)


def fit_batch(
  request: Request, num_devices: int
) -> tuple[ConfigDict, list[str]]:
  """Returns the configuration to plan with, and lines on what was changed.

  A batch that the call chose has to be one that the devices divide; the file's
  was chosen for other devices, and is rounded up to one.

  Raises:
    ValueError: the devices do not divide the call's batch.
  """
  config = request.config.copy_and_resolve_references()
  size, num_parts = config.train.batch_size, config.train.accumulate_steps
  num_parts *= num_devices
  if size == request.file.train.batch_size and size % num_parts:
    config.train.batch_size = -(-size // num_parts) * num_parts
    name = "config.train.batch_size"
    line = (
      f"{name}: {size}, which {num_parts} parts do not divide; planned with "
      f"--{name}={config.train.batch_size}, which train has to be told, too"
    )
    return config, [line, ""]
  sharding.check_batch(config.train, num_devices)
  return config, []
