"""Time and memory of writing cells.h5ad: one JSON line per number of images.

  python tests/benchmarks/bench_cells.py [NUM_IMAGES,...]

Images of 4,000 cells, 40 channels and six neighbours a cell, without masks.
`program_mb` is the largest resident set before, `peak_mb` that after.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time

import h5py
import imagecodecs
import numpy as np

from dicexmbd_jax.io import h5ad

NUM_CELLS = 4000
NUM_NEIGHBORS = 6


def main(nums_images: list[int]) -> None:
  assert h5py and imagecodecs  # Loaded before memory is looked at.
  image = make_image()
  for num_images in nums_images:
    rows = [
      {
        "image": f"ROI{number:05d}.tiff",
        "width_px": 500,
        "height_px": 500,
        "source_file": f"slide{number // 10}.mcd",
        "num_cells": NUM_CELLS,
      }
      for number in range(num_images)
    ]
    before = measure_peak_mb()
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / "cells.h5ad"
      h5ad.write_cells(path, rows, (image for _ in rows))
      size = path.stat().st_size
    values = {
      "images": num_images,
      "cells": num_images * NUM_CELLS,
      "processor_ms_per_image": (time.process_time() - started)
      / num_images
      * 1e3,
      "program_mb": before,
      "peak_mb": measure_peak_mb(),
      "file_mb": size / 1e6,
    }
    print(json.dumps({key: round(one, 1) for key, one in values.items()}))


def make_image() -> h5ad.ImageCells:
  rng = np.random.default_rng(0)
  others = rng.integers(0, NUM_CELLS, (NUM_CELLS, NUM_NEIGHBORS), np.int32)
  counts = rng.poisson(3, (NUM_CELLS, 40)) / rng.integers(
    30, 60, (NUM_CELLS, 1)
  )
  ids = np.arange(1, NUM_CELLS + 1)
  return h5ad.ImageCells(
    markers=tuple(f"marker {k}" for k in range(40)),
    counts=counts.astype(np.float32),
    regions={
      "Object": ids,
      "area": rng.integers(20, 90, NUM_CELLS).astype(float),
      "centroid-0": 500 * rng.random(NUM_CELLS),
      "centroid-1": 500 * rng.random(NUM_CELLS),
    },
    rows=np.repeat(np.arange(NUM_CELLS, dtype=np.int32), NUM_NEIGHBORS),
    columns=np.sort(others, axis=1).ravel(),
    distances=np.full(others.size, np.nan, np.float32),
  )


def measure_peak_mb() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
  main(
    [int(n) for n in sys.argv[1].split(",")] if sys.argv[1:] else [100, 1000]
  )
