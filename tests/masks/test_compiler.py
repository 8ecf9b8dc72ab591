import os
import subprocess
import sys

import numba

from dicexmbd_jax.masks import compiler


def test_compiles():
  assert compiler.compile_kernel(lambda value: value + 1)(2) == 3


def test_kernels_run_where_nothing_can_be_cached(monkeypatch):
  njit = numba.njit

  def refuse(cache=False, **options):
    if cache:
      raise RuntimeError("cannot cache function: no locator available")
    return njit(**options)

  monkeypatch.setattr(numba, "njit", refuse)
  assert compiler.compile_kernel(lambda value: value + 1)(2) == 3


def test_two_processes_write_no_file_of_one_name():
  code = (
    "from dicexmbd_jax.masks import confidence as c\n"
    "print(c.add_evidence._cache._cache_file._data_name(1))"
  )
  names = {
    subprocess.run(
      [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for _ in range(2)
  }
  assert len(names) == 2
  assert all(name.strip().endswith(".1.nbc") for name in names)


# Runs a kernel, and tells how often it had to be compiled.
COUNT = """
import numpy as np
from dicexmbd_jax.masks import components
counts = components.count_labels(np.ones((2, 3), np.int32), 2)
assert counts.tolist() == [0, 6]
print(sum(components.add_pixels.stats.cache_misses.values()))
"""


def test_what_one_process_has_compiled_another_loads(tmp_path):
  places = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
  running = [
    subprocess.Popen(
      [sys.executable, "-c", COUNT], env=places, stdout=subprocess.PIPE
    )
    for _ in range(2)
  ]
  told = [int(process.communicate()[0]) for process in running]
  assert sorted(told) == [0, 1]
