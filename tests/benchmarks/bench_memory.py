"""Memory of the whole `predict` by image size: one JSON line per size.

  python tests/benchmarks/bench_memory.py [EDGE_PX ...] [real] [workers=N]
    [images=N] [channels=N] [flags of config]

Simulated tissue, mirrored, tiled and shifted, is written as OME-TIFFs of two
uint16 channels (or `channels`), and segmented in a process of its own, without
further workers or with some. The network is a fake one, a function of the
channels that costs nothing; `real`: the shipped network, with one view.

The line has the greatest resident set of all processes together (`peak_mb`) and
what of it is no mapped file (`held_mb`): the system may drop the pages of files
when memory runs short, the rest it may not; `mapped_mb` is the space that such
files took. `stack_mb` are an image's counts as float32, and `before_mb` what
the processes held before an image was read. Without workers each stage has its
own peaks.
"""

import contextlib
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

EVERY_S = 0.01
TILE_PX = 1000
BLOCK_PX = 256  # What the files are made of.
SHIFT_PX = 373  # From a row of tiles to the next.
OPTIONS = {"workers": 0, "images": 1, "channels": 2}
STAGES = {
  "read": ("dicexmbd_jax.chain", "read_record"),
  "merge": ("dicexmbd_jax.chain", "merge_record"),
  "magnify": ("dicexmbd_jax.chain", "set_magnification"),
  "segment": ("dicexmbd_jax.chain", "segment_record"),
  "measure": ("dicexmbd_jax.chain", "measure_record"),
  "write": ("dicexmbd_jax.runs.results", "write_image"),
}


def main(edges: list[int], options: dict[str, int], words: list[str]) -> None:
  for edge_px in edges:
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      subprocess.run(
        [sys.executable, __file__, "--make", *spell(options)]
        + [str(edge_px), str(folder)],
        check=True,
      )
      line = {"what": "memory", "edge_px": edge_px, **options}
      line |= watch(folder, options, words)
      line["stack_mb"] = round(4 * options["channels"] * edge_px**2 / 2**20)
      print(json.dumps(line), flush=True)


def spell(options: dict[str, int]) -> list[str]:
  return [f"{name}={value}" for name, value in options.items()]


def watch(
  folder: pathlib.Path, options: dict[str, int], words: list[str]
) -> dict:
  """Runs predict on the folder's images; returns what it took."""
  started = time.monotonic()
  with (
    (folder / "told").open("w+") as told,
    subprocess.Popen(
      [sys.executable, __file__, "--run", *spell(options), str(folder), *words],
      stdout=told,
    ) as child,
  ):
    samples = []
    mapped_mb, next_s = 0, 0.0
    while child.poll() is None:
      now = time.monotonic()
      processes = list_processes(child.pid)
      both = [read_resident(one) for one in processes]
      samples.append((now, *np.sum(both, axis=0), max(both)[0]))
      if now > next_s:
        mapped_mb = max(mapped_mb, sum(map(measure_mapped, processes)) >> 20)
        next_s = now + 0.5
      time.sleep(EVERY_S)
    told.seek(0)
    lines = told.read().splitlines()
  assert child.returncode == 0
  marks = [json.loads(line) for line in lines if line.startswith("[")]
  times, resident, held, largest = np.array(samples).T
  ends = [*(start for _, start in marks[1:]), np.inf]
  stages: dict[str, dict] = {}
  for (stage, start), end in zip(marks[1:], ends[1:], strict=True):
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
  before = times < marks[0][1]
  return {
    "before_mb": round(resident[before].max() / 2**20),
    "before_held_mb": round(held[before].max() / 2**20),
    "peak_mb": round(resident.max() / 2**20),
    "held_mb": round(held.max() / 2**20),
    "largest_process_mb": round(largest.max() / 2**20),
    "mapped_mb": mapped_mb,
    "seconds": round(time.monotonic() - started, 1),
    "processor_s": round(json.loads(lines[-1])["processor_s"], 1),
    "stages": stages,
  }


