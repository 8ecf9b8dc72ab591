"""Speed of the masks beside CellProfiler's own library, one line per map.

  python tests/benchmarks/bench_masks.py [REPEATS] [MAP.tiff ...]

Both sides run in this process, on one thread, in turns; times are medians of
processor time. `steps` lines time what CellProfiler's library does
(fill_labeled_holes, is_local_maximum, binary_shrink, propagate) and the same
steps here, on the same inputs. `pipeline` lines time maps to masks as a whole,
the other side with SciPy and scikit-image for what is not in the library.
`work` lines say what the search for the cheapest paths cannot do without.
Masks must be identical. Needs the real data; no line without them.

With maps, as `predict` writes them to probabilities/, one line each with the
milliseconds that every preset takes from maps to masks, and no other side.
"""

import functools
import json
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tifffile
from centrosome import cpmorphology, propagate
from scipy import ndimage

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import cellprofiler
from conftest import REAL_DATA

from dicexmbd_jax.masks import holes, peaks
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.propagate import grow_cells
from dicexmbd_jax.masks.segment import segment_image
from dicexmbd_jax.masks.settings import PRESETS

SETTINGS = PRESETS["dice_xmbd"]
DISK = cpmorphology.strel_disk(8 / 1.5 - 0.5)


def main(repeats: int, maps: list[str]) -> None:
  for path in maps:
    time_presets(pathlib.Path(path), repeats)
  if maps:
    return
  folder = REAL_DATA / "brca2_reference" / "probabilities"
  for path in sorted(folder.glob("*.tiff")):
    pixels = tifffile.imread(path)
    inputs = prepare_inputs(pixels)
    for name, theirs, ours in list_steps(pixels, inputs):
      measure(path.stem[-12:], name, theirs, ours, repeats)
    report(what="work", map=path.stem[-12:], **count_work(inputs))


def time_presets(path, repeats):
  """Times every preset on one map, in turns."""
  pixels = tifffile.imread(path)
  times = {preset: [] for preset in PRESETS}
  for turn in range(repeats + 1):
    for preset, spent in times.items():
      call = functools.partial(segment_image, pixels, {"preset": preset})
      seconds = time_call(call)
      if turn:  # The first one may have compiled.
        spent.append(seconds * 1e3)
  medians = {name: round(statistics.median(t), 1) for name, t in times.items()}
  report(map=path.stem, shape=pixels.shape[:2], **medians)


def prepare_inputs(pixels) -> dict[str, np.ndarray]:
  """Runs CellProfiler's pipeline once and keeps what goes into its steps."""
  maps = cellprofiler.enlarge(pixels / 65535)
  smooth = np.clip(cellprofiler.smooth_gaussian(maps[..., 0], 4 / 2.35), 0, 1)
  mask = smooth >= min(1.2 * cellprofiler.threshold_li(smooth), 1)
  filled = holes.fill_small_holes(mask, 144.0)
  groups = ndimage.label(filled, cellprofiler.EIGHT)[0]
  blurred = cellprofiler.smooth_for_maxima(smooth, 2.35 * 8 / 3.5)
  found = cellprofiler.find_nuclei(smooth)
  _, seeds = cellprofiler.select_nuclei(found, False)
  foreground = np.clip(maps[..., 0] + maps[..., 1], 0, 1)
  limit = cellprofiler.threshold_li(foreground)
  where = cellprofiler.smooth_gaussian(foreground, 1) >= limit
  cells, distances = propagate.propagate(foreground, seeds, where, 0.05)
  return {
    "mask": mask,
    "groups": groups,
    "blurred": blurred,
    "peaks": peaks.find_peaks(blurred, groups, peaks.list_disk(8 / 1.5 - 0.5)),
    "nuclei": found.astype(np.int32),
    "foreground": foreground,
    "seeds": seeds.astype(np.int32),
    "where": where,
    "cells": cells,
    "distances": distances,
  }


def list_steps(pixels, inputs):
  """Yields name, CellProfiler's call and ours, of each step and of all."""
  maps = WorkingMaps(pixels, SETTINGS)
  maps.read_foreground(next(maps.cut_parts()))  # Kept from here on.
  disk = peaks.list_disk(8 / 1.5 - 0.5)
  steps = {
    "fill small holes": (
      lambda: cpmorphology.fill_labeled_holes(
        inputs["mask"], size_fn=lambda size, is_foreground: size < 144
      ),
      lambda: holes.fill_small_holes(inputs["mask"], 144.0),
    ),
    "is_local_maximum": (
      lambda: cpmorphology.is_local_maximum(
        inputs["blurred"], inputs["groups"], DISK
      ),
      lambda: peaks.find_peaks(inputs["blurred"], inputs["groups"], disk),
    ),
    "binary_shrink": (
      lambda: cpmorphology.binary_shrink(inputs["peaks"]),
      lambda: peaks.shrink_peaks(inputs["peaks"]),
    ),
    "fill holes in nuclei": (
      lambda: cpmorphology.fill_labeled_holes(inputs["nuclei"]),
      lambda: holes.fill_object_holes(inputs["nuclei"]),
    ),
    "propagate": (
      lambda: propagate.propagate(
        inputs["foreground"], inputs["seeds"], inputs["where"], 0.05
      )[0],
      lambda: grow_cells(maps, inputs["seeds"], inputs["where"], SETTINGS),
    ),
    "fill holes in cells": (
      lambda: cpmorphology.fill_labeled_holes(inputs["cells"]),
      lambda: holes.fill_object_holes(inputs["cells"]),
    ),
  }
  for name, (theirs, ours) in steps.items():
    yield name, theirs, ours
  yield (
    "steps",
    lambda: [theirs() for theirs, _ in steps.values()],
    lambda: [ours() for _, ours in steps.values()],
  )
  yield (
    "pipeline",
    lambda: cellprofiler.halve(cellprofiler.segment(pixels / 65535)[1]),
    lambda: segment_image(pixels, {"preset": "dice_xmbd"}).cells,
  )


def measure(name, what, theirs, ours, repeats):
  """Times both sides in turns and compares what they return."""
  is_equal = all(map(np.array_equal, *map(as_list, (theirs(), ours()))))
  times = [[time_call(theirs), time_call(ours)] for _ in range(repeats)]
  other, own = (statistics.median(side) for side in zip(*times, strict=True))
  report(
    what=what,
    map=name,
    centrosome_ms=round(other * 1e3, 1),
    ours_ms=round(own * 1e3, 1),
    ratio=round(other / own, 2),
    identical=is_equal,
  )


def as_list(result):
  return result if isinstance(result, list) else [result]


def time_call(function) -> float:
  start = time.process_time()
  function()
  return time.process_time() - start


def count_work(inputs) -> dict[str, int]:
  """Counts pixels that paths visit, and steps that could make one cheaper."""
  is_visited = inputs["where"] & (inputs["distances"] >= 0)
  reached = np.where(is_visited, inputs["distances"], np.nan)
  num_steps = 0
  for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
    here = reached[: reached.shape[0] - dy, max(0, -dx) :]
    here = here[:, : reached.shape[1] - abs(dx)]
    there = reached[dy:, max(0, dx) :][:, : reached.shape[1] - abs(dx)]
    num_steps += int((here != there).sum() - np.isnan(here - there).sum())
  seeds = is_visited & (inputs["seeds"] > 0)
  return {
    "pixels": int(reached.size),
    "visited": int(is_visited.sum()),
    "seeds": int(seeds.sum()),
    "steps": num_steps,
  }


def report(**values) -> None:
  print(json.dumps(values), flush=True)


if __name__ == "__main__":
  main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, sys.argv[2:])
