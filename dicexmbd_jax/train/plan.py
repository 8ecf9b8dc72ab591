"""What a training step will take, told by compiling it for its devices.

None of these need be there. Times are no measurements: the least that the
peaks of the device allow, and what the compiler itself estimates.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from dicexmbd_jax.model import unet
from dicexmbd_jax.train import chips, hlo, metrics, optimizer
from dicexmbd_jax.train.program import Program, describe_step, make_program

NUM_RANKED = 15
SCRATCH = "gradients, activations"


@dataclasses.dataclass(frozen=True)
class StepPlan:
  """What a step takes of each device; bytes and operations are a device's.

  Attributes:
    device_kind: as JAX names it.
    num_devices: that share a batch.
    batch_size: patches a step, of all devices.
    largest_batch: the largest that fits, by scaling this one's memory; None
      where the device's memory is not known.
    num_parameters: of the network.
    memory: bytes by what they are for.
    memory_limit: bytes of the device; None: not known.
    failure: what the compiler said where it gave up for want of memory.
    model_flops: of the network's own arithmetic, forward and backward.
    compiled_flops: as the compiler counts; None where it does not.
    traffic: bytes read and written in the device's memory.
    collectives: (number, bytes) by kind.
    seconds: at least, by what would bound the step: "matrix units", "memory",
      "links"; empty where the peaks are not known.
    cycles: estimated by the compiler (TPUs only); else 0.
    estimated_s: of these cycles; None where it is not known.
    ranking: (label, cycles, bytes) of the costliest operations.
  """

  device_kind: str
  num_devices: int
  batch_size: int
  largest_batch: int | None
  num_parameters: int
  memory: Mapping[str, float]
  memory_limit: float | None
  failure: str
  model_flops: float
  compiled_flops: float | None
  traffic: float
  collectives: Mapping[str, tuple[int, float]]
  seconds: Mapping[str, float]
  cycles: float
  estimated_s: float | None
  ranking: Sequence[tuple[str, float, float]]

  @property
  def is_fitting(self) -> bool | None:
    """Whether the step fits into the device; None: not known."""
    if self.failure:
      return False
    if self.memory_limit is None:
      return None
    return sum(self.memory.values()) <= self.memory_limit

  @property
  def bound(self) -> str:
    """What bounds the step at best; "" where the peaks are not known."""
    return max(self.seconds, key=self.seconds.__getitem__, default="")


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """What the compiler tells of a step.

  Attributes:
    text: optimised HLO; "" where it gave up or JAX cannot read it.
    scratch: bytes a device beside arguments and results.
    flops: as it counts; None where it does not.
    failure: why it gave up.
  """

  text: str = ""
  scratch: float = 0.0
  flops: float | None = None
  failure: str = ""


def plan_step(
  config: ConfigDict, devices: Sequence[jax.Device], patch_px: int
) -> tuple[StepPlan, str]:
  """Compiles a step, which takes minutes; returns the plan and the HLO.

  Args:
    config: the whole configuration, checked.
    devices: from topology.list_devices.
    patch_px: edge of the records.
  """
  model = unet.build_model(config.model, config.seed)
  program = make_program(model, config, devices)
  state, batch = describe_step(program, config, patch_px)
  step = _compile(program, state, batch)
  operations = hlo.read_operations(step.text)
  chip = chips.find_chip(devices[0].device_kind)
  collectives = hlo.sum_collectives(operations)
  num_examples = config.train.batch_size / len(devices)
  costs = {
    "model_flops": num_examples * metrics.count_step_flops(config),
    "traffic": sum(one.num_bytes for one in operations),
    "cycles": sum(one.cycles for one in operations),
  }
  # Of a loop over parts of a batch, XLA counts one turn.
  flops = step.flops if config.train.accumulate_steps == 1 else None
  plan = StepPlan(
    device_kind=devices[0].device_kind,
    num_devices=len(devices),
    batch_size=config.train.batch_size,
    largest_batch=None,
    num_parameters=unet.count_parameters(model),
    memory={
      "parameters": _sum_bytes((state.params, state.stats)),
      "optimizer": _sum_bytes(state.optimizer),
      "moving average": _sum_bytes(state.average),
      "batch": _sum_bytes(batch),
      SCRATCH: step.scratch,
    },
    memory_limit=chips.count_usable_bytes(chip) if chip else None,
    failure=step.failure,
    compiled_flops=flops,
    collectives=collectives,
    seconds=_find_bounds(
      chip,
      config.model.dtype,
      max(flops or 0.0, costs["model_flops"]),
      costs["traffic"],
      collectives,
      len(devices),
    ),
    estimated_s=_time_cycles(costs["cycles"], chip),
    ranking=hlo.rank(operations)[:NUM_RANKED],
    **costs,
  )
  largest = scale_batch(plan, config)
  return dataclasses.replace(plan, largest_batch=largest), step.text


def _compile(program: Program, state: Any, batch: Any) -> CompiledStep:
  take_step: Any = program.take_step  # A function of jax.jit.
  try:
    compiled = take_step.lower(state, batch).compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      said = _describe_failure(str(error))
      raise ValueError(
        f"--topology: found {said}, expected a step that compiles"
      ) from error
    return CompiledStep(failure=_describe_failure(str(error)))
  return CompiledStep(
    text=_read_text(compiled),
    scratch=float(compiled.memory_analysis().temp_size_in_bytes),
    flops=(compiled.cost_analysis() or {}).get("flops"),
  )


def _read_text(compiled: Any) -> str:
  try:
    return compiled.as_text()
  except jax.errors.JaxRuntimeError:
    # A newer compiler's than JAX was made for, with operations of its own.
    return ""


def _time_cycles(cycles: float, chip: chips.Chip | None) -> float | None:
  if not cycles or chip is None or not chip.clock_ghz:
    return None
  return cycles / chip.clock_ghz / 1e9


def _sum_bytes(tree: Any) -> float:
  """Returns a device's bytes of arrays, which know how they are spread."""
  return float(
    sum(
      math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
    )
  )


