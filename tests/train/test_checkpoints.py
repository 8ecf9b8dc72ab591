"""Checkpoints: what is kept, what comes back, and damage that is seen."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import default
from dicexmbd_jax import __main__ as program
from dicexmbd_jax.train import checkpoints as checkpoints_lib


@pytest.fixture
def config():
  return default.get_config()


def make_state(value):
  return {
    "params": [jnp.full((40, 50), value) + jnp.arange(50.0)],
    "step": jnp.asarray(value, jnp.int32),
    "is_finite": jnp.ones((), bool),
  }


SHAPES = jax.eval_shape(lambda: make_state(0))


def open_checkpoints(folder, num_newest=2):
  return checkpoints_lib.Checkpoints(folder / "checkpoints", num_newest)


def save(folder, config, losses, num_newest=2):
  """Saves steps 1, 2, ... with these validation losses."""
  checkpoints = open_checkpoints(folder, num_newest)
  for step, loss in enumerate(losses, 1):
    checkpoints.save(step, make_state(step), config, loss)
  checkpoints.close()


def restore(folder, config):
  checkpoints = open_checkpoints(folder)
  state = checkpoints.restore(SHAPES, config)
  checkpoints.close()
  return state


def list_steps(folder):
  return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_nothing_to_restore_in_a_new_folder(tmp_path, config):
  assert restore(tmp_path, config) is None


def test_the_newest_state_comes_back_bit_by_bit(tmp_path, config):
  save(tmp_path, config, [None, None, None])
  state = restore(tmp_path, config)
  for found, wanted in zip(
    jax.tree.leaves(state), jax.tree.leaves(make_state(3)), strict=True
  ):
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_the_newest_and_the_best_stay_over_restarts(tmp_path, config):
  save(tmp_path, config, [0.3, 0.1, 0.2, None, 0.4])
  assert list_steps(tmp_path) == [2, 4, 5]
  checkpoints = open_checkpoints(tmp_path)
  checkpoints.restore(SHAPES, config)
  for step, loss in ((6, None), (7, 0.15)):
    checkpoints.save(step, make_state(step), config, loss)
  checkpoints.close()
  assert list_steps(tmp_path) == [2, 6, 7]


def test_a_step_that_is_there_is_not_written_again(tmp_path, config):
  save(tmp_path, config, [None])
  checkpoints = open_checkpoints(tmp_path)
  checkpoints.save(1, make_state(9), config)
  checkpoints.close()
  assert restore(tmp_path, config)["step"] == 1


def list_files(folder):
  """Returns the files of a checkpoint without which it cannot be read."""
  return sorted(
    path.relative_to(folder)
    for path in folder.rglob("*")
    if path.is_file() and path.stat().st_size
  )


@pytest.mark.parametrize("spoil", ["truncated", "emptied", "changed", "lost"])
def test_any_damage_to_the_newest_falls_back_to_the_one_before(
  tmp_path, config, caplog, spoil
):
  save(tmp_path / "whole", config, [None, None])
  files = list_files(tmp_path / "whole/checkpoints/2")
  num_damaged = 0
  for index in range(len(files)):
    folder = tmp_path / str(index)
    # A copy: the same files, where each save has others.
    shutil.copytree(tmp_path / "whole", folder)
    path = folder / "checkpoints/2" / files[index]
    damage(path, spoil)
    caplog.clear()
    state = restore(folder, config)
    # Some files hold nothing that restoring needs.
    assert int(state["step"]) in (1, 2)
    wanted = make_state(int(state["step"]))
    np.testing.assert_array_equal(state["params"][0], wanted["params"][0])
    if int(state["step"]) == 1:
      num_damaged += 1
      assert "checkpoints/2: found a damaged checkpoint" in caplog.text
      assert "going back to the one before" in caplog.text
      assert (folder / "broken_checkpoints/2").is_dir()
      assert list_steps(folder) == [1]
  assert num_damaged


def damage(path, spoil):
  content = bytearray(path.read_bytes())
  if spoil == "lost":
    path.unlink()
    return
  if spoil == "truncated":
    content = content[: len(content) // 2]
  elif spoil == "emptied":
    content = bytearray()
  else:
    content[len(content) // 2] ^= 0x55
  path.write_bytes(content)


def test_a_change_of_numbers_alone_is_seen(tmp_path, config):
  save(tmp_path, config, [None])
  [path] = (tmp_path / "checkpoints/1/about").glob("metadata")
  about = json.loads(path.read_text())["about"]
  about["arrays"]["params.0"]["checksum"] += 1
  path.write_text(json.dumps(checkpoints_lib.sign(about)))
  with pytest.raises(ValueError, match="found no checkpoint that is whole"):
    restore(tmp_path, config)


def test_arrays_come_where_they_shall_lie(tmp_path, config):
  save(tmp_path, config, [None])
  mesh = jax.make_mesh((1,), ("data",))
  spread = NamedSharding(mesh, PartitionSpec(None, "data"))
  whole = NamedSharding(mesh, PartitionSpec())
  ways = {"params": [spread], "step": whole, "is_finite": whole}
  checkpoints = open_checkpoints(tmp_path)
  state = checkpoints.restore(SHAPES, config, ways)
  checkpoints.close()
  assert state["params"][0].sharding == spread
  np.testing.assert_array_equal(state["params"][0], make_state(1)["params"][0])
  assert state["step"].sharding == whole


def test_another_configuration_is_named_by_its_values(tmp_path, config):
  save(tmp_path, config, [None])
  config.train.batch_size = 7
  config.train.augment.flip = False
  with pytest.raises(ValueError, match="flip: found False, expected True; tra"):
    restore(tmp_path, config)


def test_a_run_goes_on_where_the_code_has_learned_new_values(tmp_path, config):
  old = config.copy_and_resolve_references()
  del old.image["negative"]
  save(tmp_path, old, [None])
  assert restore(tmp_path, config) is not None
  config.image.negative = "clip"
  with pytest.raises(ValueError, match="negative: found clip, expected refuse"):
    restore(tmp_path, config)


@pytest.mark.parametrize(
  "change", [("train", "num_steps", 9), ("segment", "scale", 1)]
)
def test_what_does_not_change_the_run_may_change(tmp_path, config, change):
  save(tmp_path, config, [None])
  section, name, value = change
  config[section][name] = value
  assert restore(tmp_path, config) is not None


def test_arrays_of_another_shape_are_refused(tmp_path, config):
  save(tmp_path, config, [None])
  checkpoints = open_checkpoints(tmp_path)
  shapes = SHAPES | {"step": jax.ShapeDtypeStruct((2,), jnp.int32)}
  with pytest.raises(ValueError, match=r"step: found \(\), expected \(2,\)"):
    checkpoints.restore(shapes, config)
  checkpoints.close()


def set_records(config, path, digest):
  """Returns the configuration with these records, and their hash by name."""
  found = config.copy_and_resolve_references()
  with found.unlocked():
    found.train.data = {"cells": {"path": path, "weight": 1.0}}
  return found, {"cells": digest}


def test_records_are_compared_and_not_where_they_lie(tmp_path, config):
  folder = tmp_path / "checkpoints"

  def open_with(records):
    return checkpoints_lib.Checkpoints(folder, 2, records)

  first, records = set_records(config, "here", "aa")
  checkpoints = open_with(records)
  checkpoints.save(1, make_state(1), first)
  checkpoints.close()
  moved, records = set_records(config, "there", "aa")
  assert open_with(records).restore(SHAPES, moved) is not None
  for path in ("here", "there"):
    other, records = set_records(config, path, "bb")
    with pytest.raises(ValueError) as caught:
      open_with(records).restore(SHAPES, other)
    assert str(caught.value).startswith(
      f"config.train.data.cells.path: found other records in {path} than those "
      "the run in this workdir was trained on (here)"
    )


def test_of_runs_that_kept_no_hash_the_places_are_compared(tmp_path, config):
  first, _ = set_records(config, "here", "")
  save(tmp_path, first, [None])
  assert restore(tmp_path, first) is not None
  moved, records = set_records(config, "there", "aa")
  checkpoints = checkpoints_lib.Checkpoints(
    tmp_path / "checkpoints", 2, records
  )
  with pytest.raises(ValueError, match="cells.path: found there, expected he"):
    checkpoints.restore(SHAPES, moved)


FULL = """
import pathlib, resource, sys
import jax.numpy as jnp
from configs import default
from dicexmbd_jax import __main__ as program
from dicexmbd_jax.train.checkpoints import Checkpoints

