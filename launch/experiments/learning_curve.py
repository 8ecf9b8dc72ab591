"""How many labelled spleen ROIs `finetune` needs: a table and a picture.

usage: python launch/experiments/learning_curve.py START DATA OUT
       [--minutes=60] [--seeds=3] [--numbers=1,2,4,8]

START: a model without any spleen, as training/simulated/last of base.sh. For
each seed and number of ROIs, drawn from the nine that do not judge, F1 at IoU
0.5 on ROIs 28 and 30 of: `finetune` from START, `finetune` from random weights,
and `teach` with strokes of equal effort. Effort is counted in pixels that a
person draws: of masks their outlines, of strokes all. A row is written when its
run is done; a call that was stopped goes on.
"""

import argparse
import csv
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.edges import mark_edges
from dicexmbd_jax.io import labels
from dicexmbd_jax.scores import match

Path = pathlib.Path
TRAINED = (6, 8, 10, 14, 16, 18, 20, 22, 24)
JUDGED = (28, 30)
START, NOTHING, TEACH = "finetune", "from nothing", "teach"
COLUMNS = ("method", "num_rois", "seed", "effort_px", "f1")
HERE = Path(__file__).resolve().parent


class Curve:
  """All runs of one call."""

  def __init__(self, start: Path, data: Path, out: Path, minutes: float):
    self.start, self.spleen, self.out = start, data / "spleen_imc", out
    self.minutes = minutes
    self.table = out / "learning_curve.csv"
    out.mkdir(parents=True, exist_ok=True)

  def read_rows(self) -> list[dict[str, str]]:
    """Returns the rows that are done."""
    if not self.table.exists():
      return []
    with self.table.open(newline="") as file:
      return list(csv.DictReader(file))

  def measure(self, method: str, rois: Sequence[int], seed: int) -> None:
    """Does one run and writes its row, unless it is there."""
    words = (method, str(len(rois)), str(seed))
    if any(tuple(r[c] for c in COLUMNS[:3]) == words for r in self.read_rows()):
      return
    run = self.out / "_".join(words).replace(" ", "_")
    self.link(rois, run)
    effort_px = count_outlines(run / "masks")
    if method == TEACH:
      masks = self.teach(run, effort_px, seed)
    else:
      masks = self.finetune(run, method, seed)
    row = dict(
      zip(COLUMNS, (*words, effort_px, f"{self.score(masks):.4f}"), strict=True)
    )
    is_new = not self.table.exists()
    with self.table.open("a", newline="") as file:
      writer = csv.DictWriter(file, COLUMNS)
      if is_new:
        writer.writeheader()
      writer.writerow(row)
    print(row, flush=True)

  def link(self, rois: Sequence[int], run: Path) -> None:
    """Makes the folders of a run: what is labelled, and what judges."""
    for folder in ("img", "masks", "unseen"):
      shutil.rmtree(run / folder, ignore_errors=True)
      (run / folder).mkdir(parents=True)
    for roi in rois:
      image = f"ROI{roi:03d}"
      link(self.spleen / "img" / f"{image}.ome.tiff", run / "img")
      link(self.spleen / "masks" / f"{image}.tiff", run / "masks")
    for roi in JUDGED:
      link(self.spleen / "img" / f"ROI{roi:03d}.ome.tiff", run / "unseen")

  def finetune(self, run: Path, method: str, seed: int) -> Path:
    """Fine-tunes and predicts; returns the folder of masks."""
    start = self.start if method == START else self.make_random(seed)
    model = run / "model"
    call(
      "finetune", f"--images={run / 'img'}", f"--masks={run / 'masks'}",
      f"--panel={self.spleen / 'panel.csv'}", f"--checkpoint={start}",
      f"--output={model}", f"--minutes={self.minutes}", f"--seed={seed}",
    )  # fmt: skip
    if not (model / "config.json").exists():
      model /= "not_better"
    call(
      "predict", f"--images={run / 'unseen'}", f"--checkpoint={model}",
      f"--panel={self.spleen / 'panel.csv'}", f"--output={run / 'found'}",
      "--overwrite",
    )  # fmt: skip
    return run / "found" / "masks"

  def make_random(self, seed: int) -> Path:
    """Writes a model of random weights, otherwise as the start."""
    from dicexmbd_jax.model import unet, weights

    folder = self.out / f"random_{seed}"
    config = config_lib.read_model_config(self.start)
    weights.write_model(folder, unet.build_model(config.model, seed), config)
    return folder

  def teach(self, run: Path, effort_px: int, seed: int) -> Path:
    """Draws strokes, teaches and segments; returns the folder of masks."""
    panel = f"--panel={self.spleen / 'panel.csv'}"
    shutil.rmtree(run / "strokes", ignore_errors=True)
    subprocess.run(
      [sys.executable, HERE / "simulate_annotator.py",
       f"--reference={run / 'masks'}", f"--output={run / 'strokes'}",
       f"--budget_px={effort_px}", f"--seed={seed}"],
      check=True,
    )  # fmt: skip
    call(
      "teach fit", f"--images={run / 'img'}", panel, f"--seed={seed}",
      f"--annotations={run / 'strokes'}", f"--output={run / 'teacher'}",
      "--scale=2",
    )  # fmt: skip
    call(
      "teach predict", f"--images={run / 'unseen'}", panel,
      f"--teacher={run / 'teacher'}", f"--output={run / 'maps'}",
      "--overwrite",
    )  # fmt: skip
    call(
      "segment", f"--probabilities={run / 'maps' / 'probabilities'}",
      f"--output={run / 'found'}", "--config.segment.preset=touching",
      "--config.segment.map_scale=2", "--overwrite",
    )  # fmt: skip
    return run / "found" / "masks"

  def score(self, masks: Path) -> float:
    """Returns the mean F1 at IoU 0.5 of the images that judge."""
    scores = []
    for roi in JUDGED:
      (path,) = masks.glob(f"ROI{roi:03d}*.tiff")
      wanted = labels.read_labels(self.spleen / "masks" / f"ROI{roi:03d}.tiff")
      scores.append(match.score_f1(labels.read_labels(path), wanted, 0.5))
    return float(np.mean(scores))


