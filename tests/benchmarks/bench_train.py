"""Training and inference beside PyTorch: images per second, one device.

    python tests/benchmarks/bench_train.py [WIDTH] [DTYPE] [ROUNDS] [EDGES]

e.g. 16 float32 3 512,1024. All run in this process, in turns; medians. "jax
stock" is our network with XLA's own gradients of max-pooling, transposed
convolution and convolution kernels. Without PyTorch the lines of JAX are
printed alone. One JSON line each: what, library, width, dtype, edge in px,
seconds per image, images per second, TFLOP/s, and the share of the device's
peak: its maker's number or, where there is none, the rate of a large matrix
product measured here.
"""

import contextlib
import functools
import json
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax import allocator
from dicexmbd_jax.model import convolution, unet
from dicexmbd_jax.train import chips, losses, metrics

try:
  import torch

  sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
  import make_torch_reference
except ImportError:
  torch = None

LOSS = ConfigDict({"class_weights": (1.0, 1.0, 1.0), "dice_weight": 0.0})


def make_jax(width, dtype, edge_px):
  """Returns {"inference": call, "training": call} of our network."""
  config = {"width": width, "depth": 4, "in_channels": 3, "dtype": dtype}
  model = unet.build_model(ConfigDict(config))
  graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  tx = optax.adam(3e-4)
  image = jnp.asarray(make_image(edge_px))
  target = jax.nn.one_hot(jnp.zeros(image.shape[:3], int), 3)
  valid = jnp.ones((*image.shape[:3], 1))

  @jax.jit
  def infer(params, stats, image):
    model = nnx.merge(graph, params, stats)
    model.eval()
    return jax.nn.sigmoid(model(image))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state):
    params, stats, optimizer = state

    def compute_loss(params):
      model = nnx.merge(graph, params, stats, copy=True)
      model.train()
      loss = losses.compute_loss(model(image, valid), target, valid, LOSS)
      return loss, nnx.state(model, nnx.BatchStat)

    grads, new_stats = jax.grad(compute_loss, has_aux=True)(params)
    updates, optimizer = tx.update(grads, optimizer, params)
    return optax.apply_updates(params, updates), new_stats, optimizer

  copies = jax.tree.map(jnp.copy, (params, stats))
  held = [(*copies, tx.init(params))]

  def train():
    held[0] = jax.block_until_ready(step(held[0]))

  return {
    "inference": lambda: jax.block_until_ready(infer(params, stats, image)),
    "training": train,
  }


def make_stock_jax(width, dtype, edge_px):
  """Returns the calls of our network with XLA's own gradients."""

  def call_stock(name):
    with stock_gradients():  # What counts is what the first call compiles.
      calls[name]()

  calls = make_jax(width, dtype, edge_px)
  return {name: functools.partial(call_stock, name) for name in calls}


