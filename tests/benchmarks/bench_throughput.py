"""Images per second of the whole `predict`: one JSON line per measurement.

  python tests/benchmarks/bench_throughput.py [NUM_IMAGES,...] [WORKERS,...]
    [MAGNIFICATION,...] [real]

Simulated images of 500 x 500 px and 40 channels are read from disk and all
files are written. The network is a fake one that costs nothing, so that the
line shows what the rest of the program can do; it says what the real one said
of the same images before. `real`: the shipped network itself.

Elapsed seconds depend on what else the machine does, processor seconds less so.
Each run has a process of its own, from whose start both are counted: imports
and the workers' are among them. `share` is each stage's share of the time that
images took, all processes together; `magnify` is the time to choose
magnifications, the network's first pass included. `end_s` is what elapsed after
the last image: tables read back, cells.h5ad, report. `peak_mb_main`, the fake
network's answers included, and `peak_mb_worker`, the largest worker's, are of
this run alone.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import pathlib
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import numpy as np
from absl import logging

from dicexmbd_jax import config as config_lib
from dicexmbd_jax import predict as predict_lib
from dicexmbd_jax.commands import predict
from dicexmbd_jax.io import listing, panel, write
from dicexmbd_jax.io.images import read_image
from dicexmbd_jax.simulate import study

NUM_CHANNELS = 40
NUM_DISTINCT = 4


def main(
  nums_images: list[int],
  workers: list[int],
  is_real: bool,
  magnifications: list[Any],
) -> None:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    run_alone(make_images, folder, max(nums_images))
    known = {} if is_real else run_alone(learn_answers, folder, magnifications)
    (folder / "known").write_bytes(pickle.dumps(known))
    for num_images, num_workers, magnification in itertools.product(
      nums_images, workers, magnifications
    ):
      run_alone(
        measure, folder, num_images, num_workers, magnification,
        time.perf_counter(),
      )  # fmt: skip


def run_alone(function: Callable, *arguments: Any) -> Any:
  """Calls a function in a process that has done nothing before."""
  context = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(1, mp_context=context) as alone:
    return alone.submit(function, *arguments).result()


def make_images(folder: pathlib.Path, num_images: int) -> None:
  """Writes NUM_DISTINCT images, and the others as further names of them."""
  logging.set_verbosity(logging.WARNING)
  for _ in study.simulate_study(str(folder / "study"), NUM_DISTINCT, 0, 500):
    pass
  rows = panel.read_panel(folder / "study/panel.csv")
  listed, _ = listing.list_stacks(str(folder / "study/img"), rows)
  (folder / "all").mkdir()
  (folder / "few").mkdir()
  for number, one in enumerate(listed):
    image = read_image(one, rows)
    repeat = np.arange(NUM_CHANNELS) % len(image.names)
    names = [
      image.names[k] + f" {n // len(image.names)}" * (n >= len(image.names))
      for n, k in enumerate(repeat)
    ]
    write.write_stack(
      folder / f"few/{number}.ome.tiff", image.stack[..., repeat], names
    )
  text = (folder / "study/panel.csv").read_text()
  header = text.splitlines()[0].split(",")
  lines = [
    ",".join({"channel": n, "name": n, "keep": "1"}.get(c, "") for c in header)
    for n in names[len(image.names) :]
  ]
  (folder / "panel.csv").write_text(text + "\n".join(lines) + "\n")
  for number in range(num_images):
    few = folder / f"few/{number % NUM_DISTINCT}.ome.tiff"
    os.link(few, folder / f"all/{number:04d}.ome.tiff")


def learn_answers(folder: pathlib.Path, magnifications: list[Any]) -> dict:
  """Returns what the network says of all that it is shown of the images."""
  logging.set_verbosity(logging.WARNING)
  known: dict = {}

  def record(true_load, *arguments):
    def listen(network):
      def run(images):
        shown = []

        def pull():
          for key, image in images:
            shown.append(image)
            yield key, image

        for key, answer in network(pull()):
          known[name_image(shown.pop(0))] = answer
          yield key, answer

      return run

    return [listen(network) for network in true_load(*arguments)]

  for magnification in magnifications:
    with replace_passes(record):
      run(folder, "few", 0, magnification)
  return known


def measure(folder, num_images, num_workers, magnification, started) -> None:
  logging.set_verbosity(logging.WARNING)
  known = pickle.loads((folder / "known").read_bytes())

  def fake(true_load, *arguments):
    def run(images):
      for key, image in images:
        yield key, known[name_image(image)]

    return (run, run) if known else true_load(*arguments)

  images = f"img_{num_images}"
  (folder / images).mkdir(exist_ok=True)
  for path in sorted((folder / "all").iterdir())[:num_images]:
    with contextlib.suppress(FileExistsError):
      os.link(path, folder / images / path.name)
  with replace_passes(fake), watch_peaks() as peaks:
    record, output = run(folder, images, num_workers, magnification)
  seconds = time.perf_counter() - started
  states = [path.stat().st_mtime for path in (output / "state").iterdir()]
  stages = {k: v for k, v in record["seconds"].items() if k != "total"}
  total = sum(stages.values())
  rate = num_images / seconds
  report(
    what="throughput",
    network="fake" if known else "shipped",
    magnification=magnification,
    images=num_images,
    workers=num_workers,
    images_per_s=rate,
    images_per_s_and_core=rate / os.cpu_count(),
    processor_s_per_image=measure_processor_s() / num_images,
    share={stage: round(s / total, 3) for stage, s in stages.items()},
    end_s=(output / "run.json").stat().st_mtime - max(states),
    peak_mb_main=peaks["main"],
    peak_mb_worker=peaks["worker"],
    load=os.getloadavg()[0],
  )


def run(folder, images, num_workers, magnification):
  """Runs predict; returns the record of the run, and where its files are."""
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  config = config_lib.resolve_config(
    config, None, {"predict.magnification": magnification}
  )
  output = folder / f"out_{images}_{num_workers}_{magnification}"
  code = predict.run_request(
    predict.Request(
      images=str(folder / images),
      output=output,
      config=config,
      panel_path=folder / "panel.csv",
      num_workers=num_workers,
      overwrite=True,
    )
  )
  assert code == 0
  return json.loads((output / "run.json").read_text()), output


@contextlib.contextmanager
def replace_passes(make):
  true_load, true_compile = predict_lib.load_passes, predict_lib.compile_ahead
  predict_lib.load_passes = lambda *values: make(true_load, *values)
  predict_lib.compile_ahead = lambda *values: None
  try:
    yield
  finally:
    predict_lib.load_passes = true_load
    predict_lib.compile_ahead = true_compile


def name_image(image: np.ndarray) -> tuple:
  """Tells images apart at little cost."""
  part = image[::7, ::7]
  return (
    *image.shape,
    float(part.sum()),
    float(image[:, image.shape[1] // 2].sum()),
  )


def measure_processor_s() -> float:
  for child in multiprocessing.active_children():
    child.join()  # What it used counts from its end on.
  return sum(
    used.ru_utime + used.ru_stime
    for used in map(
      resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
  )


@contextlib.contextmanager
def watch_peaks():
  """Yields what becomes the peak memory of this process and its largest child.

  Not from getrusage: there a child begins with the peak of its parent, and
  nothing ever falls.
  """
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak.
  peaks = {"main": 0.0, "worker": 0.0}
  is_over = threading.Event()

  def watch():
    while not is_over.wait(0.05):
      found = map(read_peak_mb, list_children())
      peaks["worker"] = max(peaks["worker"], *found, 0.0)

  thread = threading.Thread(target=watch)
  thread.start()
  try:
    yield peaks
  finally:
    is_over.set()
    thread.join()
    peaks["main"] = read_peak_mb("self")


def list_children() -> list[str]:
  found: list[str] = []
  for task in pathlib.Path("/proc/self/task").iterdir():
    with contextlib.suppress(OSError):  # A thread that has just ended.
      found += (task / "children").read_text().split()
  return found


def read_peak_mb(process: str) -> float:
  """Returns the largest resident memory; 0 of a process that is gone."""
  try:
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
  except OSError:
    return 0.0
  peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
  return float(peaks[0]) / 1024 if peaks else 0.0


def report(**values) -> None:
  commit = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
  ).stdout.strip()
  values = {
    key: round(value, 3) if isinstance(value, float) else value
    for key, value in values.items()
  }
  print(json.dumps({**values, "commit": commit}), flush=True)


if __name__ == "__main__":
  words = [word for word in sys.argv[1:] if word != "real"]
  lists = [word.split(",") for word in words]
  main(
    [int(n) for n in lists[0]] if lists else [200],
    [int(n) for n in lists[1]] if len(lists) > 1 else [2],
    "real" in sys.argv,
    [word if word == "auto" else float(word) for word in lists[2]]
    if len(lists) > 2
    else [1.0, "auto"],
  )
