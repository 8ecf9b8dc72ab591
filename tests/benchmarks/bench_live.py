"""The live teacher: time per refit and memory, two JSON lines.

    python tests/benchmarks/bench_live.py

Simulated tissue of 500 x 500 and 2,000 x 2,000 px (four times four of it), a
view of 500 x 500 px, strokes of 300 to 1,200 px. A refit is all that follows a
stroke: its features, the forest, probabilities and uncertainty of the view. The
first look at a place computes its features: `first_shown` until the first tiles
are there, `first_look` until all are; `prepare` is what the widget does before,
in the background, and `prepared_look` what is left of the first look then.
Names that end in `_cpu_s` are processor seconds of all threads, which other
work on the machine changes little. Peak memory is the process's.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

SIZES_PX, VIEW_PX, NUM_REFITS = (500, 2000), 500, 10


def main():
  for size_px in SIZES_PX:  # Each in a process of its own: peaks stay.
    words = [sys.executable, __file__, str(size_px)]
    subprocess.run(words, check=True)


def measure(size_px):
  from dicexmbd_jax.teach import live

  planes, classes = make_tissue(size_px)
  engine = live.LiveTeacher()
  generator = np.random.default_rng(0)
  strokes = np.zeros(planes.shape[:2], np.int32)
  part = (slice(0, VIEW_PX), slice(0, VIEW_PX))
  refit(engine, planes, paint(strokes, classes, generator, part), part)
  engine.forget("a")  # Once for numba's compiler.
  engine.learn("a", planes, strokes)
  engine.fit()
  line = {
    "what": "live teacher, view of 500 x 500 px, two channels",
    "size_px": size_px,
    "trees": live.NUM_TREES,
  }
  other = part
  if size_px > VIEW_PX:
    other = (slice(1000, 1000 + VIEW_PX), slice(1100, 1100 + VIEW_PX))
  line |= time_look(engine, planes, other)
  engine.forget("b")
  clock = Clock()
  while engine.prepare("b", planes, other):
    pass
  line |= clock.tell("prepare")
  clock = Clock()
  engine.classify("b", planes, other)
  line |= clock.tell("prepared_look")
  found = []
  for _ in range(NUM_REFITS):
    paint(strokes, classes, generator, part)
    clock = Clock()
    refit(engine, planes, strokes, part)
    found.append(clock.tell("refit"))
  for name in found[0]:
    line[name] = round(float(np.median([one[name] for one in found])), 2)
  line |= {
    "slowest_refit_s": max(one["refit_s"] for one in found),
    "strokes_px": int((strokes > 0).sum()),
    "features_gb": round(engine.num_bytes / 1e9, 2),
  }
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print(json.dumps(line | {"peak_gb": round(peak / 1e6, 2)}))


class Clock:
  """Seconds, and processor seconds of the process, from now on."""

  def __init__(self):
    self._start = time.perf_counter(), time.process_time()

  def tell(self, name):
    now = time.perf_counter(), time.process_time()
    spent = [round(b - a, 2) for a, b in zip(self._start, now, strict=True)]
    return {f"{name}_s": spent[0], f"{name}_cpu_s": spent[1]}


def time_look(engine, planes, part):
  """Times the first look at a place of an image without any features."""
  clock, line = Clock(), {}
  for _ in engine.look("b", planes, part):
    line = line or clock.tell("first_shown")
  return line | clock.tell("first_look")


def refit(engine, planes, strokes, part):
  engine.learn("a", planes, strokes)
  engine.fit()
  return engine.classify("a", planes, part)


def make_tissue(size_px):
  """Blobs: nuclei, a rim around them, and what is between."""
  from scipy import ndimage

  generator = np.random.default_rng(0)
  noise = ndimage.gaussian_filter(generator.random((500, 500)), 4)
  level = (noise - noise.min()) / np.ptp(noise)
  classes = np.select([level > 0.6, level > 0.5], [1, 2], 3)
  rates = np.stack([20 * (classes == 1) + 1, 12 * (classes == 2) + 1], -1)
  counts = generator.poisson(rates).astype(np.float32)
  times = -(-size_px // 500)
  shape = (times, times)
  return np.tile(counts, (*shape, 1)), np.tile(classes, shape)


def paint(strokes, classes, generator, part):
  """Adds a stroke of about 30 px of each class, in place."""
  for k in (1, 2, 3):
    places = np.flatnonzero(classes[part] == k)
    chosen = generator.choice(places, 30, replace=False)
    rows, columns = np.unravel_index(chosen, classes[part].shape)
    strokes[part][rows, columns] = k
  return strokes


if __name__ == "__main__":
  measure(int(sys.argv[1])) if len(sys.argv) > 1 else main()
