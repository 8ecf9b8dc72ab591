"""Plans: what fits, what bounds, what to change."""

import jax
import pytest

from configs import default
from dicexmbd_jax.train import (
  chips,
  optimizer,
  plan,
  program,
  sharding,
  topology,
)

CHIP = chips.Chip("X", {"bfloat16": 100.0}, 10.0, 1000.0, 50.0)


SENT = {"all-reduce": (3, 1e9), "all-gather": (1, 1e9)}


def make_plan(**changed):
  values = {
    "device_kind": "X",
    "num_devices": 4,
    "batch_size": 8,
    "largest_batch": None,
    "num_parameters": 1000,
    "memory": {
      "parameters": 1e9, "optimizer": 2e9, "moving average": 0.0,
      "batch": 1e9, "gradients, activations": 2e9,
    },
    "memory_limit": 10e9,
    "failure": "",
    "model_flops": 1e12,
    "compiled_flops": 2e12,
    "traffic": 5e9,
    "collectives": {"all-reduce": (3, 1e9)},
    "seconds": {"matrix units": 0.02, "memory": 0.005, "links": 0.03},
    "cycles": 4e7,
    "estimated_s": 0.04,
    "ranking": [("mul", 3e7, 4e9), ("copy", 1e7, 1e9)],
  }  # fmt: skip
  return plan.StepPlan(**values | changed)


def test_the_largest_batch_fills_the_memory():
  config = default.get_config()
  # 4 GB of state and gradients; a patch takes 1 GB: 6 a device.
  assert plan.scale_batch(make_plan(), config) == 24
  config.train.accumulate_steps = 3
  assert plan.scale_batch(make_plan(), config) == 24
  config.train.accumulate_steps = 4
  assert plan.scale_batch(make_plan(), config) == 16
  assert plan.scale_batch(make_plan(memory_limit=None), config) is None
  assert plan.scale_batch(make_plan(memory_limit=4.5e9), config) == 0


def test_what_fits_and_what_nobody_knows():
  assert make_plan().is_fitting
  assert make_plan(memory_limit=5.9e9).is_fitting is False
  assert make_plan(failure="Used 20G of 15.75G hbm").is_fitting is False
  assert make_plan(memory_limit=None).is_fitting is None


def test_times_are_the_peaks_alone():
  found = plan._find_bounds(CHIP, "float32", 1e12, 5e9, SENT, 4)
  assert found == {
    "matrix units": pytest.approx(0.01),
    "memory": pytest.approx(0.005),
    "links": pytest.approx((2 * 0.75 + 0.75) / 50),
  }
  assert plan._find_bounds(None, "float32", 1e12, 5e9, SENT, 4) == {}
  assert make_plan().bound == "links"
  assert make_plan(seconds={}).bound == ""


def describe(found, config, file=None):
  return "\n".join(plan.describe_plan(found, config, file or config))


def test_the_text_says_all_of_it():
  config = default.get_config()
  text = describe(make_plan(largest_batch=24), config)
  assert "fits: 6 GB of 10 GB a device" in text
  assert "as compiled             2 TFLOP" in text
  assert "all-reduce              1 GB in 3" in text
  assert "links                   0.03 s  <- bounds it" in text
  assert "0.04 s (40 million cycles), 50 % of the matrix units' peak" in text
  assert "records to read         200 a second at most" in text
  assert "largest batch: about 24" in text
  assert " 75.0 %  mul" in text
  failed = make_plan(failure="Used 20G of 15.75G hbm", ranking=[])
  text = describe(failed, config)
  assert "does not fit: the compiler gave up (Used 20G of 15.75G hbm)" in text


def test_a_program_that_jax_cannot_read_leaves_memory_and_arithmetic():
  class Newer:
    def as_text(self):
      raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure\nat once")

  assert plan._read_text(Newer()) == ""
  found = make_plan(
    traffic=0, cycles=0, estimated_s=None, ranking=[], collectives={}
  )
  text = describe(found, default.get_config())
  assert "fits: 6 GB of 10 GB a device" in text
  assert f"jax[tpu]=={jax.__version__}" in text
  assert "at least" not in text and "costliest" not in text


def test_the_compilers_own_numbers_are_kept_where_it_gives_up():
  said = "RESOURCE_EXHAUSTED: Ran out\nof memory. Used 20.1G of 15.75G hbm. Ex"
  assert plan._describe_failure(said) == "Used 20.1G of 15.75G hbm"
  assert plan._describe_failure("RESOURCE_EXHAUSTED:\n all") == (
    "RESOURCE_EXHAUSTED: all"
  )


def test_the_rate_goes_with_the_root_of_the_batch():
  config = default.get_config().train
  config.update({"batch_size": 4, "learning_rate": 3e-3})
  advice = optimizer.advise_batch(config, 16)
  assert "with a batch of 16 in place of 4: learning_rate 0.006" in advice
  assert "in place of 0.003 (x 2, the square root of 4)" in advice
  assert advice.endswith(
    "num_steps 750 in place of 3000, warmup_steps 25 in place of 100"
  )


def test_few_steps_are_not_scaled_to_none():
  config = default.get_config().train
  config.update({"batch_size": 4, "num_steps": 3500})
  advice = optimizer.advise_batch(config, 140)
  assert "num_steps 100 in place of 3500" in advice
  advice = optimizer.advise_batch(config, 87552)
  assert "the 3500 steps become 0.16, too few to scale from" in advice
  config.num_epochs = 80.0  # The steps are not known then.
  assert "num_steps" not in optimizer.advise_batch(config, 87552)


def test_the_advice_starts_from_the_pair_of_the_file():
  file, config = default.get_config(), default.get_config()
  file.train.update({"batch_size": 4, "learning_rate": 3e-3})
  config.train.update({"batch_size": 16, "learning_rate": 3e-3})
  text = describe(make_plan(largest_batch=64), config, file)
  assert (
    "with a batch of 16 in place of 4: learning_rate 0.006 in place of 0.003"
  ) in text
  assert "found learning_rate 0.003 and num_steps 3000" in text
  assert "with a batch of 64 in place of 4: learning_rate 0.012" in text
  # A call with a rate of its own has chosen another pair.
  config.train.learning_rate = 0.005
  text = describe(make_plan(largest_batch=64), config, file)
  assert "in place of 4" not in text
  assert "with a batch of 64 in place of 16: learning_rate 0.01 in" in text


@pytest.mark.parametrize(
  "name", ["v5e", "v9:2x2", "cpu:x", "cpu:0", "h100:2x2", "h100:12", "h100:0"]
)
def test_wrong_topologies_are_refused(name):
  with pytest.raises(ValueError, match=f"--topology: found '{name}'"):
    topology.list_devices(name)


def test_tpus_need_not_be_there(monkeypatch):
  pytest.importorskip("libtpu")
  topology.start_compiler()
  devices = topology.list_devices("v5e:2x4")
  assert len(devices) == 8
  assert chips.find_chip(devices[0].device_kind).memory_gb == 16
  with pytest.raises(ValueError, match="--topology: found 'v5e:3x9'"):
    topology.list_devices("v5e:3x9")
  mesh = sharding.make_mesh(devices)
  assert program.find_options(mesh) == program.TPU_OPTIONS
  # What this version of the compiler does not know is left out.
  monkeypatch.setitem(program.TPU_OPTIONS, "xla_tpu_no_such_option", True)
  assert program.find_options(mesh) is None


def test_processors_are_told_nothing():
  assert program.find_options(sharding.make_mesh()) is None
