"""Speed of matching and scoring masks: one JSON line per measurement.

  python tests/benchmarks/bench_match.py

`match` pairs the cells of two masks; `score` computes every score of an image.
They are compared with two other ways to find the same pairs: `naive` compares
the pixels of every pair of cells, `dense` is stardist's way (a full table of
overlaps filled pixel by pixel in compiled code, then an assignment on the full
table); its formulas are written out here, since stardist needs TensorFlow.
Masks are shaken grids of touching cells, and all ways must find the same pairs.
The last lines keep the pixels and change the number of cells. Times are the
best of several runs, in seconds of one core.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable

import numba
import numpy as np
from scipy import optimize, spatial

from dicexmbd_jax.scores import evaluate, match

# Edge in pixels and number of cells.
MASKS = [(250, 625), (500, 2500), (1000, 10_000), (2000, 40_000)]
MORE_CELLS = [(1000, 100), (1000, 1000), (1000, 40_000)]
MAX_DENSE, MAX_NAIVE = 10_000, 625


def main() -> None:
  for size, num_cells in MASKS + MORE_CELLS:
    predicted, reference = make_masks(size, num_cells)
    ways = {"match": match_sparse, "score": score_all}
    if num_cells <= MAX_DENSE:
      ways["dense"] = match_dense
    if num_cells <= MAX_NAIVE:
      ways["naive"] = match_naive
    found = {
      name: measure(name, way, predicted, reference, num_cells)
      for name, way in ways.items()
    }
    assert len(set(found.values())) == 1, found


def match_sparse(predicted: np.ndarray, reference: np.ndarray) -> int:
  return match.match_cells(predicted, reference).tp


def score_all(predicted: np.ndarray, reference: np.ndarray) -> int:
  scores = evaluate.evaluate_image(predicted, reference).scores
  return int(scores["tp_iou_0.50"])


def make_masks(size: int, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
  """Nearest-seed cells of a jittered grid, and the same with moved seeds."""
  rng = np.random.default_rng(0)
  edge = round(num_cells**0.5)
  grid = (np.indices((edge, edge)).reshape(2, -1).T + 0.5) * size / edge
  pixels = np.indices((size, size)).reshape(2, -1).T
  masks = []
  for shake in (0.2, 0.3):
    seeds = grid + rng.normal(0, shake * size / edge, grid.shape)
    distance, nearest = spatial.cKDTree(seeds).query(pixels)
    labels = np.where(distance < 0.8 * size / edge, nearest + 1, 0)
    masks.append(labels.reshape(size, size).astype(np.int32))
  return masks[0], masks[1]


def match_naive(predicted: np.ndarray, reference: np.ndarray) -> int:
  ours, theirs = np.unique(predicted)[1:], np.unique(reference)[1:]
  table = np.zeros((len(theirs), len(ours)))
  for i, a in enumerate(theirs):
    one = reference == a
    for j, b in enumerate(ours):
      other = predicted == b
      both = np.count_nonzero(one & other)
      if both:
        table[i, j] = both / np.count_nonzero(one | other)
  return assign(table)


def match_dense(predicted: np.ndarray, reference: np.ndarray) -> int:
  _, ours = np.unique(predicted, return_inverse=True)
  _, theirs = np.unique(reference, return_inverse=True)
  table = fill_table(theirs.ravel(), ours.ravel())
  rows, columns = table.sum(axis=1, keepdims=True), table.sum(axis=0)
  return assign((table / (rows + columns - table))[1:, 1:])


@numba.njit
def fill_table(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  table = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
  for i in range(len(rows)):
    table[rows[i], columns[i]] += 1
  return table


def assign(table: np.ndarray) -> int:
  costs = -(table >= 0.5).astype(float) - table / (2 * min(table.shape))
  return int((table[optimize.linear_sum_assignment(costs)] >= 0.5).sum())


def measure(
  name: str,
  function: Callable,
  predicted: np.ndarray,
  reference: np.ndarray,
  num_cells: int,
) -> int:
  """Times one way, prints its line and returns the number of pairs."""
  if name == "dense":
    function(predicted[:9, :9], reference[:9, :9])  # Compiles.
  times = []
  for _ in range(1 if name in ("dense", "naive") else 5):
    start = time.process_time()
    result = function(predicted, reference)
    times.append(time.process_time() - start)
  report(
    what=name,
    size_px=len(reference),
    cells=num_cells,
    touching_pairs=len(match.overlap(predicted, reference).predicted),
    seconds=round(min(times), 5),
    megapixels_per_s=round(reference.size / min(times) / 1e6, 2),
  )
  return result


def report(**values) -> None:
  commit = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
  ).stdout.strip()
  device = f"{platform.processor() or platform.machine()} x {os.cpu_count()}"
  print(json.dumps({**values, "device": device, "commit": commit}), flush=True)


if __name__ == "__main__":
  main()
