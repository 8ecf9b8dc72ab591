"""Memory of the whole `predict` by image size: one JSON line per size.

  python tests/benchmarks/bench_memory.py [EDGE_PX ...] [real] [flags of config]

Simulated tissue, mirrored and tiled, is written as an OME-TIFF of two uint16
channels, and segmented in a process of its own without further workers. The
network is a fake one, a function of the channels that costs nothing; `real`:
the shipped network, with one view.

For each stage the line has the greatest resident set (`peak_mb`) and what of it
is no mapped file (`held_mb`): the system may drop the pages of files when
memory runs short, the rest it may not. `per_px` are bytes beyond what the
process held before it read the image.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

EVERY_S = 0.005
TILE_PX = 500
STAGES = {
  "read": ("dicexmbd_jax.chain", "read_record"),
  "merge": ("dicexmbd_jax.chain", "merge_record"),
  "magnify": ("dicexmbd_jax.chain", "set_magnification"),
  "segment": ("dicexmbd_jax.chain", "segment_record"),
  "measure": ("dicexmbd_jax.chain", "measure_record"),
  "write": ("dicexmbd_jax.runs.results", "write_image"),
}


def main(edges: list[int], words: list[str]) -> None:
  for edge_px in edges:
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      subprocess.run(
        [sys.executable, __file__, "--make", str(edge_px), str(folder)],
        check=True,
      )
      print(json.dumps(watch(folder, edge_px, words)), flush=True)


def watch(folder: pathlib.Path, edge_px: int, words: list[str]) -> dict:
  """Runs predict on the folder's image; returns what it took."""
  started = time.monotonic()
  with subprocess.Popen(
    [sys.executable, __file__, "--run", str(folder), *words],
    stdout=subprocess.PIPE,
    text=True,
  ) as child:
    samples = []
    while child.poll() is None:
      samples.append((time.monotonic(), *read_resident(child.pid)))
      time.sleep(EVERY_S)
    lines = child.stdout.read().splitlines()
  assert child.returncode == 0
  marks = [json.loads(line) for line in lines if line.startswith("[")]
  times, resident, held = np.array(samples).T
  before = held[times < marks[0][1]].max()
  ends = [*(start for _, start in marks[1:]), np.inf]
  stages: dict[str, dict] = {}
  for (stage, start), end in zip(marks, ends, strict=True):
    inside = (times >= start) & (times < end)
    if inside.any():
      peaks = {
        "peak_mb": round(resident[inside].max() / 2**20),
        "held_mb": round(held[inside].max() / 2**20),
        "seconds": round(min(end, times[-1]) - start, 1),
      }
      stages[stage] = {
        key: max(value, stages.get(stage, {}).get(key, 0))
        for key, value in peaks.items()
      }
  return {
    "what": "memory",
    "edge_px": edge_px,
    "before_mb": round(before / 2**20),
    "peak_mb": round(resident.max() / 2**20),
    "held_mb": round(held.max() / 2**20),
    "per_px": round((resident.max() - before) / edge_px**2, 1),
    "held_per_px": round((held.max() - before) / edge_px**2, 1),
    "seconds": round(time.monotonic() - started, 1),
    "stages": stages,
  }


def read_resident(process: int) -> tuple[int, int]:
  """Returns bytes: the resident set, and what of it is no file's."""
  try:
    text = pathlib.Path(f"/proc/{process}/statm").read_text()
  except OSError:
    return 0, 0
  resident, shared = (4096 * int(word) for word in text.split()[1:3])
  return resident, resident - shared


def make_image(edge_px: int, folder: pathlib.Path) -> None:
  from dicexmbd_jax.simulate import study

  for _ in study.simulate_study(str(folder / "study"), 1, 0, TILE_PX):
    pass
  from dicexmbd_jax.io import listing, panel, write
  from dicexmbd_jax.io.images import read_image

  rows = panel.read_panel(folder / "study/panel.csv")
  (source,), _ = listing.list_stacks(str(folder / "study/img"), rows)
  loaded = read_image(source, rows)
  groups = loaded.nuclear, loaded.membrane
  tile = np.stack([loaded.stack[..., g].sum(-1) for g in groups], -1)
  around = np.arange(edge_px) % (2 * TILE_PX)
  around = np.minimum(around, 2 * TILE_PX - 1 - around)
  stack = tile[around[:, None], around]
  (folder / "img").mkdir()
  path = folder / "img/large.ome.tiff"
  write.write_stack(path, stack, ["nuclear", "membrane"])


def run(folder: pathlib.Path, words: list[str]) -> None:
  import importlib

  from absl import logging

  from dicexmbd_jax import config as config_lib
  from dicexmbd_jax import predict as predict_lib
  from dicexmbd_jax.commands import predict

  logging.set_verbosity(logging.WARNING)
  if "real" not in words:
    predict_lib.load_passes = lambda *values, **named: (fake, fake)
  for stage, (module, name) in STAGES.items():
    owner = importlib.import_module(module)
    if hasattr(owner, name):
      setattr(owner, name, mark_start(stage, getattr(owner, name)))
  values = dict(word.split("=") for word in words if "=" in word)
  values = {key: json.loads(value) for key, value in values.items()}
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  config = config_lib.resolve_config(
    config,
    None,
    {"predict.magnification": 1.0, "predict.views": 1, **values},
  )
  code = predict.run_request(
    predict.Request(
      images=str(folder / "img"),
      output=folder / "out",
      config=config,
      num_workers=0,
    )
  )
  assert code == 0


def mark_start(stage, function):
  def call(*arguments, **named):
    tell(stage)
    answer = function(*arguments, **named)
    if stage == "magnify":
      tell("network")
    if stage == "write":
      tell("report")
    return answer

  return call


def tell(stage: str) -> None:
  print(json.dumps([stage, time.monotonic()]), flush=True)


def fake(images):
  """Takes signal for probability: nuclei where it is bright."""
  from dicexmbd_jax import storage

  for key, image in images:
    maps = storage.allocate((*image.shape[:2], 3), np.float32)
    for part in storage.cut_strips(image.shape, 16):
      nuclear, membrane = (image[part, :, i] / 160 for i in (0, 1))
      maps[part, :, 0] = np.minimum(nuclear, 1)
      maps[part, :, 1] = np.minimum(membrane, 1 - maps[part, :, 0])
      maps[part, :, 2] = 1 - maps[part].sum(-1)
    yield key, maps
    del maps


if __name__ == "__main__":
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
  if sys.argv[1:2] == ["--make"]:
    make_image(int(sys.argv[2]), pathlib.Path(sys.argv[3]))
  elif sys.argv[1:2] == ["--run"]:
    run(pathlib.Path(sys.argv[2]), sys.argv[3:])
  else:
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()]
    others = [word for word in sys.argv[1:] if not word.isdigit()]
    main(sizes or [1000, 2000, 4000], others)