@contextlib.contextmanager
def stock_gradients():
  """Puts the stock operations in the place of ours."""

  def transpose_stock(self, x, valid=None, num_folded=1):
    del num_folded  # Of devices with wide lanes; all else is 1.
    kernel = self.kernel[...].astype(self.dtype).transpose(1, 2, 0, 3)
    x = jax.lax.conv_transpose(
      x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = x + self.bias[...].astype(self.dtype)
    return unet.mask_outside(x, valid)

  def convolve_stock(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  kept = unet.pool, unet.UpConv.__call__, convolution.convolve_3x3
  unet.pool = lambda x, num_folded=1: nnx.max_pool(x, (2, 2), (2, 2))
  unet.UpConv.__call__ = transpose_stock
  convolution.convolve_3x3 = convolve_stock
  yield
  unet.pool, unet.UpConv.__call__, convolution.convolve_3x3 = kept


def make_torch(
  width, dtype, edge_px, memory_format, is_compiled=False, num_images=1
):
  """Returns the same calls of PyTorch's network."""
  device = "cuda" if torch.cuda.is_available() else "cpu"
  options = {"memory_format": memory_format}
  net = make_torch_reference.make_network(width).to(device, **options)
  if is_compiled:
    net = torch.compile(net)
  image = torch.from_numpy(make_image(edge_px, num_images)).permute(0, 3, 1, 2)
  image = image.to(device).contiguous(**options)
  target = torch.zeros_like(image)
  optimizer = torch.optim.Adam(net.parameters(), 3e-4)
  cast = functools.partial(
    torch.autocast, device, torch.bfloat16, enabled=dtype == "bfloat16"
  )

  def wait():
    if device == "cuda":
      torch.cuda.synchronize()

  def infer():
    net.eval()
    with torch.inference_mode(), cast():
      torch.sigmoid(net(image))
    wait()

  def train():
    net.train()
    optimizer.zero_grad()
    with cast():
      logits = net(image)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    entropy(logits.float(), target).backward()
    optimizer.step()
    wait()

  return {"inference": infer, "training": train}


def make_image(edge_px, number=1):
  """Returns random images, float32 (number, edge, edge, 3)."""
  rng = np.random.default_rng(0)
  return rng.uniform(0, 255, (number, edge_px, edge_px, 3)).astype(np.float32)


def measure_peak(dtype, edge=4096):
  """Returns the FLOP/s of a product of square matrices, best of three."""
  matrix = jnp.ones((edge, edge), dtype)
  multiply = jax.jit(jnp.matmul)
  multiply(matrix, matrix).block_until_ready()
  seconds = []
  for _ in range(3):
    started = time.perf_counter()
    multiply(matrix, matrix).block_until_ready()
    seconds.append(time.perf_counter() - started)
  return 2 * edge**3 / min(seconds)


def warm_up(calls):
  """Compiles every call; returns those that work here."""
  working = {}
  for name, call in calls.items():
    try:
      call()
    except Exception as error:  # torch.compile raises what its parts raise.
      print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
    else:
      working[name] = call
  return working


def measure(calls, rounds):
  """Returns the median seconds of each call, measured in turns."""
  calls = warm_up(calls)
  seconds = {name: [] for name in calls}
  for _ in range(rounds):
    for name, call in calls.items():
      started = time.perf_counter()
      call()
      seconds[name].append(time.perf_counter() - started)
  return {name: statistics.median(values) for name, values in seconds.items()}


def main(width=16, dtype="float32", rounds=3, edges=(512, 1024)):
  """Prints a line for each library, task and size."""
  peak = chips.peak_flops(jax.devices()[0].device_kind, dtype)
  peak = peak or measure_peak(dtype)
  if torch is None:
    print("no PyTorch here: JAX alone", file=sys.stderr)
  for edge_px in edges:
    rivals = {
      "jax": make_jax(width, dtype, edge_px),
      "jax stock": make_stock_jax(width, dtype, edge_px),
    }
    if torch is not None:
      for name in ("contiguous_format", "channels_last"):
        rivals[f"torch {name}"] = make_torch(
          width, dtype, edge_px, getattr(torch, name)
        )
      rivals["torch compile"] = make_torch(
        width, dtype, edge_px, torch.channels_last, is_compiled=True
      )
    tasks = ("inference", "training") if edge_px == edges[0] else ("inference",)
    config = ConfigDict({"width": width, "depth": 4, "in_channels": 3})
    for task in tasks:
      calls = {name: rival[task] for name, rival in rivals.items()}
      flops = metrics.count_flops(config, edge_px, edge_px)
      flops *= 3 if task == "training" else 1
      for name, seconds in measure(calls, rounds).items():
        line = {
          "what": task, "library": name, "width": width, "dtype": dtype,
          "edge_px": edge_px, "s": round(seconds, 3),
          "images_per_s": round(1 / seconds, 3),
          "tflops": round(flops / seconds / 1e12, 3),
          "share_of_peak": round(flops / seconds / peak, 3),
          "device": jax.devices()[0].device_kind,
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
  allocator.keep_freed_memory()  # As the command line does.
  words = sys.argv[1:]
  kinds = (int, str, int, lambda text: [int(one) for one in text.split(",")])
  main(*(kind(word) for kind, word in zip(kinds, words, strict=False)))
