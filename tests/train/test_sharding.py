"""Many devices compute what one does. Eight virtual ones, in a process."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from configs import default
from dicexmbd_jax.train import sharding

# Run with eight devices: losses, norms and gradients on one mesh and others.
CODE = """
import json, jax, numpy as np
from configs import default
import record_datasets
from dicexmbd_jax.model import unet
from dicexmbd_jax.train import program, sharding

config = default.get_config()
config.model.update(dict(width=4, depth=1))
config.train.update(dict(batch_size=8, crop_px=16, report_steps=1,
                         schedule="constant", warmup_steps=0))
config.train.augment.update(dict(gamma=0.0, blur_px=0.0, channel_dropout=0.0))
drawn = [record_datasets.draw_cells(i, 16) for i in range(8)]
image, target, valid = (np.stack(field) for field in zip(*drawn))
batch = dict(image=image, target=target, valid=valid.astype(np.float32),
             known=np.ones_like(target), is_real=np.ones(8, bool))

def run(num_devices, shard_above=None, parts=1):
  config.train.shard_above = shard_above
  config.train.accumulate_steps = parts
  made = program.make_program(unet.build_model(config.model),
                              config.copy_and_resolve_references(),
                              jax.devices()[:num_devices])
  state, found = made.make_state(), []
  for _ in range(3):
    state, numbers = made.take_step(state,
                                    sharding.place_batch(batch, made.mesh))
    found.append([float(numbers["loss"]), float(numbers["gradient_norm"])])
  # Adam's first moment after a step is the gradient, up to a factor.
  first = made.take_step(made.make_state(),
                         sharding.place_batch(batch, made.mesh))[0]
  moments = [np.asarray(x).ravel() for x in jax.tree.leaves(first.optimizer)]
  spread = [not x.sharding.is_fully_replicated
            for x in jax.tree.leaves(first)]
  return dict(found=found, spread=sum(spread),
              moments=np.concatenate(moments).astype(float).tolist())

print(json.dumps(dict(one=run(1), eight=run(8), sharded=run(8, 64),
                      parts_one=run(1, None, 2), parts_four=run(4, None, 2))))
"""


@pytest.fixture(scope="module")
def found(request):
  root = str(request.config.rootpath)
  environment = os.environ | {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join([root, f"{root}/tests"]),
  }
  run = subprocess.run(
    [sys.executable, "-c", CODE],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  return json.loads(run.stdout)


@pytest.mark.parametrize(
  ("first", "second"),
  [("one", "eight"), ("one", "sharded"), ("parts_one", "parts_four")],
)
def test_losses_and_gradients_do_not_depend_on_the_devices(
  found, first, second
):
  for name, tolerance in (("found", 2e-5), ("moments", 2e-6)):
    np.testing.assert_allclose(
      found[second][name], found[first][name], rtol=tolerance, atol=2e-6
    )


def test_parts_differ_from_the_whole_by_batch_norm_alone(found):
  whole, parts = (np.array(found[name]["found"]) for name in
                  ("one", "parts_one"))  # fmt: skip
  assert not np.allclose(whole, parts, rtol=1e-5)
  np.testing.assert_allclose(whole[:, 0], parts[:, 0], rtol=0.1)


def test_big_arrays_are_spread_where_asked(found):
  assert found["eight"]["spread"] == 0
  assert found["sharded"]["spread"] > 10


def test_the_longest_axis_that_divides_is_spread():
  mesh = sharding.make_mesh()
  assert mesh.size == 1
  shapes = {
    "big": jax.ShapeDtypeStruct((3, 3, 8, 64), np.float32),
    "small": jax.ShapeDtypeStruct((64,), np.float32),
  }
  found = sharding.shard_state(shapes, mesh, 64)
  assert found["big"].spec == PartitionSpec(None, None, None, "data")
  assert found["small"].spec == PartitionSpec()
  everywhere = sharding.shard_state(shapes, mesh, None)
  assert {way.spec for way in everywhere.values()} == {PartitionSpec()}


@pytest.mark.parametrize(
  ("num_devices", "num_processes", "parts", "is_right"),
  [(4, 1, 1, True), (8, 2, 1, True), (3, 1, 1, False), (8, 1, 2, False),
   (4, 2, 2, True)],
)  # fmt: skip
def test_devices_that_do_not_divide_the_batch_are_refused(
  num_devices, num_processes, parts, is_right
):
  config = default.get_config().train
  config.update({"batch_size": 8, "accumulate_steps": parts})
  if is_right:
    sharding.check_batch(config, num_devices, num_processes)
    return
  with pytest.raises(ValueError, match=f"found 8, expected a multiple of "
                                       f"{num_devices * parts}"):  # fmt: skip
    sharding.check_batch(config, num_devices, num_processes)