def _describe_failure(text: str) -> str:
  """Returns the compiler's own numbers, or the beginning of what it said."""
  found = re.search(r"Used [\d.]+\w? of [\d.]+\w? \w+", text)
  return found[0] if found else " ".join(text.split())[:200]


def _find_bounds(
  chip: chips.Chip | None,
  dtype: str,
  flops: float,
  traffic: float,
  collectives: Mapping[str, tuple[int, float]],
  num_devices: int,
) -> dict[str, float]:
  """Returns the seconds that a step takes at least, by what bounds it."""
  if chip is None:
    return {}
  # On TPUs JAX multiplies float32 as bfloat16, unless it is told otherwise.
  rate = chip.tflops.get(dtype, chip.tflops["bfloat16"])
  # As rings do it: what is summed goes round twice, anything else once.
  payload = sum(
    size * (2 if kind == "all-reduce" else 1)
    for kind, (_, size) in collectives.items()
  )
  sent = payload * (num_devices - 1) / num_devices
  return {
    "matrix units": flops / rate / 1e12,
    "memory": traffic / chip.memory_gb_s / 1e9,
    "links": sent / chip.link_gb_s / 1e9,
  }


def scale_batch(plan: StepPlan, config: ConfigDict) -> int | None:
  """Returns about the largest batch that fits; None: the limit is not known.

  The batch's own bytes and the activations grow with it, gradients (as many
  bytes as the parameters) and the state do not.
  """
  activations = plan.memory[SCRATCH]
  if plan.memory_limit is None or plan.failure:
    return None
  parts = config.train.accumulate_steps
  per_device = plan.batch_size / plan.num_devices
  fixed = 2 * plan.memory["parameters"]
  fixed += plan.memory["optimizer"] + plan.memory["moving average"]
  growing = max(activations - plan.memory["parameters"], 0)
  growing = (growing + plan.memory["batch"]) / per_device
  fitting = int(max(plan.memory_limit - fixed, 0) / growing)
  step = plan.num_devices * parts
  return fitting * plan.num_devices // step * step


