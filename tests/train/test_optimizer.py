"""Learning rates by step, and by what validation finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from dicexmbd_jax.train import optimizer


@pytest.fixture
def config():
  config = default.get_config().train
  config.update({"learning_rate": 0.5, "warmup_steps": 4, "num_steps": 14})
  return config


@pytest.mark.parametrize(
  ("schedule", "wanted"),
  [
    ("constant", [0, 0.25, 0.5, 0.5, 0.5]),
    ("plateau", [0, 0.25, 0.5, 0.5, 0.5]),
    ("cosine", [0, 0.25, 0.5, 0.25, 0]),
  ],
)
def test_rates_rise_and_then_follow_the_schedule(config, schedule, wanted):
  config.schedule = schedule
  rate = optimizer.make_schedule(config)
  found = [float(rate(step)) for step in (0, 2, 4, 9, 14)]
  np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_no_warm_up_starts_at_the_rate(config):
  config.update({"schedule": "constant", "warmup_steps": 0})
  assert float(optimizer.make_schedule(config)(0)) == 0.5


def follow(config, losses):
  state = optimizer.make_plateau(config).init(jnp.zeros(()))
  scales = []
  for loss in losses:
    state = optimizer.advance_plateau(config, state, np.float32(loss))
    scales.append(float(state.scale))
  return scales


def test_three_validations_without_progress_cut_the_rate_to_a_tenth(config):
  config.schedule = "plateau"
  found = follow(config, [5, 4, 4, 4, 4, 4, 4, 4, 3])
  np.testing.assert_allclose(found, [1] * 4 + [0.1] * 3 + [0.01] * 2)


def test_other_schedules_do_not_look_at_validation(config):
  config.schedule = "constant"
  assert follow(config, [1] * 9) == [1] * 9


def test_no_decay_is_adam_and_clipping_bounds_the_gradient(config):
  config.update({"schedule": "constant", "warmup_steps": 0})
  config.update({"weight_decay": 0.0, "clip_norm": 1.0})
  params = {"w": jnp.full((4,), 10.0)}
  tx = optimizer.make_optimizer(config)
  updates, _ = tx.update({"w": jnp.full((4,), 7.0)}, tx.init(params), params)
  # Adam's first step has the size of the rate, whatever the gradient's.
  np.testing.assert_allclose(updates["w"], -0.5, rtol=1e-5)
  config.weight_decay = 0.1
  tx = optimizer.make_optimizer(config)
  updates, _ = tx.update({"w": jnp.full((4,), 7.0)}, tx.init(params), params)
  np.testing.assert_allclose(updates["w"], -0.5 - 0.5 * 0.1 * 10, rtol=1e-5)


def test_the_average_forgets_its_start(config):
  average = {"w": jnp.zeros(())}
  for step in range(3):
    average = optimizer.update_average(average, {"w": jnp.ones(())}, step, 0.9)
  # Memories of 0.1, 2/11 and 3/12, all shorter than 0.9.
  assert float(average["w"]) == pytest.approx(1 - 0.1 * 2 / 11 * 3 / 12)
  assert jax.tree.structure(average) == jax.tree.structure({"w": 0})