def link(path: Path, folder: Path) -> None:
  """Links a file into a folder under its own name."""
  (folder / path.name).symlink_to(path.resolve())


def count_outlines(masks: Path) -> int:
  """Returns the pixels of all cells' outlines."""
  return sum(
    int((mark_edges(mask) & (mask > 0)).sum())
    for mask in map(labels.read_labels, sorted(masks.iterdir()))
  )


def call(command: str, *flags: str) -> None:
  """Runs a command; one that only some files failed in goes on.

  Raises:
    RuntimeError: it could not be done.
  """
  words = [sys.executable, "-m", "dicexmbd_jax", *command.split(), *flags]
  code = subprocess.run(words).returncode
  if code not in (0, 1):
    raise RuntimeError(f"{command}: found exit code {code}, expected 0")


def plan_runs(
  numbers: Sequence[int], num_seeds: int
) -> Iterator[tuple[str, list[int], int]]:
  """Yields method, ROIs and seed; the ROIs of a seed are nested."""
  for seed in range(num_seeds):
    order = np.random.default_rng(seed).permutation(TRAINED).tolist()
    for number in numbers:
      for method in (START, NOTHING, TEACH):
        yield method, order[:number], seed


def draw(rows: Sequence[dict[str, str]], path: Path) -> None:
  """Draws F1 by the number of ROIs, a line a method, seeds as dots."""
  from matplotlib.figure import Figure

  page = Figure(figsize=(5, 3.5), layout="constrained")
  axes = page.subplots()
  for method in dict.fromkeys(row["method"] for row in rows):
    own = [
      (int(row["num_rois"]), float(row["f1"]))
      for row in rows
      if row["method"] == method
    ]
    numbers = sorted({number for number, _ in own})
    means = [
      np.mean([f1 for n, f1 in own if n == number]) for number in numbers
    ]
    (line,) = axes.plot(numbers, means, label=method)
    axes.plot(*zip(*own, strict=True), ".", color=line.get_color())
  axes.set(xlabel="labelled ROIs", ylabel="F1 at IoU 0.5 on ROIs left out")
  axes.legend(frameon=False)
  page.savefig(path, dpi=150)


def main(words: Sequence[str]) -> None:
  """Does all runs that are not done, then draws the picture."""
  parser = argparse.ArgumentParser(description=__doc__)
  for name in ("start", "data", "out"):
    parser.add_argument(name, type=Path)
  parser.add_argument("--minutes", type=float, default=60.0)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--numbers", default="1,2,4,8")
  values = parser.parse_args(words)
  curve = Curve(values.start, values.data, values.out, values.minutes)
  numbers = [int(word) for word in values.numbers.split(",")]
  for run in plan_runs(numbers, values.seeds):
    curve.measure(*run)
  draw(curve.read_rows(), values.out / "learning_curve.png")


if __name__ == "__main__":
  main(sys.argv[1:])
