"""Speed of prediction: one JSON line per measurement.

  python tests/benchmarks/bench_predict.py [WIDTH]

`tiles` lines time the network alone: pixels of tiles per second, and how far
its arithmetic is from that of a plain matrix product. `images` lines time
whole images through predict_images, tiles chosen by it, host work and unused
tile area included.
Times are the best of several runs; compilation is not in them.
"""

import itertools
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax import predict
from dicexmbd_jax.model.unet import UNet, transform_kernels

DEPTH = 4
TILES = [(512, 1), (512, 4), (608, 1), (1024, 1)]
IMAGES = [(500, 4), (1000, 2)]
VIEWS = [1, 4]


def main(width: int) -> None:
  peak = measure_matrix_product()
  report(what="matrix product", size=1024, gflops_per_s=peak)
  model = make_model(width)
  for tile_px, batch_size in TILES:
    measure_tiles(model, width, tile_px, batch_size, peak)
  for (size, count), views in itertools.product(IMAGES, VIEWS):
    measure_images(model, width, size, count, views)


def make_model(width: int) -> UNet:
  """A network with constant weights: the values do not change the speed."""
  graph, state = nnx.split(
    nnx.eval_shape(lambda: UNet(width, DEPTH, 2, rngs=nnx.Rngs(0)))
  )
  fill = lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype)  # noqa: E731
  return nnx.merge(graph, jax.tree.map(fill, state))


def measure_matrix_product() -> float:
  matrix = jnp.ones((1024, 1024))
  multiply = jax.jit(jnp.dot)
  seconds = find_best(lambda: multiply(matrix, matrix).block_until_ready(), 9)
  return 2 * 1024**3 / seconds / 1e9


def measure_tiles(
  model: UNet, width: int, tile_px: int, batch_size: int, peak: float
) -> None:
  graph, state = nnx.split(transform_kernels(model))  # As predict does.
  pixels = jnp.zeros((batch_size, tile_px, tile_px, 2))
  valid = jnp.ones((batch_size, tile_px, tile_px, 1), bool)
  arguments = (graph, state, pixels, valid)
  cost = predict.predict_tiles.lower(*arguments).compile().cost_analysis()
  seconds = find_best(
    lambda: predict.predict_tiles(*arguments).block_until_ready()
  )
  report(
    what="tiles",
    width=width,
    tile_px=tile_px,
    batch_size=batch_size,
    megapixels_per_s=pixels[..., 0].size / seconds / 1e6,
    kiloflops_per_pixel=cost["flops"] / pixels[..., 0].size / 1e3,
    share_of_matrix_product=cost["flops"] / seconds / 1e9 / peak,
  )


def measure_images(
  model: UNet, width: int, size: int, count: int, views: int
) -> None:
  config = ConfigDict({"tile_px": 0, "batch_size": 1, "views": views})
  image = np.zeros((size, size, 2), np.float32)
  images = [(key, image) for key in range(count)]

  def predict_all():
    for _ in predict.predict_images(images, model, config):
      pass

  seconds = find_best(predict_all) / count
  report(
    what="images",
    width=width,
    size=size,
    views=views,
    s_per_image=seconds,
    megapixels_per_s=size**2 / seconds / 1e6,
  )


def find_best(run, num_runs: int = 4) -> float:
  """Returns the shortest time in s of some runs after one to warm up."""
  run()
  times = []
  for _ in range(num_runs):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return min(times)


def report(**values) -> None:
  commit = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
  ).stdout.strip()
  values = {
    key: round(value, 4) if isinstance(value, float) else value
    for key, value in values.items()
  }
  device = f"{jax.devices()[0].device_kind} x {jax.device_count()}"
  print(json.dumps({**values, "device": device, "commit": commit}), flush=True)


if __name__ == "__main__":
  main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
