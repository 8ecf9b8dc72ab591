"""Pixel scores of a batch, as sums, and the cost of the network."""

import re

from ml_collections import ConfigDict

# From the makers' data sheets; the first name whose words are in the device's.
PEAKS_TFLOPS: dict[str, dict[str, float]] = {
  "GB200": {"bfloat16": 2500.0, "float32": 1250.0},
  "B200": {"bfloat16": 2250.0, "float32": 1125.0},
  "GH200": {"bfloat16": 989.0, "float32": 494.5},
  "H200": {"bfloat16": 989.0, "float32": 494.5},
  "H100 PCIe": {"bfloat16": 756.0, "float32": 378.0},
  "H100": {"bfloat16": 989.0, "float32": 494.5},
  "A100": {"bfloat16": 312.0, "float32": 156.0},
  "L40S": {"bfloat16": 362.0, "float32": 183.0},
  "L40": {"bfloat16": 181.0, "float32": 90.5},
  "L4": {"bfloat16": 121.0, "float32": 60.0},
  "TPU v6": {"bfloat16": 918.0},
  "TPU v6e": {"bfloat16": 918.0},
  "TPU v5p": {"bfloat16": 459.0},
  "TPU v5 lite": {"bfloat16": 197.0},
  "TPU v5e": {"bfloat16": 197.0},
  "TPU v5": {"bfloat16": 459.0},  # JAX's name of v5p.
  "TPU v4": {"bfloat16": 275.0},
}


CLASSES = ("nucleus", "membrane", "background")


def pixel_scores(logits, target, valid) -> dict:
  """Returns sums over the valid pixels that add up over batches.

  Args:
    logits: (b, h, w, 3).
    target: (b, h, w, 3), 0..1; one half or more is the class.
    valid: (b, h, w, 1 or 3), 0 or 1: of each pixel, or of each of its classes.
      A pixel counts to the accuracy where all its classes are valid.
  """
  is_right = logits.argmax(-1) == target.argmax(-1)
  found, wanted = logits >= 0, target >= 0.5
  axes = (0, 1, 2)
  is_whole = valid.min(-1)
  return {
    "num_right": (is_right * is_whole).sum(),
    "num_px": is_whole.sum(),
    "num_both": ((found & wanted) * valid).sum(axes),
    "num_either": ((found * 1 + wanted * 1) * valid).sum(axes),
  }


def finish_scores(sums: dict) -> dict[str, float]:
  """Returns scores from sums.

  Accuracy is the share of pixels whose most probable class is the target's;
  f1_CLASS is of the maps cut at one half, and 1 where neither has a pixel.
  """
  scores = {"accuracy": float(sums["num_right"] / max(sums["num_px"], 1))}
  for index, name in enumerate(CLASSES):
    both, either = (float(sums[k][index]) for k in ("num_both", "num_either"))
    scores[f"f1_{name}"] = 2 * both / either if either else 1.0
  return scores


def count_flops(config: ConfigDict, height_px: int, width_px: int) -> float:
  """Returns the floating-point operations of one forward pass."""
  total, num_in = 0.0, config.in_channels
  num_px = float(height_px * width_px)
  for level in range(config.depth + 1):
    num_out = config.width * 2**level
    total += num_px / 4**level * 18 * (num_in * num_out + num_out**2)
    if level < config.depth:
      total += num_px / 4**level * (4 * num_out**2 + 54 * num_out**2)
    num_in = num_out
  return total + num_px * 6 * config.width


def peak_flops(device_kind: str, dtype: str) -> float | None:
  """Returns a device's dense matrix rate, as its maker states it.

  Args:
    device_kind: as `jax.Device.device_kind` has it.
    dtype: of the computation; float32 counts as TF32 on GPUs, which is what
      XLA multiplies with there unless told otherwise.

  Returns:
    Floating-point operations per second without sparsity, or None where it is
    not known (CPUs among them).
  """
  for name, rates in PEAKS_TFLOPS.items():
    if re.search(rf"\b{name}\b", device_kind) and dtype in rates:
      return rates[dtype] * 1e12
  return None
