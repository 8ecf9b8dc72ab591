"""Reads thousands of damaged files, and tells what became of them.

usage: PYTHONPATH=.:tests python tests/fuzz/fuzz_driver.py [--seconds=N]
           [--cases=N] [--seed=N] [--only=TEXT] [--show=SAMPLE,NUMBER]

A worker process reads, under limits of time and memory. The outcomes:

    line       a ValueError or OSError of one line that names the file
    equal      accepted, and read as the whole file is
    different  accepted, and something else is read; see fuzz_outcomes.explain
    else       another exception, a worker that hangs or dies, too much memory

Exit code 1 where there is any "else", or a difference that is not explained.
"""

import argparse
import contextlib
import multiprocessing
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator

import fuzz_mutations
import fuzz_outcomes
import numpy as np
from fuzz_outcomes import Outcome

from dicexmbd_jax import memory

LIMIT_S = 20.0  # For one file; a loaded machine takes a second for some.
LIMIT_BYTES = 1 << 30  # Beyond what the worker takes for the whole files.


def make_case(sample, seed: int, number: int) -> tuple[str, bytes]:
  """Returns the kind of a damage, and the damaged file."""
  rng = np.random.default_rng([seed, zlib.crc32(sample.name.encode()), number])
  return fuzz_mutations.damage(sample.path.read_bytes(), rng)


def work(connection, folder: pathlib.Path, samples) -> None:
  """Reads what it is told to read until it is told None; a process."""
  warnings.simplefilter("ignore")
  memory.set_limit(LIMIT_BYTES / 2e9)  # Half, since some is held twice.
  wholes = {one.name: fuzz_outcomes.read(one, one.path) for one in samples}
  with open(os.devnull, "w") as null:
    os.dup2(null.fileno(), 1)
    os.dup2(null.fileno(), 2)
  set_memory_limit()
  connection.send("ready")
  while (case := connection.recv()) is not None:
    sample, number, kind, data = case
    place = folder / str(number)
    shutil.copytree(sample.path.parent, place)
    path = place / sample.path.name
    path.write_bytes(data)
    whole = wholes[sample.name]
    result = fuzz_outcomes.judge(sample, path, whole)
    connection.send(Outcome(sample.name, number, kind, *result))
    shutil.rmtree(place)


def set_memory_limit() -> None:
  """Allows LIMIT_BYTES more than what is taken now."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
  limit = pages * resource.getpagesize() + LIMIT_BYTES
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Worker:
  """A process that reads; started again where it hangs or dies."""

  def __init__(self, folder: pathlib.Path, samples):
    self._folder, self._samples = folder, samples
    self._start()

  def _start(self):
    context = multiprocessing.get_context("spawn")
    self._end, other = context.Pipe()
    arguments = (other, self._folder, self._samples)
    self._process = context.Process(target=work, args=arguments)
    self._process.start()
    other.close()
    if self._end.poll(300):
      self._end.recv()

  def read(self, sample, number: int, kind: str, data: bytes) -> Outcome:
    """Reads one damaged file."""
    self._end.send((sample, number, kind, data))
    fault = f"hangs for {LIMIT_S} s"
    if self._end.poll(LIMIT_S):
      try:
        return self._end.recv()
      except EOFError:
        self._process.join()
        fault = f"died: exit code {self._process.exitcode}"
    self._process.kill()
    self._process.join()
    shutil.rmtree(self._folder / str(number), ignore_errors=True)
    self._start()
    return Outcome(sample.name, number, kind, "else", fault)

  def stop(self):
    """Ends the process."""
    with contextlib.suppress(OSError):
      self._end.send(None)
    self._process.join(10)
    self._process.kill()


def run_cases(
  samples, seed: int, numbers: Iterable[int], seconds: float = 1e9
) -> Iterator[Outcome]:
  """Yields the outcomes of one damage per sample and number."""
  until = time.monotonic() + seconds
  with tempfile.TemporaryDirectory() as folder:
    worker = Worker(pathlib.Path(folder), samples)
    try:
      # itertools.product would list the numbers, which need not end.
      for number, sample in ((n, one) for n in numbers for one in samples):
        if time.monotonic() > until:
          return
        kind, data = make_case(sample, seed, number)
        yield worker.read(sample, number, kind, data)
    finally:
      worker.stop()


def main(arguments: list[str]) -> int:
  """Runs from the command line; returns the exit code."""
  import fuzz_samples

  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seconds", type=float, default=1e9)
  parser.add_argument("--cases", type=int, default=1 << 40)
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--only", default="")
  parser.add_argument("--show", help="SAMPLE,NUMBER: writes that damaged file")
  values = parser.parse_args(arguments)
  with tempfile.TemporaryDirectory() as folder:
    samples = fuzz_samples.write_samples(pathlib.Path(folder))
    if values.show:
      name, number = values.show.rsplit(",", 1)
      sample = next(one for one in samples if one.name == name)
      kind, data = make_case(sample, values.seed, int(number))
      path = pathlib.Path(tempfile.gettempdir(), f"damaged_{sample.path.name}")
      path.write_bytes(data)
      print(f"{path}: {kind}")
      return 0
    samples = [one for one in samples if values.only in one.name]
    numbers = range(-(-values.cases // len(samples)))
    outcomes = []
    for one in run_cases(samples, values.seed, numbers, values.seconds):
      outcomes.append(one)
      if fuzz_outcomes.list_faults([one]):
        print(
          f"{one.sample},{one.number} ({one.kind}): {one.result}", flush=True
        )
        print(f"  {one.detail.strip()}", flush=True)
  print(f"seed {values.seed}, {len(outcomes)} damaged files")
  print(fuzz_outcomes.describe_outcomes(outcomes))
  return 1 if fuzz_outcomes.list_faults(outcomes) else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
