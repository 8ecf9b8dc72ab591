"""Training losses, computed from logits for numerical safety."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def compute_loss(
  logits: Float[Array, "b h w 3"],
  target: Float[Array, "b h w 3"],
  valid: Float[Array, "b h w k"],
  config: Any,
) -> Float[Array, ""]:
  """Returns the loss that the configuration asks for.

  Args:
    logits: the network's output before the sigmoid.
    target: the teacher's probabilities, 0..1; they need not be 0 or 1.
    valid: weight of each pixel, or (k = 3) of each of its classes; 0 leaves it
      out. All zero gives 0.
    config: `config.train.loss`: class_weights of nucleus, membrane/cytoplasm
      and background; dice_weight, the share of the dice loss in the sum.
  """
  weights = jnp.asarray(config.class_weights, jnp.float32)
  loss = binary_cross_entropy(logits, target, valid, weights)
  if not config.dice_weight:
    return loss
  dice = soft_dice(logits, target, valid, weights)
  return (1 - config.dice_weight) * loss + config.dice_weight * dice


def binary_cross_entropy(
  logits: Float[Array, "b h w 3"],
  target: Float[Array, "b h w 3"],
  valid: Float[Array, "b h w k"],
  class_weights: Float[Array, " 3"],
) -> Float[Array, ""]:
  """Returns the weighted mean binary cross-entropy (paper, equation 2).

  Equal class weights give the plain mean, whatever they are.
  """
  loss = optax.sigmoid_binary_cross_entropy(logits, target)
  weight = valid * class_weights
  mean_weight = class_weights.mean()
  return (loss * weight).sum() / jnp.maximum(weight.sum(), mean_weight)


def soft_dice(
  logits: Float[Array, "b h w 3"],
  target: Float[Array, "b h w 3"],
  valid: Float[Array, "b h w k"],
  class_weights: Float[Array, " 3"],
) -> Float[Array, ""]:
  """Returns 1 - the weighted mean over the classes of the soft dice overlap.

  Twice the product over the sum of squares (Milletari et al. 2016), over the
  pixels of each example: soft targets can reach 1. The examples' mean by their
  valid pixels, so that parts of a batch add up to the whole. A class that is
  nowhere in the target and nowhere predicted, or nowhere valid, has overlap 1;
  without valid pixels the loss is 0.
  """
  found = jax.nn.sigmoid(logits) * valid
  wanted = target * valid
  axes = (1, 2)
  both = (found * wanted).sum(axes)
  # One pixel's worth: keeps an absent class from dividing by nothing.
  total = (found**2 + wanted**2).sum(axes) + 1
  overlap = ((2 * both + 1) / total) @ class_weights / class_weights.sum()
  num_px = valid.sum((1, 2, 3))
  return ((1 - overlap) * num_px).sum() / jnp.maximum(num_px.sum(), 1)
