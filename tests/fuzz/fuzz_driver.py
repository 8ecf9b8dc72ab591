"""Reads thousands of damaged files, and tells what became of them.

usage: python tests/fuzz/fuzz_driver.py [--seconds=N | --cases=N] [--seed=N]
           [--only=TEXT] [--show=SAMPLE,NUMBER]

A worker process reads, under limits of time and memory. The outcomes:

    line       a ValueError or OSError of one line that names the file
    equal      accepted, and read as the whole file is
    different  accepted, and something else is read; see EXPLAINED
    else       another exception, a worker that hangs or dies, too much memory

Exit code 1 where there is any "else", or a difference that is not explained.
"""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

LIMIT_S = 20.0  # For one file; a loaded machine takes a second for some.
LIMIT_BYTES = 1 << 30  # Beyond what the worker takes for the whole files.
MAX_LINE = 1200

# Why a damaged file may be read, and read differently: (samples, what differs).
# Formats with checksums are not here, unless the damage is beneath them.
EXPLAINED: dict[str, dict[str, str]] = {}


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of one damaged file.

  Attributes:
    sample: its name.
    number: of the damage; with the seed and the sample it is the same again.
    kind: of the damage.
    result: "line", "equal", "different" or "else".
    detail: the line, what differs, or what went wrong.
  """

  sample: str
  number: int
  kind: str
  result: str
  detail: str


def make_case(sample, seed: int, number: int) -> tuple[str, bytes]:
  """Returns the kind of a damage, and the damaged file."""
  import fuzz_mutations

  rng = np.random.default_rng([seed, zlib.crc32(sample.name.encode()), number])
  return fuzz_mutations.damage(sample.path.read_bytes(), rng)


def judge(sample, number: int, kind: str, path, whole: dict) -> Outcome:
  """Reads a damaged file; `whole` is what the whole one reads as."""
  import fuzz_readers

  def tell(result: str, detail: str) -> Outcome:
    return Outcome(sample.name, number, kind, result, detail)

  try:
    found, lines = sample.read(path), []
  except fuzz_readers.Refused as refused:
    found, lines = refused.found, refused.lines
  except (ValueError, OSError) as error:
    found, lines = {}, [f"{error}"]
  except MemoryError as error:
    return tell("else", f"MemoryError: {error}")
  except Exception:
    return tell("else", traceback.format_exc(limit=-3))
  for line in lines:
    if fault := find_fault(line, path):
      return tell("else", f"{fault}: {line[:MAX_LINE]}")
  differing = compare(found, whole, is_part=bool(lines))
  if differing:
    return tell("different", ", ".join(sorted(differing)))
  return tell("line", lines[0]) if lines else tell("equal", "")


def find_fault(line: str, path: pathlib.Path) -> str | None:
  """Says what is wrong with a message; None if it is one clear line."""
  if "\n" in line or "\r" in line:
    return "several lines"
  if len(line) > MAX_LINE:
    return "a long line"
  if str(path) not in line and str(path.parent) not in line:
    return "a line without the file"
  if "llocate" in line or "memory" in line:
    return "too much memory"
  if "found an unexpected" in line:
    return "an unexpected error"
  return None


def compare(found: dict, whole: dict, is_part: bool) -> set[str]:
  """Returns what differs: "pixels", "shape of pixels", "names" and so on."""
  names = found.keys() if is_part else found.keys() | whole.keys()
  if not all(name in found and name in whole for name in names):
    return {"images"}
  return {
    difference
    for name in names
    if (difference := compare_values(found[name], whole[name], name))
  }


def compare_values(first: Any, second: Any, name: str) -> str | None:
  """Returns what differs; None if nothing, down to the bytes."""
  kind = name.rpartition(": ")[2]
  if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
    if (first.shape, first.dtype) != (second.shape, second.dtype):
      return f"shape of {kind}"
    return kind if first.tobytes() != second.tobytes() else None
  return kind if repr(first) != repr(second) else None


def work(connection, folder: pathlib.Path, samples) -> None:
  """Reads what it is told to read until it is told None; a process."""
  warnings.simplefilter("ignore")
  wholes = {sample.name: sample.read(sample.path) for sample in samples}
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
    connection.send(judge(sample, number, kind, path, wholes[sample.name]))
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
      for number, sample in itertools.product(numbers, samples):
        if time.monotonic() > until:
          return
        kind, data = make_case(sample, seed, number)
        yield worker.read(sample, number, kind, data)
    finally:
      worker.stop()


def explain(outcome: Outcome) -> str | None:
  """Returns why a difference is no fault; None if nobody knows."""
  reasons = EXPLAINED.get(outcome.sample, {})
  parts = outcome.detail.split(", ")
  found = [reasons.get(part) for part in parts]
  return "; ".join(filter(None, found)) if all(found) else None


def list_faults(outcomes: Iterable[Outcome]) -> list[Outcome]:
  """Returns what must not be."""
  return [
    one
    for one in outcomes
    if one.result == "else"
    or (one.result == "different" and explain(one) is None)
  ]


def describe_outcomes(outcomes: list[Outcome]) -> str:
  """Returns the table of outcomes, and the differences with their reasons."""
  results = ("line", "equal", "different", "else")
  counts = collections.Counter((one.sample, one.result) for one in outcomes)
  lines = [f"{'sample':<18}" + "".join(f"{name:>11}" for name in results)]
  names = list(dict.fromkeys(one.sample for one in outcomes))
  for name in names:
    row = [counts[name, result] for result in results]
    lines.append(f"{name:<18}" + "".join(f"{count:>11}" for count in row))
  sums = [sum(counts[name, result] for name in names) for result in results]
  lines.append(f"{'all':<18}" + "".join(f"{count:>11}" for count in sums))
  different = [one for one in outcomes if one.result == "different"]
  groups = collections.Counter(
    (one.sample, one.detail, explain(one)) for one in different
  )
  lines += ["", "accepted and different:"]
  for (sample, detail, reason), count in sorted(groups.items(), key=str):
    lines.append(f"{count:>6}  {sample}: {detail}: {reason or 'NOT EXPLAINED'}")
  return "\n".join(lines)


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
      path = pathlib.Path(f"damaged_{sample.path.name}")
      path.write_bytes(data)
      print(f"{path}: {kind}")
      return 0
    samples = [one for one in samples if values.only in one.name]
    numbers = range(-(-values.cases // len(samples)))
    outcomes = []
    for one in run_cases(samples, values.seed, numbers, values.seconds):
      outcomes.append(one)
      if list_faults([one]):
        print(
          f"{one.sample},{one.number} ({one.kind}): {one.result}", flush=True
        )
        print(f"  {one.detail.strip()}", flush=True)
  print(f"seed {values.seed}, {len(outcomes)} damaged files")
  print(describe_outcomes(outcomes))
  return 1 if list_faults(outcomes) else 0


if __name__ == "__main__":
  # As pytest has it, for this process and its workers.
  here = pathlib.Path(__file__).resolve().parent
  for place in (here, here.parent, here.parent.parent):
    sys.path.insert(0, str(place))
  sys.exit(main(sys.argv[1:]))
