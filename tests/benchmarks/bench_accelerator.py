"""One accelerator: training steps and prediction, one JSON line each.

    python tests/benchmarks/bench_accelerator.py [--tiny] [--seconds=480]

Called by bench_accelerator.sh. The training step is the whole one, with
augmentation, as `train` compiles it; its lines have the share of the device's
peak (mfu) by the network's own arithmetic, and the device's memory at most
since the process started, where it tells. "torch compile" is the paper's
network in PyTorch (channels last, autocast) beside it, where PyTorch is
installed, without augmentation. The most telling lines come first, and nothing
is begun that takes longer than what is left. --tiny shows on a CPU that all of
it works.
"""

import dataclasses
import itertools
import json
import subprocess
import sys
import time

import bench_train
import jax
import numpy as np
from ml_collections import ConfigDict

from configs import default
from dicexmbd_jax import predict
from dicexmbd_jax.model import unet
from dicexmbd_jax.train import chips, loop, metrics, sharding
from dicexmbd_jax.train import program as program_lib


@dataclasses.dataclass(frozen=True)
class Scope:
  """What is measured, the most telling values first."""

  widths: tuple[int, ...] = (64, 16)
  dtypes: tuple[str, ...] = ("bfloat16", "float32")
  batch_sizes: tuple[int, ...] = (16, 4, 64)
  crop_px: int = 512
  image_px: int = 2000
  num_steps: int = 10


TINY = Scope((2,), ("bfloat16", "float32"), (2,), 16, 64, 2)


class Clock:
  """What is left of the time, by how long the last measurement took."""

  def __init__(self, seconds: float):
    self._end_s = time.perf_counter() + seconds
    self._longest_s = 0.0

  def run(self, measure, **values) -> None:
    """Measures and prints one line, if there is time for it."""
    start_s = time.perf_counter()
    if start_s + self._longest_s > self._end_s:
      found = {"skipped": "no time left"}
    else:
      try:
        found = measure(**values)
      except Exception as error:  # Out of memory: the next may be smaller.
        found = {"failed": (str(error).splitlines() or [""])[0][:200]}
      self._longest_s = max(self._longest_s, time.perf_counter() - start_s)
    report(**values, **found)


def main(scope: Scope, seconds: float) -> None:
  """Prints a line for each task."""
  clock = Clock(seconds)
  first, *others = scope.batch_sizes
  pairs = [(w, dtype) for dtype in scope.dtypes for w in scope.widths]
  for width, dtype in pairs:
    run_training(clock, scope, measure_step, "jax", width, dtype, first)
  for width, views in itertools.product(scope.widths, (1, 4)):
    clock.run(
      lambda **values: measure_prediction(scope, **values),
      what="prediction",
      library="jax",
      width=width,
      dtype=scope.dtypes[0],
      views=views,
    )
  if bench_train.torch is not None:
    for width, dtype in pairs:
      run_training(
        clock, scope, measure_torch, "torch compile", width, dtype, first
      )
  for (width, dtype), size in itertools.product(pairs, others):
    run_training(clock, scope, measure_step, "jax", width, dtype, size)


def run_training(clock, scope, measure, library, width, dtype, batch_size):
  """Prints the line of one training step."""
  clock.run(
    lambda **values: measure(scope, **values),
    what="training",
    library=library,
    width=width,
    dtype=dtype,
    batch_size=batch_size,
  )


def measure_step(scope, *, width, dtype, batch_size, **unused):
  """Returns the numbers of a training step."""
  config = default.get_config()
  config.model.update({"width": width, "dtype": dtype, "in_channels": 3})
  config.model.depth = 4 if scope.crop_px >= 64 else 1
  config.train.update({"batch_size": batch_size, "crop_px": scope.crop_px})
  model = unet.build_model(config.model)
  program = program_lib.make_program(model, config, jax.devices()[:1])
  batch = sharding.place_batch(
    draw_batch(batch_size, scope.crop_px), program.mesh
  )
  state = program.make_state()
  start_s = time.perf_counter()
  state, found = program.take_step(state, batch)
  jax.block_until_ready(found)
  compile_s = time.perf_counter() - start_s
  start_s = time.perf_counter()
  for _ in range(scope.num_steps):
    state, found = program.take_step(state, batch)
  jax.block_until_ready(found)
  seconds = (time.perf_counter() - start_s) / scope.num_steps
  edges = scope.crop_px, scope.crop_px
  flops = 3 * batch_size * metrics.count_flops(config.model, *edges)
  return {
    "s_per_step": seconds,
    "images_per_s": batch_size / seconds,
    "compile_s": compile_s,
    **share_of_peak(flops / seconds, dtype),
    **tell_memory(),
  }


