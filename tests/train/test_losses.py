"""The paper's cross-entropy (equation 2), dice, and weights of classes."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dicexmbd_jax.train import losses


def compute_loss(logits, target, valid, weights=(1, 1, 1), dice=0.0):
  config = ConfigDict({"class_weights": weights, "dice_weight": dice})
  return losses.compute_loss(logits, target, valid, config)


def test_cross_entropy_by_hand():
  p, t = np.array([0.9, 0.2, 0.5]), np.array([1.0, 0.3, 0.0])
  logits = jnp.asarray(np.log(p / (1 - p)), jnp.float32).reshape(1, 1, 1, 3)
  target = jnp.asarray(t, jnp.float32).reshape(1, 1, 1, 3)
  expected = -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))
  found = compute_loss(logits, target, jnp.ones((1, 1, 1, 1)))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_pixels_that_are_not_valid_do_not_count():
  logits = jnp.array([0.0, 100.0]).reshape(1, 1, 2, 1) * jnp.ones(3)
  target = jnp.zeros((1, 1, 2, 3))
  valid = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
  found = compute_loss(logits, target, valid)
  np.testing.assert_allclose(found, np.log(2), rtol=1e-6)
  assert compute_loss(logits, target, 0 * valid) == 0


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_a_class_that_is_not_valid_does_not_count(dice):
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(1, 2, 3, 3)), jnp.float32)
  target = jnp.asarray(rng.random((1, 2, 3, 3)), jnp.float32)
  valid = jnp.ones((1, 2, 3, 3)).at[..., 2].set(0)
  found = compute_loss(logits, target, valid, dice=dice)
  changed = compute_loss(
    logits.at[..., 2].set(9), target.at[..., 2].set(0), valid, dice=dice
  )
  assert found == changed
  if not dice:
    whole = jnp.ones((1, 2, 3, 1))
    alone = compute_loss(logits, target, whole, weights=(1, 1, 0))
    np.testing.assert_allclose(found, alone, rtol=1e-6)


def test_large_logits_stay_finite():
  logits = jnp.full((1, 1, 1, 3), -1e4)
  target = jnp.ones((1, 1, 1, 3))
  loss = compute_loss(logits, target, jnp.ones((1, 1, 1, 1)))
  np.testing.assert_allclose(loss, 1e4, rtol=1e-6)


def test_class_weights_by_hand():
  logits = jnp.array([0.0, 2.0, -1.0]).reshape(1, 1, 1, 3)
  target = jnp.array([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
  each = [np.log(2), np.log1p(np.exp(2)), np.log1p(np.exp(-1))]
  valid = jnp.ones((1, 1, 1, 1))
  found = compute_loss(logits, target, valid, weights=(2, 1, 0))
  assert float(found) == pytest.approx((2 * each[0] + each[1]) / 3, rel=1e-6)
  # Only their ratio counts.
  twice = compute_loss(logits, target, valid, weights=(4, 2, 0))
  assert float(twice) == pytest.approx(float(found), rel=1e-6)


def test_dice_by_hand():
  logits = jnp.zeros((1, 1, 2, 3))  # Probability 0.5 everywhere.
  target = jnp.array([[1.0, 0, 0], [1, 0, 0]]).reshape(1, 1, 2, 3)
  valid = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
  overlaps = [(2 * 0.5 + 1) / (0.25 + 1 + 1), 1 / 1.25, 1 / 1.25]
  found = compute_loss(logits, target, valid, dice=1.0)
  assert float(found) == pytest.approx(1 - np.mean(overlaps), rel=1e-6)
  half = compute_loss(logits, target, valid, dice=0.5)
  entropy = compute_loss(logits, target, valid)
  assert float(half) == pytest.approx(float(found + entropy) / 2, rel=1e-6)


def test_dice_of_a_perfect_answer_or_of_nothing_is_zero():
  target = jnp.eye(3)[jnp.arange(9) % 3].reshape(1, 3, 3, 3)
  logits = 40 * (2 * target - 1)
  valid = jnp.ones((1, 3, 3, 1))
  assert float(compute_loss(logits, target, valid, dice=1.0)) < 1e-6
  nothing = compute_loss(logits, target, 0 * valid, dice=1.0)
  assert float(nothing) == 0


@pytest.mark.parametrize("dice", [0.0, 0.5, 1.0])
def test_parts_of_a_batch_add_up(dice):
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(4, 5, 6, 3)), jnp.float32)
  target = jnp.asarray(rng.uniform(size=(4, 5, 6, 3)), jnp.float32)
  valid = jnp.asarray(rng.integers(0, 2, (4, 5, 6, 1)), jnp.float32)
  whole = compute_loss(logits, target, valid, weights=(2, 1, 1), dice=dice)
  parts = [
    valid[part].sum()
    * compute_loss(
      logits[part], target[part], valid[part], weights=(2, 1, 1), dice=dice
    )
    for part in (np.s_[:1], np.s_[1:])
  ]
  assert float(sum(parts) / valid.sum()) == pytest.approx(
    float(whole), rel=1e-5
  )