def list_processes(process: int) -> list[int]:
  """Returns a process and all that it started, these likewise."""
  found = [process]
  for one in found:
    with contextlib.suppress(OSError):
      for thread in pathlib.Path(f"/proc/{one}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
  return found


def read_resident(process: int) -> tuple[int, int]:
  """Returns bytes: the resident set, and what of it is no file's."""
  try:
    text = pathlib.Path(f"/proc/{process}/statm").read_text()
  except OSError:
    return 0, 0
  resident, shared = (4096 * int(word) for word in text.split()[1:3])
  return resident, resident - shared


def measure_mapped(process: int) -> int:
  """Returns the bytes of files without names that a process has mapped."""
  try:
    lines = pathlib.Path(f"/proc/{process}/maps").read_text().splitlines()
  except OSError:
    return 0
  spans = [
    line.split()[0].split("-") for line in lines if line.endswith("(deleted)")
  ]
  return sum(int(end, 16) - int(start, 16) for start, end in spans)


def make_images(
  edge_px: int, folder: pathlib.Path, options: dict[str, int]
) -> None:
  import tifffile

  from dicexmbd_jax.simulate import study

  for _ in study.simulate_study(str(folder / "study"), 1, 0, TILE_PX):
    pass
  from dicexmbd_jax.io import listing, panel, write
  from dicexmbd_jax.io.images import read_image

  rows = panel.read_panel(folder / "study/panel.csv")
  (source,), _ = listing.list_stacks(str(folder / "study/img"), rows)
  loaded = read_image(source, rows)
  groups = loaded.nuclear, loaded.membrane
  tile = np.stack([loaded.stack[..., g].sum(-1) for g in groups])
  tile = np.concatenate([tile, tile[:, ::-1]], 1)
  tile = np.concatenate([tile, tile[:, :, ::-1]], 2).astype(np.uint16)
  names = [f"marker{k}" for k in range(options["channels"])]
  lines = [f"{name},1,{k == 0:d},{k > 0:d}" for k, name in enumerate(names)]
  header = "name,keep,nuclear,membrane_cytoplasm"
  write.write_text(folder / "panel.csv", "\n".join([header, *lines, ""]))
  (folder / "img").mkdir()
  for image in range(options["images"]):
    tifffile.imwrite(
      folder / f"img/large{image}.ome.tiff",
      list_blocks(tile, edge_px, len(names), image),
      shape=(len(names), edge_px, edge_px),
      dtype=np.uint16,
      tile=(BLOCK_PX, BLOCK_PX),
      compression="zlib",
      compressionargs={"level": 1},
      photometric="minisblack",
      ome=True,
      metadata={"axes": "CYX", "Channel": {"Name": names}},
    )


def list_blocks(tile: np.ndarray, edge_px: int, num_channels: int, image: int):
  """Yields blocks of pixels, channel by channel, filled up at the edges."""
  size = tile.shape[-1]
  starts = range(0, edge_px, BLOCK_PX)
  for channel, top, left in itertools.product(
    range(num_channels), starts, starts
  ):
    rows = np.arange(top, top + BLOCK_PX)[:, None]
    shifts = rows // size * SHIFT_PX + 7 * (channel // 2) + 100 * image
    columns = np.arange(left, left + BLOCK_PX) + shifts
    yield tile[channel % 2, rows % size, columns % size]


def run(
  folder: pathlib.Path, options: dict[str, int], words: list[str]
) -> None:
  import importlib
  import resource

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
  request = predict.Request(
    images=str(folder / "img"),
    output=folder / "out",
    config=config,
    panel_path=folder / "panel.csv",
    num_workers=options["workers"],
  )
  tell("start")
  assert predict.run_request(request) == 0
  used = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  times = [resource.getrusage(who)[:2] for who in used]
  print(json.dumps({"processor_s": sum(map(sum, times))}))


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
  asked = [word.partition("=") for word in sys.argv[1:]]
  counts = {key: int(value) for key, _, value in asked if key in OPTIONS}
  chosen = {**OPTIONS, **counts}
  rest = [word for word in sys.argv[1:] if word.partition("=")[0] not in counts]
  if rest[:1] == ["--make"]:
    make_images(int(rest[1]), pathlib.Path(rest[2]), chosen)
  elif rest[:1] == ["--run"]:
    run(pathlib.Path(rest[1]), chosen, rest[2:])
  else:
    sizes = [int(word) for word in rest if word.isdigit()]
    others = [word for word in rest if not word.isdigit()]
    main(sizes or [1000, 2000, 4000], chosen, others)
