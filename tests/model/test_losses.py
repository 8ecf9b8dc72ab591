"""The binary cross-entropy of the paper's equation 2."""

import jax.numpy as jnp
import numpy as np

from dicexmbd_jax.model import losses


def test_cross_entropy_by_hand():
  p, t = np.array([0.9, 0.2, 0.5]), np.array([1.0, 0.3, 0.0])
  logits = jnp.asarray(np.log(p / (1 - p)), jnp.float32).reshape(1, 1, 1, 3)
  target = jnp.asarray(t, jnp.float32).reshape(1, 1, 1, 3)
  expected = -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))
  found = losses.binary_cross_entropy(logits, target, jnp.ones((1, 1, 1, 1)))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_pixels_that_are_not_valid_do_not_count():
  logits = jnp.array([0.0, 100.0]).reshape(1, 1, 2, 1) * jnp.ones(3)
  target = jnp.zeros((1, 1, 2, 3))
  valid = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
  found = losses.binary_cross_entropy(logits, target, valid)
  np.testing.assert_allclose(found, np.log(2), rtol=1e-6)
  assert losses.binary_cross_entropy(logits, target, 0 * valid) == 0


def test_large_logits_stay_finite():
  logits = jnp.full((1, 1, 1, 3), -1e4)
  target = jnp.ones((1, 1, 1, 3))
  loss = losses.binary_cross_entropy(logits, target, jnp.ones((1, 1, 1, 1)))
  np.testing.assert_allclose(loss, 1e4, rtol=1e-6)
