"""What accelerators can do, as their makers state it."""

import dataclasses
import os
import re


@dataclasses.dataclass(frozen=True)
class Chip:
  """The peaks of one device.

  Attributes:
    name: whose words are in the device's kind, as JAX has it.
    tflops: dense matrix rate by number type, 1e12 floating-point operations
      per second, without sparsity; float32 is TF32 on GPUs, which is what XLA
      multiplies with there unless told otherwise.
    memory_gb: 1e9 bytes.
    memory_gb_s: its bandwidth, 1e9 bytes per second.
    link_gb_s: what leaves the chip to its neighbours per second, all links
      together, one direction, 1e9 bytes.
    clock_ghz: of the matrix units; 0: not stated.
  """

  name: str
  tflops: dict[str, float]
  memory_gb: float
  memory_gb_s: float
  link_gb_s: float
  clock_ghz: float = 0.0


def _name_gpu(
  name: str, bfloat16: float, tf32: float, *memory_and_links: float
) -> Chip:
  rates = {"bfloat16": bfloat16, "float32": tf32}
  return Chip(name, rates, *memory_and_links)


def _name_tpu(name: str, bfloat16: float, *others: float) -> Chip:
  return Chip(name, {"bfloat16": bfloat16}, *others)


# From NVIDIA's data sheets (links: NVLink's half, or PCIe's) and Google's pages
# on each TPU version (cloud.google.com/tpu/docs/v5e and others; links: half of
# the bidirectional rate per chip). Clocks of TPUs: the peak over the operations
# of its matrix units a cycle (v5e: 4 of 128 x 128). The first one whose words
# are in the device's kind counts.
CHIPS = (
  _name_gpu("GB200", 2500, 1250, 192, 8000, 900),
  _name_gpu("B200", 2250, 1125, 180, 8000, 900),
  _name_gpu("GH200", 989, 494.5, 96, 4000, 450),
  _name_gpu("H200", 989, 494.5, 141, 4800, 450),
  _name_gpu("H100 PCIe", 756, 378, 80, 2000, 64),
  _name_gpu("H100", 989, 494.5, 80, 3350, 450),
  _name_gpu("A100", 312, 156, 80, 2039, 300),
  _name_gpu("L40S", 362, 183, 48, 864, 32),
  _name_gpu("L40", 181, 90.5, 48, 864, 32),
  _name_gpu("L4", 121, 60, 24, 300, 32),
  _name_tpu("TPU v6e", 918, 32, 1640, 400, 1.75),
  _name_tpu("TPU v6", 918, 32, 1640, 400, 1.75),  # JAX: "TPU v6 lite".
  _name_tpu("TPU v5p", 459, 95, 2765, 600, 1.75),
  _name_tpu("TPU v5e", 197, 16, 819, 200, 1.5),
  _name_tpu("TPU v5 lite", 197, 16, 819, 200, 1.5),
  _name_tpu("TPU v5", 459, 95, 2765, 600, 1.75),  # JAX's name of v5p.
  _name_tpu("TPU v4", 275, 32, 1228, 300, 1.05),
)


def find_chip(device_kind: str) -> Chip | None:
  """Returns a device's peaks; None: not known (CPUs among them).

  Args:
    device_kind: as `jax.Device.device_kind` has it.
  """
  for chip in CHIPS:
    if re.search(rf"\b{chip.name}\b", device_kind):
      return chip
  return None


def count_usable_bytes(chip: Chip) -> float:
  """Returns the bytes of a device's memory that JAX hands out.

  Of a GPU 75 %, or $XLA_PYTHON_CLIENT_MEM_FRACTION; of a TPU all.
  """
  share = 1.0
  if not chip.name.startswith("TPU"):
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75"))
  return share * chip.memory_gb * 1e9


def peak_flops(device_kind: str, dtype: str) -> float | None:
  """Returns a device's dense matrix rate, as its maker states it.

  Args:
    device_kind: as `jax.Device.device_kind` has it.
    dtype: of the computation.

  Returns:
    Floating-point operations per second, or None where it is not known.
  """
  chip = find_chip(device_kind)
  rate = chip and chip.tflops.get(dtype)
  return rate * 1e12 if rate else None
