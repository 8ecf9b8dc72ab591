"""Pixel scores of a batch, as sums, and the cost of the network."""

from ml_collections import ConfigDict

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


def count_step_flops(config: ConfigDict) -> float:
  """Returns an example's operations in a training step, both ways.

  Args:
    config: the whole configuration.
  """
  edge_px = config.train.crop_px
  return 3 * count_flops(config.model, edge_px, edge_px)


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
