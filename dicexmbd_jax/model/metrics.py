"""Pixel scores of a batch, as sums, and the cost of the network."""

from ml_collections import ConfigDict


def pixel_scores(logits, target, valid) -> dict:
  """Returns sums over pixels that add up over batches."""
  is_right = logits.argmax(-1) == target.argmax(-1)
  return {
    "num_right": (is_right * valid[..., 0]).sum(),
    "num_px": valid.sum(),
  }


def finish_scores(sums: dict) -> dict[str, float]:
  """Returns scores from sums."""
  return {"accuracy": float(sums["num_right"] / max(sums["num_px"], 1))}


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
  """Returns a device's peak rate; None where it is not known."""
  del device_kind, dtype
  return None
