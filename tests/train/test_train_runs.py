"""Real runs: on many devices, in two processes, killed, stopped, gone on."""

import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import record_datasets
import train_runs

# Sums in another order: float32 rounding, and what 12 steps make of it.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs")
  records = record_datasets.write_cells(
    folder / "records", 16, train=20, validation=6
  )
  found = train_runs.Runs(folder, records)
  found.finish("whole")
  return found


@pytest.fixture(scope="module")
def stopped(runs):
  """A run that was asked to stop, and saved."""
  process = runs.start("stopped")
  runs.wait_for("stopped", "metrics.csv", process)
  process.send_signal(signal.SIGTERM)
  told = runs.wait(process, 75)
  assert "stopped and saved" in told
  return runs.folder / "stopped"


def assert_same(found, wanted, tolerance=TOLERANCE):
  pd.testing.assert_frame_equal(found, wanted, rtol=tolerance, atol=tolerance)


def test_a_run_killed_while_it_saves_ends_as_one_never_stopped(runs):
  process = runs.start("killed")
  runs.wait_for("killed", "checkpoints/8.orbax-checkpoint-tmp", process)
  train_runs.kill(process)
  told = runs.finish("killed")
  assert "going on after step 4" in told or "going on after step 8" in told
  pd.testing.assert_frame_equal(
    runs.read("killed"), runs.read("whole"), check_exact=True
  )
  for folder in ("best", "last"):
    for name in ("params.npz", "config.json", "validation.json"):
      whole, killed = (
        runs.folder / run / folder / name for run in ("whole", "killed")
      )
      assert whole.read_bytes() == killed.read_bytes()


@pytest.mark.parametrize(
  "num_devices", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 8))]
)
def test_a_stopped_run_goes_on_on_any_number_of_devices(
  runs, stopped, num_devices
):
  [saved] = [int(path.name) for path in stopped.glob("checkpoints/*")]
  assert saved < 12
  name = f"stopped_{num_devices}"
  shutil.copytree(stopped, runs.folder / name)
  sharded = "--config.train.shard_above=64"
  told = runs.finish(name, sharded, num_devices=num_devices)
  assert f"going on after step {saved}" in told
  if num_devices > 1:
    assert_same(runs.read(name), runs.read("whole"))
    return
  pd.testing.assert_frame_equal(
    runs.read(name), runs.read("whole"), check_exact=True
  )


def start_pair(runs, *more):
  port = train_runs.find_port()
  return [
    runs.start(
      "pair", f"--coordinator=localhost:{port}", "--num_processes=2",
      f"--process_id={index}", *more, num_devices=4,
    )
    for index in range(2)
  ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_stop_together_go_on_and_are_as_one_device(runs):
  sharded = "--config.train.shard_above=64"
  pair = start_pair(runs, sharded)
  runs.wait_for("pair", "metrics.csv", pair[0])
  pair[1].send_signal(signal.SIGTERM)  # One is asked, both stop.
  for process in pair:
    runs.wait(process, 75)
  # Each has written its part of the state, and reads its part.
  shutil.copytree(runs.folder / "pair", runs.folder / "alone")
  told = [runs.wait(process) for process in start_pair(runs, sharded)]
  assert "process 0 of 2: going on after step" in told[0]
  assert "process 0 of 2: 12 of 12 steps" in told[0]
  assert "12 of 12 steps" not in told[1]
  assert_same(runs.read("pair"), runs.read("whole"))
  assert "going on after step" in runs.finish("alone")
  assert_same(runs.read("alone"), runs.read("whole"))
  with (
    np.load(runs.folder / "pair/best/params.npz") as found,
    np.load(runs.folder / "whole/best/params.npz") as wanted,
  ):
    for name in wanted:
      np.testing.assert_allclose(
        found[name], wanted[name], rtol=1e-5, atol=1e-3
      )
