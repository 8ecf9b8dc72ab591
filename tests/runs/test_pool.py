import functools
import os
import pathlib
import subprocess
import sys
import time

import pytest

from dicexmbd_jax.runs import pool


def square(value):
  if value == 3:
    raise ValueError("three")
  return value * value


def square_or_die(deadly, value):
  if value == deadly:
    os._exit(9)
  return value * value


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_are_carried_and_order_is_kept(num_workers):
  results = list(pool.map_images(square, range(6), num_workers))
  assert [item for item, _ in results] == list(range(6))
  assert isinstance(results[3][1], ValueError)
  assert str(results[3][1]) == "three"
  others = [result for item, result in results if item != 3]
  assert others == [0, 1, 4, 16, 25]


def test_a_dead_worker_costs_its_own_image_only():
  function = functools.partial(square_or_die, 2)
  results = dict(pool.map_images(function, range(5), 2))
  assert isinstance(results.pop(2), pool.WorkerDiedError)
  assert results == {0: 0, 1: 1, 3: 9, 4: 16}


def test_items_are_taken_as_there_is_room():
  taken = []

  def produce():
    for value in range(100):
      taken.append(value)
      yield value

  results = pool.map_images(square, produce(), 1)
  assert next(results) == (0, 0)
  assert len(taken) <= 2
  results.close()
  assert len(taken) <= 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_items(num_workers):
  assert list(pool.map_images(square, [], num_workers)) == []


def test_count_workers():
  assert pool.count_workers(None, 1) == 0
  assert pool.count_workers(4, 2) == 2
  assert pool.count_workers(0, 9) == 0
  with pytest.raises(ValueError, match="num_workers is -1"):
    pool.count_workers(-1, 3)


def test_describe_error_names_the_file_once():
  describe = pool.describe_error
  assert describe(ValueError("a.tiff: found 1"), "a.tiff") == "a.tiff: found 1"
  assert describe(ValueError("found\n 1"), "a.tiff") == "a.tiff: found 1"
  full = OSError(28, "No space left on device", "out/a.tiff")
  line = describe(full, "a.tiff")
  assert line == "out/a.tiff: found No space left on device"
  assert "unexpected KeyError" in describe(KeyError("x"), "a.tiff")


def tell_pid(value):
  time.sleep(value)
  return os.getpid()


def is_alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  # A zombie has ended; nobody has asked for its exit code yet.
  status = pathlib.Path(f"/proc/{pid}/stat")
  return not status.exists() or status.read_text().split()[2] != "Z"


def test_workers_end_with_a_killed_main_process():
  code = (
    "import test_pool as t; from dicexmbd_jax.runs import pool\n"
    "for _, pid in pool.map_images(t.tell_pid, [0.0, 0.0, 60.0, 60.0], 2):\n"
    "  print(pid, flush=True)\n"
  )
  folder = str(pathlib.Path(__file__).parent)
  env = {**os.environ, "PYTHONPATH": folder}
  process = subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, env=env, text=True
  )
  pids = {int(process.stdout.readline()) for _ in range(2)}
  assert all(is_alive(pid) for pid in pids)
  process.kill()
  process.wait()
  deadline = time.monotonic() + 30
  while any(is_alive(pid) for pid in pids):
    assert time.monotonic() < deadline
    time.sleep(0.2)


def test_an_interrupt_in_compiled_code_is_no_failure_of_an_image():
  def work(item):
    try:
      raise SystemError("returned a result with an exception set") from (
        KeyboardInterrupt()
      )
    except SystemError as error:
      raise ValueError(f"{item}: broken") from error

  with pytest.raises(KeyboardInterrupt):
    list(pool.map_images(work, ["a"], 0))


# Starts a process that writes its number and waits, and ends before that does.
BESIDE = """
import sys, time
from dicexmbd_jax.runs import pool

if __name__ == "__main__":
  pool.start_beside("tests.runs.test_pool", "write_and_wait", sys.argv[1])
  while not open(sys.argv[1]).read():
    time.sleep(0.05)
"""


def write_and_wait(path):
  pathlib.Path(path).write_text(str(os.getpid()))
  time.sleep(60)


def test_what_runs_beside_ends_with_the_process(tmp_path):
  script, told = tmp_path / "script.py", tmp_path / "told"
  script.write_text(BESIDE)
  told.write_text("")
  root = pathlib.Path(__file__).parents[2]
  subprocess.run(
    [sys.executable, script, told],
    check=True,
    env={**os.environ, "PYTHONPATH": str(root)},
    timeout=50,
  )
  with pytest.raises(ProcessLookupError):
    os.kill(int(told.read_text()), 0)