def describe_plan(
  plan: StepPlan, config: ConfigDict, file: ConfigDict
) -> list[str]:
  """Returns the plan as lines of text.

  Args:
    plan: from plan_step.
    config: the whole configuration.
    file: of its file, without what the call overrides.
  """
  lines = [
    f"{plan.num_devices} x {plan.device_kind}; {plan.batch_size} patches of "
    f"{config.train.crop_px} px a step, {plan.batch_size / plan.num_devices:g} "
    f"a device; width {config.model.width}, {config.model.dtype}, "
    f"{plan.num_parameters / 1e6:.3g} million parameters",
    "",
    _describe_fit(plan),
    *(f"  {name:<24}{_show(size, 'B')}" for name, size in plan.memory.items()),
    "",
    "a device's work in a step",
    f"  {'the network itself':<24}{_show(plan.model_flops, 'FLOP')}",
  ]
  if plan.compiled_flops:
    lines.append(f"  {'as compiled':<24}{_show(plan.compiled_flops, 'FLOP')}")
  if plan.traffic:
    lines.append(f"  {'memory':<24}{_show(plan.traffic, 'B')}")
  lines += [
    f"  {kind:<24}{_show(size, 'B')} in {number}"
    for kind, (number, size) in plan.collectives.items()
  ]
  return [
    *lines,
    "",
    *_describe_times(plan),
    *_describe_batch(plan, config.train, file.train),
    *_describe_ranking(plan),
  ]


def _describe_fit(plan: StepPlan) -> str:
  total = _show(sum(plan.memory.values()), "B")
  if plan.failure:
    return f"does not fit: the compiler gave up ({plan.failure})"
  if plan.memory_limit is None:
    return f"memory of a device: {total}, its limit is not known"
  word = "fits" if plan.is_fitting else "does not fit"
  return f"{word}: {total} of {_show(plan.memory_limit, 'B')} a device"


def _describe_times(plan: StepPlan) -> list[str]:
  if not plan.seconds:
    return ["time: the device's peaks are not known"]
  if plan.failure:
    return []
  if not plan.traffic:
    wanted = f"jax[tpu]=={jax.__version__}"
    return [
      "traffic, times and operations are not known: JAX cannot read what this "
      f'compiler wrote; expected its own, of pip install "{wanted}"',
      "",
    ]
  lines = ["a step takes at least (the device's peaks; no measurement)"]
  for name, seconds in plan.seconds.items():
    mark = "  <- bounds it" if name == plan.bound else ""
    lines.append(f"  {name:<24}{seconds:.3g} s{mark}")
  if plan.estimated_s:
    share = plan.seconds["matrix units"] / plan.estimated_s
    lines.append(
      f"  {'compiler estimates':<24}{plan.estimated_s:.3g} s "
      f"({plan.cycles / 1e6:.4g} million cycles), {100 * share:.2g} % of the "
      "matrix units' peak"
    )
  longest_s = plan.estimated_s or plan.seconds[plan.bound]
  rate = plan.batch_size / longest_s
  return [*lines, f"  {'records to read':<24}{rate:.3g} a second at most", ""]


def _describe_batch(
  plan: StepPlan, config: ConfigDict, file: ConfigDict
) -> list[str]:
  reference = optimizer.choose_reference(config, file)
  lines = []
  if config.batch_size != reference.batch_size:
    lines = [optimizer.describe_batch(config, file), ""]
  if plan.largest_batch is None:
    return lines
  if not plan.largest_batch:
    lines += ["largest batch: none; take more devices or smaller crops"]
  else:
    lines += [
      f"largest batch: about {plan.largest_batch} (scaled from this one)",
      f"  {optimizer.advise_batch(reference, plan.largest_batch)}",
    ]
  return [*lines, ""]


def _describe_ranking(plan: StepPlan) -> list[str]:
  if not plan.ranking:
    return []
  by_cycles = plan.cycles > 0
  total = plan.cycles if by_cycles else plan.traffic
  what = "the compiler's cycles" if by_cycles else "bytes"
  return [f"costliest operations, by {what}"] + [
    f"  {100 * (cycles if by_cycles else size) / total:5.1f} %  "
    f"{label:<40}{_show(size, 'B')}"
    for label, cycles, size in plan.ranking
  ]


def _show(value: float, unit: str) -> str:
  """Returns a number of three digits with its unit, as in 4.85 TFLOP."""
  for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
    if value >= factor:
      return f"{value / factor:.3g} {letter}{unit}"
  return f"{value:.3g} {unit}"
