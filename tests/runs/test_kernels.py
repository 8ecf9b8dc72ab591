import os
import subprocess
import sys

import pytest

# Counts what each kernel was compiled for, before and after cells are found in
# maps of other sizes, with few nuclei and with many, measured and drawn.
COUNT = """
import sys
import numpy as np
from dicexmbd_jax import compiled
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.masks import confidence, measure, segment
from dicexmbd_jax.report import overlay
from dicexmbd_jax.runs import kernels

def count():
  return {
    f"{name}.{key}": len(one.signatures)
    for name, module in sorted(sys.modules.items())
    if name.startswith("dicexmbd_jax.")
    for key, one in vars(module).items()
    if hasattr(one, "signatures")
  }

config = config_lib.read_model_config(config_lib.SHIPPED_MODEL).segment
kernels.load_kernels(config, from_back=len(sys.argv) > 1)
before = count()
assert compiled.keeps_kernels()
y, x = np.mgrid[:90, :120]
bumps = (np.sin(x / 4) * np.sin(y / 4)).clip(0, 1)
maps = np.stack([bumps, 1 - bumps, 0 * bumps], -1).astype(np.float32)
for one in (maps, maps[:50].copy(), np.rint(maps * 65535).astype(np.uint16)):
  found = segment.segment_image(one, config, (70, 80))
  assert found.cells.max() > 2
  confidence.measure_doubt(one, found.cells)
planes = np.ascontiguousarray(np.moveaxis(maps[:70, :80], -1, 0))
stack = np.moveaxis(planes, 0, -1)  # As images are read.
measure.measure_intensities(stack, found.cells, "abc")
measure.measure_regions(found.cells)
measure.measure_neighbors(found.cells)
overlay.draw_overlay(maps[:70, :80, :2], found.cells, found.nuclei)
assert sum(before.values()) > 30, before
assert count() == before, {*count().items()} - {*before.items()}
"""

# Ends while a thread compiles, which in LLVM must not outlive its statics.
END = """
import threading, time
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.runs import kernels

config = config_lib.read_model_config(config_lib.SHIPPED_MODEL).segment
threading.Thread(
  target=kernels.load_kernels, args=(config,), daemon=True
).start()
time.sleep(2)
"""


def run(code, *words, **variables):
  subprocess.run(
    [sys.executable, "-c", code, *words],
    check=True,
    env={**os.environ, **variables},
  )


@pytest.mark.parametrize("words", [(), ("from back",)])
def test_noise_loads_all_kernels(words):
  run(COUNT, *words)


def test_a_process_may_end_while_it_compiles(tmp_path):
  run(END, NUMBA_CACHE_DIR=str(tmp_path))