def draw_batch(batch_size, edge_px):
  """Returns a batch as the input pipeline gives it."""
  rng = np.random.default_rng(0)
  shape = batch_size, edge_px, edge_px
  batch = {
    "image": rng.uniform(0, 255, (*shape, 2)).astype(np.float32),
    "target": rng.integers(0, 65536, (*shape, 3)).astype(np.uint16),
    "valid": np.ones((*shape, 1), np.uint8),
    "known": np.ones((*shape, 3), np.uint8),
    "is_real": np.ones(batch_size, bool),
  }
  assert tuple(batch) == loop.FIELDS
  return batch


def measure_torch(scope, *, width, dtype, batch_size, **unused):
  """Returns the numbers of PyTorch's step."""
  calls = bench_train.make_torch(
    width,
    dtype,
    scope.crop_px,
    bench_train.torch.channels_last,
    is_compiled=True,
    num_images=batch_size,
  )
  calls["training"]()
  start_s = time.perf_counter()
  for _ in range(scope.num_steps):
    calls["training"]()
  seconds = (time.perf_counter() - start_s) / scope.num_steps
  config = ConfigDict({"width": width, "depth": 4, "in_channels": 3})
  flops = metrics.count_flops(config, scope.crop_px, scope.crop_px)
  return {
    "s_per_step": seconds,
    "images_per_s": batch_size / seconds,
    **share_of_peak(3 * batch_size * flops / seconds, dtype),
  }


def measure_prediction(scope, *, width, dtype, views, **unused):
  """Returns the seconds that a megapixel takes."""
  config = {"width": width, "depth": 4, "in_channels": 3, "dtype": dtype}
  model = unet.build_model(ConfigDict(config))
  section = ConfigDict({"tile_px": 0, "batch_size": 8, "views": views})
  edge_px = scope.image_px
  image = np.zeros((edge_px, edge_px, 2), np.float32)

  def run(number):
    images = [(key, image) for key in range(number)]
    for _ in predict.predict_images(images, model, section):
      pass

  run(1)  # Compiles.
  start_s = time.perf_counter()
  run(scope.num_steps)
  seconds = (time.perf_counter() - start_s) / scope.num_steps
  return {"s_per_megapixel": seconds / edge_px**2 * 1e6} | tell_memory()


def share_of_peak(flops_per_s, dtype):
  """Returns TFLOP/s, and their share of the peak where it is known."""
  peak = chips.peak_flops(jax.devices()[0].device_kind, dtype)
  found = {"tflops": flops_per_s / 1e12}
  return found | ({"mfu": flops_per_s / peak} if peak else {})


def tell_memory():
  """Returns the device's memory at most, GB, where it tells."""
  stats = jax.devices()[0].memory_stats() or {}
  peak = stats.get("peak_bytes_in_use")
  return {} if peak is None else {"peak_memory_gb": peak / 1e9}


def report(**values):
  """Prints a line, with the device and what code was measured."""
  commit = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
  ).stdout.strip()
  values = {
    name: float(f"{value:.4g}") if isinstance(value, float) else value
    for name, value in values.items()
  }
  device = jax.devices()[0].device_kind
  print(json.dumps(values | {"device": device, "commit": commit}), flush=True)


if __name__ == "__main__":
  flags = dict(
    word.lstrip("-").partition("=")[::2]
    for word in sys.argv[1:]
  )  # fmt: skip
  main(TINY if "tiny" in flags else Scope(), float(flags.get("seconds") or 480))
