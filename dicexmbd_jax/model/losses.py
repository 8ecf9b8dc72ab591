"""Training losses, computed from logits for numerical safety."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def binary_cross_entropy(
  logits: Float[Array, "b h w 3"],
  target: Float[Array, "b h w 3"],
  valid: Float[Array, "b h w 1"],
) -> Float[Array, ""]:
  """Returns the mean binary cross-entropy (paper, equation 2).

  Args:
    logits: the network's output before the sigmoid.
    target: the teacher's probabilities, 0..1; they need not be 0 or 1.
    valid: weight of each pixel; 0 leaves it out. All zero gives 0.
  """
  loss = optax.sigmoid_binary_cross_entropy(logits, target)
  weight = jnp.broadcast_to(valid, loss.shape)
  return (loss * weight).sum() / jnp.maximum(weight.sum(), 1.0)


def compute_loss(logits, target, valid, config) -> Float[Array, ""]:
  """Returns the loss that `config.train.loss` asks for."""
  del config
  return binary_cross_entropy(logits, target, valid)
