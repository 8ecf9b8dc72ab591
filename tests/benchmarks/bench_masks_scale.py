"""Time and memory of masks by image size: one JSON line per size.

  python tests/benchmarks/bench_masks_scale.py [MEGAPIXELS ...]

Published maps, mirrored and tiled to a square of the size, are segmented with
the default preset in a process of their own, on one thread. Memory is the
process' greatest resident set beyond what it held with the maps (uint16, 6
bytes per pixel) in memory. Needs the real data.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIZES = ["0.25", "1", "4", "16", "64"]


def main(sizes: list[str]) -> None:
  for size in sizes:
    command = [sys.executable, __file__, "--one", size]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=env)


def measure(megapixels: float) -> None:
  sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
  from dicexmbd_jax.masks.segment import segment_image

  pixels = make_maps(round((megapixels * 2**20) ** 0.5))
  segment_image(pixels[:100, :100].copy(), {})  # Compiles, or loads the cache.
  held_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  start_s = time.perf_counter()
  start_cpu_s = time.process_time()
  result = segment_image(pixels, {})
  seconds = time.perf_counter() - start_s
  peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  values = {
    "what": "scale",
    "megapixels": pixels.shape[0] * pixels.shape[1] / 2**20,
    "cells": len(result.is_border),
    "seconds": round(seconds, 2),
    "cpu_seconds_per_megapixel": round(
      (time.process_time() - start_cpu_s) / megapixels, 3
    ),
    "peak_mb": round(peak_kb / 1024),
    "extra_mb_per_megapixel": round((peak_kb - held_kb) / 1024 / megapixels),
  }
  print(json.dumps(values), flush=True)


def make_maps(edge_px: int):
  import numpy as np
  import tifffile
  from conftest import REAL_DATA

  folder = REAL_DATA / "brca2_reference" / "probabilities"
  tiles = [tifffile.imread(path) for path in sorted(folder.glob("*.tiff"))]
  maps = np.empty((edge_px, edge_px, 3), np.uint16)
  size = tiles[0].shape[0]
  for row, top in enumerate(range(0, edge_px, size)):
    for column, left in enumerate(range(0, edge_px, size)):
      # Mirrored, so that neighbours meet without a step.
      tile = tiles[(row + 2 * column) % len(tiles)]
      tile = tile[:: 1 - 2 * (row % 2), :: 1 - 2 * (column % 2)]
      part = maps[top : top + size, left : left + size]
      part[...] = tile[: part.shape[0], : part.shape[1]]
  return maps


if __name__ == "__main__":
  if "--one" in sys.argv:
    measure(float(sys.argv[-1]))
  else:
    main(sys.argv[1:] or SIZES)
