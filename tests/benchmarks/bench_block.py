"""Half of a convolution block, compiled for a TPU that is not there.

    python tests/benchmarks/bench_block.py [TOPOLOGY] [ROWS]

e.g. v5e:2x2 plain,whole,folded,masked (all): 3x3 convolution, BatchNorm and
ReLU, forward and backward, 4 images of 512 x 512 px and 64 channels in bfloat16
on one chip. Needs the extra tpu. One JSON line each: what, million cycles that
the compiler estimates (no stopwatch's), GB of traffic, share of the cycles in
operations that are copies or pads.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout

from dicexmbd_jax.model import batch_norm, convolution, fold
from dicexmbd_jax.train import hlo, program, topology

NUM, EDGE_PX, WIDTH = 4, 512, 64
# Columns folded into one, whether masked, what the compiler is told.
ROWS = {
  "plain": (1, False, {}),
  "whole": (1, False, program.TPU_OPTIONS),
  "folded": (2, False, program.TPU_OPTIONS),
  "masked": (2, True, program.TPU_OPTIONS),
}


def take_step(num_folded, x, kernel, scale, bias, valid, grad):
  """Returns the result and all gradients."""

  def compute(x, kernel, scale, bias):
    kernel = fold.fold_window(kernel.astype(x.dtype), num_folded)
    x = convolution.convolve_3x3(x, kernel)
    return batch_norm.normalise(1e-5, x, scale, bias, valid)[0]

  result, differentiate = jax.vjp(compute, x, kernel, scale, bias)
  return result, differentiate(grad)


def describe(device, num_folded, is_masked, options):
  """Returns the numbers of one row."""
  columns = NUM, EDGE_PX, EDGE_PX // num_folded
  image = jax.ShapeDtypeStruct((*columns, num_folded * WIDTH), jnp.bfloat16)
  exact = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  valid = exact((*columns, num_folded)) if is_masked else None
  kernel = exact((3, 3, WIDTH, WIDTH))
  # As inside a network: the compiler chooses how arrays lie.
  place = Format(Layout.AUTO, jax.sharding.SingleDeviceSharding(device))
  step = jax.jit(
    functools.partial(take_step, num_folded),
    in_shardings=place,
    out_shardings=place,
  )
  lowered = step.lower(
    *(image, kernel, exact((WIDTH,)), exact((WIDTH,)), valid, image)
  )
  text = lowered.compile(compiler_options=options).as_text()
  operations = hlo.read_operations(text)
  cycles = sum(one.cycles for one in operations)
  copied = sum(one.cycles for one in operations if one.kind in ("copy", "pad"))
  return {
    "million_cycles": round(cycles / 1e6, 2),
    "traffic_gb": round(sum(one.num_bytes for one in operations) / 1e9, 2),
    "copied": round(copied / cycles, 3),
  }


def main(name="v5e:2x2", rows="plain,whole,folded,masked"):
  """Prints a line for each row."""
  topology.start_compiler()
  device = topology.list_devices(name)[0]
  for row in rows.split(","):
    found = describe(device, *ROWS[row])
    print(json.dumps({"what": row} | found), flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