program.start_logging()
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]), 2)
config = default.get_config()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
  checkpoints.save(1, {"params": jnp.arange(90000.0)}, config)
  checkpoints.close()
except OSError as error:
  print(error.filename)
"""


def test_a_disk_that_is_full_is_one_error_without_tracebacks(tmp_path):
  # Files cannot grow beyond a limit: as a full disk, but without needing one.
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(
    [sys.executable, "-c", FULL, str(tmp_path / "checkpoints")],
    env=os.environ
    | {
      "PYTHONPATH": str(root),
      "JAX_PLATFORMS": "cpu",
      "JAX_ENABLE_COMPILATION_CACHE": "false",  # It would be full, too.
    },
    capture_output=True,
    text=True,
  )
  assert done.stdout.strip() == str(tmp_path / "checkpoints")
  assert done.stderr == ""


def test_a_checkpoint_that_is_cut_gives_one_line(tmp_path, config, caplog):
  save(tmp_path, config, [None, None])
  for path in (tmp_path / "checkpoints/2/state").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:100])
  assert int(restore(tmp_path, config)["step"]) == 1
  lines = [
    record.getMessage()
    for record in caplog.records
    if program.is_worth_telling(record)
  ]
  assert len(lines) == 1
  assert "found a damaged checkpoint" in lines[0]
