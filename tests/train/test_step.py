"""The training step: what it learns, sums up, keeps and refuses to keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import record_datasets
from flax import nnx

from configs import default
from dicexmbd_jax.model import unet
from dicexmbd_jax.train import loop, records, step
from dicexmbd_jax.train import program as program_lib


@pytest.fixture
def config():
  config = default.get_config()
  config.model.update({"width": 4, "depth": 1})
  config.train.update(
    {
      "num_steps": 60,
      "batch_size": 2,
      "crop_px": 32,
      "warmup_steps": 5,
      "schedule": "constant",
      "learning_rate": 2e-2,
      "report_steps": 3,
      "average_decay": 0.8,
    }
  )
  config.train.augment.update(
    dict.fromkeys(config.train.augment, 0.0) | {"flip": False}
  )
  return config


PROGRAMS: dict = {}  # What compiles for seconds is used again.


def make_program(config):
  key = config.to_json()
  if key not in PROGRAMS:
    copy = config.copy_and_resolve_references()
    model = unet.build_model(config.model)
    PROGRAMS[key] = program_lib.make_program(model, copy)
  return PROGRAMS[key]


def draw_batch(values=(0, 1), size_px=32):
  drawn = [record_datasets.draw_cells(value, size_px) for value in values]
  image, target, valid = map(np.stack, zip(*drawn, strict=True))
  return {
    "image": image,
    "target": target,
    "valid": valid.astype(np.float32),
    "known": np.ones_like(target),
    "is_real": np.ones(len(values), bool),
  }


def take_steps(config, batches):
  program = make_program(config)
  state, found = program.make_state(), []
  for batch in batches:
    state, numbers = program.take_step(state, batch)
    found.append(jax.device_get(numbers))
  return program, state, found


def test_one_batch_is_learnt_by_heart(config):
  batch = draw_batch()
  program, state, found = take_steps(config, [batch] * 200)
  # Sums over the three steps of a report.
  assert found[-1]["loss"] < 0.5 * found[2]["loss"]
  seen = program.predict_batch(state.weights(), batch)["probabilities"]
  is_nucleus = batch["target"][..., 0] == 1
  assert seen[is_nucleus, 0].mean() > 0.8
  assert seen[~is_nucleus, 0].mean() < 0.2


def test_the_seed_reproduces_the_losses(config):
  config.train.augment.flip = True
  batches = [draw_batch()] * 3
  first, again = (take_steps(config, batches)[2] for _ in range(2))
  assert [n["loss"] for n in first] == [n["loss"] for n in again]
  config.seed = 1
  other = take_steps(config, batches[:1])[2]
  assert other[0]["loss"] != first[0]["loss"]


def test_a_report_is_the_mean_of_its_steps(config):
  batches = [draw_batch((i, i + 1)) for i in range(4)]
  by_three = take_steps(config, batches)[2]
  config.train.report_steps = 1
  single = [numbers["loss"] for numbers in take_steps(config, batches)[2]]
  assert by_three[2]["loss"] == pytest.approx(np.mean(single[:3]), rel=1e-6)
  assert by_three[3]["loss"] == single[3]


def sum_gradients(config, batch, num_parts):
  config.train.accumulate_steps = num_parts
  model = unet.build_model(config.model)
  graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  compute = functools.partial(step.accumulate_gradients, graph, config.train)
  loss, _, grads = jax.jit(compute)(
    {"params": params, "stats": stats},
    tuple(batch[name] for name in loop.FIELDS[:4]),
  )
  return float(loss), jax.tree.leaves(grads)


def test_parts_of_a_batch_sum_to_the_whole(config):
  # The parts are alike, so that BatchNorm sees the same in each.
  batch = draw_batch((3, 3, 5, 5))
  batch["valid"][:, :16] = 0
  loss, grads = sum_gradients(config, batch, 1)
  summed, parts = sum_gradients(config, batch, 2)
  assert summed == pytest.approx(loss, rel=1e-6)
  for whole, part in zip(grads, parts, strict=True):
    np.testing.assert_allclose(part, whole, atol=1e-6)


def test_parts_weigh_by_their_valid_pixels(config):
  # The second part has no pixel at all: it must not count.
  batch = draw_batch((3, 7))
  batch["valid"][1] = 0
  first = {name: values[:1] for name, values in batch.items()}
  loss, _ = sum_gradients(config, batch, 2)
  assert loss == pytest.approx(sum_gradients(config, first, 1)[0], rel=1e-6)


def test_parts_weigh_by_what_is_known(config):
  batch = draw_batch((3, 7))
  batch["known"][1] = 0
  first = {name: values[:1] for name, values in batch.items()}
  loss, _ = sum_gradients(config, batch, 2)
  assert loss == pytest.approx(sum_gradients(config, first, 1)[0], rel=1e-6)


def test_nothing_is_learnt_of_what_is_unknown(config):
  batch = draw_batch((3, 5))
  batch["known"][..., 1] = 0
  other = batch | {"target": batch["target"].copy()}
  other["target"][..., 1] = 1 - other["target"][..., 1]
  loss, grads = sum_gradients(config, batch, 1)
  found, others = sum_gradients(config, other, 1)
  assert found == loss
  for one, two in zip(grads, others, strict=True):
    np.testing.assert_array_equal(one, two)


def test_batches_as_they_are_stored_give_the_same_bits(config):
  stored = draw_batch()
  levels = np.arange(stored["target"].size, dtype=np.uint16)
  stored["target"] = (31 * levels).reshape(stored["target"].shape)
  stored["valid"][:, :4] = 0
  for name in ("valid", "known"):
    stored[name] = stored[name].astype(np.uint8)
  decoded = records.decode_arrays(stored)
  np.testing.assert_array_equal(
    jax.jit(records.decode_arrays)(stored)["target"], decoded["target"]
  )
  one, two = (take_steps(config, [b])[2] for b in (stored, decoded))
  assert one == two


def test_a_bad_step_changes_nothing_and_neither_do_those_after_it(config):
  good, bad = draw_batch(), draw_batch()
  bad["image"][0, 5, 5] = np.nan
  _, before, _ = take_steps(config, [good])
  _, after, found = take_steps(config, [good, bad, good])
  assert [bool(n["is_finite"]) for n in found] == [True, False, False]
  assert int(after.step) == 1 and not after.is_finite
  for kept, wanted in zip(
    jax.tree.leaves(after.params), jax.tree.leaves(before.params), strict=True
  ):
    np.testing.assert_array_equal(kept, wanted)


def test_bfloat16_computes_gradients_in_float32(config):
  loss, _ = sum_gradients(config, draw_batch(), 1)
  config.model.dtype = "bfloat16"
  rounded, grads = sum_gradients(config, draw_batch(), 1)
  assert {grad.dtype for grad in grads} == {jnp.dtype("float32")}
  assert rounded == pytest.approx(loss, rel=0.03)
  assert rounded != loss


def test_patches_of_any_size_are_scored_and_filling_does_not_count(config):
  program = make_program(config)
  weights = program.make_state().weights()
  batch = draw_batch((0, 1), 31)
  filled = {name: values.copy() for name, values in batch.items()}
  filled["is_real"][1] = False
  sums = program.score_batch(weights, filled)
  assert float(sums["num_px"]) == 31 * 31
  alone = {name: values[:1] for name, values in batch.items()}
  np.testing.assert_allclose(
    sums["loss_sum"], program.score_batch(weights, alone)["loss_sum"], rtol=1e-5
  )


def test_the_step_is_compiled_once(config):
  program = make_program(config)
  batch = draw_batch()
  state, _ = program.take_step(program.make_state(), batch)
  before = program.take_step._cache_size()
  state = program.end_validation(state, np.float32(0.5))
  state, _ = program.take_step(state, batch)
  assert program.take_step._cache_size() == before
  assert float(state.best_loss) == 0.5


def test_no_average_keeps_the_weights_themselves(config):
  config.train.average_decay = 0.0
  state = make_program(config).shapes
  assert state.average == {}
  assert state.weights()["params"] is state.params
