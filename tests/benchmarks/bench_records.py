"""Speed of records: written, and read into batches, one JSON line each.

  python tests/benchmarks/bench_records.py [ROUNDS] [read]

Patches of 512 x 512 of simulated tissue, as the builder makes them. `needed`
lines are the rates that training asks for, with their arithmetic; `build` lines
are data_builders.build as a whole, from OME-TIFFs and masks to a dataset, the
start of its processes in it; the `write` line is TFDS and array_record alone;
`read` lines
are input_pipeline.make_batches with shuffling, decoding and batching, after its
start; `startup_s` is the time to the first batch. The rounds go through all
numbers of workers in turn; each line is the median of its rounds. Processor
time, unlike the rates, hardly depends on what else the machine does; that of
worker processes is not seen. records_per_core_s is what a core reads that does
nothing else. `read` leaves out the builds.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

import record_datasets

from configs import default
from data_builders import build
from dicexmbd_jax.image import preparation
from dicexmbd_jax.simulate import study
from dicexmbd_jax.train import input_pipeline, targets
from dicexmbd_jax.types import LoadedImage

PATCH_PX = 512
NUM_IMAGES = 6
NUM_RECORDS = 96
NUM_BUILT = 8  # Images of 1024 x 1024: four records each.
BATCH_SIZE = 8
NUM_BATCHES = 24
NUM_WORKERS = (0, 2, 4)
RIM_FRACTION = 0.7

H200_FLOPS = 990e12  # Dense bfloat16, as specified by its maker.
UTILISATION = 0.4  # Planned share of it; convolutions rarely get more.
CPU_STEP_S = 0.75  # Measured: width 16, one patch, two cores, float32.


def main(num_rounds: int, builds: bool) -> None:
  print_needed()
  records = make_records()
  folder = tempfile.mkdtemp()
  if builds:
    report_building(num_rounds)
  try:
    written = [measure_writing(records, folder) for _ in range(num_rounds)]
    report_writing(written, folder)
    source = input_pipeline.Source(folder, 1.0)
    rounds = [
      [measure_reading(source, number) for number in NUM_WORKERS]
      for _ in range(num_rounds)
    ]
  finally:
    shutil.rmtree(folder)
  for number, results in zip(
    NUM_WORKERS, zip(*rounds, strict=True), strict=True
  ):
    startups, *paces = zip(*results, strict=True)
    report_paces(
      paces,
      what="read",
      num_workers=number,
      startup_s=statistics.median(startups),
    )


def count_flops(width: int, depth: int = 4, in_channels: int = 2) -> float:
  """Multiplications and additions of one forward pass over one patch."""
  widths = [width * 2**level for level in range(depth + 1)]
  per_pixel = 2 * width * 3  # The 1 x 1 convolution to three classes.
  before = in_channels
  for level, own in enumerate(widths):
    area = 4.0**-level
    per_pixel += 18 * (before * own + own**2) * area
    if level < depth:  # Up-convolution from twice the width, two 3 x 3.
      per_pixel += (4 * own**2 + 18 * (2 * own * own + own**2)) * area
    before = own
  return per_pixel * PATCH_PX**2


def print_needed() -> None:
  training = 3 * count_flops(64)
  report(
    what="needed",
    device="H200, planned",
    width=64,
    teraflops_per_patch=training / 1e12,
    arithmetic="990e12 FLOP/s x 0.4 / (3 x forward)",
    records_per_s=H200_FLOPS * UTILISATION / training,
  )
  report(
    what="needed",
    device="CPU, measured",
    width=16,
    teraflops_per_patch=3 * count_flops(16) / 1e12,
    arithmetic="1 / 0.75 s",
    records_per_s=1 / CPU_STEP_S,
  )


def make_records() -> list[dict]:
  """Patches of simulated tissue, turned and mirrored to become many."""
  shape = (PATCH_PX, PATCH_PX)
  pairs = [make_pair(study.draw_image(0, i, shape)) for i in range(NUM_IMAGES)]
  records = []
  for i in range(NUM_RECORDS):
    image, target = pairs[i % NUM_IMAGES]
    turned = [np.rot90(plane, i // NUM_IMAGES % 4) for plane in (image, target)]
    valid = np.ones((*shape, 1), np.uint8)
    records.append(record_datasets.encode(f"r{i}", *turned, valid))
  return records


def make_pair(simulated) -> tuple[np.ndarray, np.ndarray]:
  loaded = LoadedImage(
    simulated.stack.astype(np.float32),
    simulated.names,
    simulated.nuclear,
    simulated.membrane,
    1.0,
  )
  image, _ = preparation.merge_loaded(loaded, default.get_config().image)
  return image, targets.make_target(simulated.cells, RIM_FRACTION)


def measure_writing(records: list[dict], folder: str) -> tuple[float, float]:
  shutil.rmtree(folder)
  splits = {"train": records}
  return measure_pace(
    lambda: record_datasets.write_records(folder, "bench", PATCH_PX, splits),
    len(records),
  )


def measure_reading(source, num_workers: int) -> tuple[float, float, float]:
  """Returns seconds to the first batch, and the pace after it."""
  start = time.perf_counter()
  batches = input_pipeline.make_batches(
    [source], "train", batch_size=BATCH_SIZE, seed=0, num_workers=num_workers
  )
  next(batches)
  startup_s = time.perf_counter() - start
  # What was read ahead meanwhile must not count.
  num_threads = input_pipeline.count_read_threads(num_workers)
  skip(batches, (2 * num_threads + 1) * max(num_workers, 1))
  return startup_s, *measure_pace(
    lambda: skip(batches, NUM_BATCHES), NUM_BATCHES * BATCH_SIZE
  )


def skip(batches, number: int) -> None:
  for _ in range(number):
    next(batches)


def measure_pace(work, num_records: int) -> tuple[float, float]:
  """Returns records per second, and processor milliseconds per record."""
  start, start_processor = time.perf_counter(), time.process_time()
  work()
  processor_s = time.process_time() - start_processor
  rate = num_records / (time.perf_counter() - start)
  return rate, 1e3 * processor_s / num_records


def report_building(num_rounds: int) -> None:
  with tempfile.TemporaryDirectory() as folder:
    for _ in study.simulate_study(folder, NUM_BUILT, 0, 2 * PATCH_PX):
      pass
    rounds = [
      [measure_building(pathlib.Path(folder), n) for n in NUM_WORKERS]
      for _ in range(num_rounds)
    ]
  for number, paces in zip(NUM_WORKERS, zip(*rounds, strict=True), strict=True):
    report_paces(zip(*paces, strict=True), what="build", num_workers=number)


def measure_building(
  folder: pathlib.Path, num_workers: int
) -> tuple[float, float]:
  output = folder / "built"
  words = [
    f"--images={folder / 'img'}",
    f"--teacher={folder / 'truth' / 'masks'}",
    f"--panel={folder / 'panel.csv'}",
    f"--output={output}",
    f"--num_workers={num_workers}",
  ]

  def run() -> None:
    if build.main(words):
      raise RuntimeError("the build failed")

  pace = measure_pace(run, 4 * NUM_BUILT)
  shutil.rmtree(output)
  return pace


def report_writing(paces: list[tuple[float, float]], folder: str) -> None:
  files = pathlib.Path(folder).rglob("*.array_record*")
  size = sum(file.stat().st_size for file in files)
  report_paces(
    zip(*paces, strict=True),
    what="write",
    num_workers=0,
    megabytes_per_record=size / NUM_RECORDS / 1e6,
  )


def report_paces(paces, num_workers: int, **values) -> None:
  rate, processor_ms = (statistics.median(column) for column in paces)
  if not num_workers:
    values["processor_ms_per_record"] = processor_ms
    values["records_per_core_s"] = 1e3 / processor_ms
  report(**values, num_workers=num_workers, records_per_s=rate)


def report(**values) -> None:
  rounded = {
    key: float(f"{value:.4g}") if isinstance(value, float) else value
    for key, value in values.items()
  }
  commit = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
  ).stdout.strip()
  print(
    json.dumps(
      {**rounded, "patch_px": PATCH_PX, "cores": os.cpu_count()}
      | {"device": rounded.get("device", "cpu"), "commit": commit}
    ),
    flush=True,
  )


if __name__ == "__main__":
  flags.FLAGS.mark_as_parsed()
  words = sys.argv[1:]
  main(int((words or [3])[0]), builds="read" not in words)
