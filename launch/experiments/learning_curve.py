"""How many labelled images `finetune` needs: a table and a picture.

usage: python launch/experiments/learning_curve.py START DATA OUT
       [--study=spleen|intestine] [--minutes=60] [--seeds=3] [--numbers=1,2,4,8]
       [--methods=finetune,nothing,teach]

spleen: cells of whole ROIs, of the nine that do not judge; F1 at IoU 0.5 on
ROIs 28 and 30 of `finetune` from START, `finetune` from random weights
("nothing"), and `teach` with strokes of equal effort. Effort is counted in
pixels that a person draws: of masks their outlines, of strokes all. START is a
model without any spleen, as configs/simulated.py makes it.

intestine: nuclei alone, of the training images of one magnification (median
nucleus 22 to 27 px, taken for 7.5 um); F1 on the validation images of the same;
START may be the shipped model, which has seen none of them.

Number 0 is START as it is. A row is written when its run is done; a call that
was stopped goes on.
"""

import argparse
import csv
import dataclasses
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
START, NOTHING, TEACH = "finetune", "nothing", "teach"
COLUMNS = ("method", "num_images", "seed", "effort_px", "f1")
HERE = Path(__file__).resolve().parent
PANEL = "name,nuclear,membrane_cytoplasm\nDAPI,1,0\n"


@dataclasses.dataclass(frozen=True)
class Study:
  """What is labelled, and what judges.

  Attributes:
    trained: images that may be labelled, and their masks.
    judged: images that judge, and their masks.
    panel: of all images.
    kind: "masks" of cells, or "nuclei".
    flags: of `finetune` and `predict`.
    methods: compared in it.
  """

  trained: tuple[tuple[Path, Path], ...]
  judged: tuple[tuple[Path, Path], ...]
  panel: Path
  kind: str
  flags: tuple[str, ...] = ()
  methods: tuple[str, ...] = (START,)


def find_spleen(data: Path, out: Path) -> Study:
  """Returns the cells of spleen; ROIs 28 and 30 judge."""
  folder = data / "spleen_imc"

  def pair(roi: int) -> tuple[Path, Path]:
    name = f"ROI{roi:03d}"
    return folder / f"img/{name}.ome.tiff", folder / f"masks/{name}.tiff"

  return Study(
    trained=tuple(map(pair, (6, 8, 10, 14, 16, 18, 20, 22, 24))),
    judged=tuple(map(pair, (28, 30))),
    panel=folder / "panel.csv",
    kind="masks",
    methods=(START, NOTHING, TEACH),
  )


def find_intestine(data: Path, out: Path) -> Study:
  """Returns the nuclei of intestine, images of one magnification."""
  parts = {"training": [], "validation": []}
  sizes_px = []
  for part, found in parts.items():
    for path in sorted((data / "intestine_nuclei" / part / "img").iterdir()):
      mask = path.parents[1] / "masks" / path.name
      areas_px = np.bincount(labels.read_labels(mask).ravel())[1:]
      size_px = np.median(np.sqrt(areas_px[areas_px > 0] * 4 / np.pi))
      if 22 <= size_px <= 27:
        found.append((path, mask))
        sizes_px.append(size_px)
  panel = out / "panel.csv"
  panel.write_text(PANEL)
  return Study(
    trained=tuple(parts["training"]),
    judged=tuple(parts["validation"]),
    panel=panel,
    kind="nuclei",
    flags=(f"--pixel_size_um={7.5 / np.median(sizes_px):.3f}",),
  )


STUDIES = {"spleen": find_spleen, "intestine": find_intestine}


class Curve:
  """All runs of one call."""

  def __init__(self, start: Path, study: Study, out: Path, minutes: float):
    self.start, self.study, self.out = start, study, out
    self.minutes = minutes
    self.table = out / "learning_curve.csv"

  def read_rows(self) -> list[dict[str, str]]:
    """Returns the rows that are done."""
    if not self.table.exists():
      return []
    with self.table.open(newline="") as file:
      return list(csv.DictReader(file))

  def measure(self, method: str, images: Sequence[int], seed: int) -> None:
    """Does one run and writes its row, unless it is there.

    Args:
      method: of the study.
      images: which of study.trained are labelled; none: START as it is.
      seed: of the training.
    """
    words = (method, str(len(images)), str(seed))
    if any(tuple(r[c] for c in COLUMNS[:3]) == words for r in self.read_rows()):
      return
    run = self.out / "_".join(words)
    self.link(images, run)
    effort_px = count_outlines(run / "masks")
    if method == TEACH:
      found = self.teach(run, effort_px, seed)
    else:
      found = self.predict(run, self.finetune(run, method, seed))
    row = dict(
      zip(COLUMNS, (*words, effort_px, f"{self.score(found):.4f}"), strict=True)
    )
    is_new = not self.table.exists()
    with self.table.open("a", newline="") as file:
      writer = csv.DictWriter(file, COLUMNS)
      if is_new:
        writer.writeheader()
      writer.writerow(row)
    print(row, flush=True)

  def link(self, images: Sequence[int], run: Path) -> None:
    """Makes the folders of a run: what is labelled, and what judges."""
    for folder in ("img", "masks", "unseen"):
      shutil.rmtree(run / folder, ignore_errors=True)
      (run / folder).mkdir(parents=True)
    for index in images:
      path, mask = self.study.trained[index]
      link(path, run / "img")
      link(mask, run / "masks")
    for path, _ in self.study.judged:
      link(path, run / "unseen")

  def finetune(self, run: Path, method: str, seed: int) -> Path:
    """Fine-tunes where there are labels; returns the model's folder."""
    start = self.start if method == START else self.make_random(seed)
    if not any((run / "img").iterdir()):
      return start
    model = run / "model"
    call(
      "finetune", f"--images={run / 'img'}", f"--panel={self.study.panel}",
      f"--{self.study.kind}={run / 'masks'}", f"--checkpoint={start}",
      f"--output={model}", f"--minutes={self.minutes}", f"--seed={seed}",
      *self.study.flags,
    )  # fmt: skip
    has_won = (model / "config.json").exists()
    return model if has_won else model / "not_better"

  def predict(self, run: Path, model: Path) -> Path:
    """Predicts what judges; returns the folder of masks."""
    call(
      "predict", f"--images={run / 'unseen'}", f"--checkpoint={model}",
      f"--panel={self.study.panel}", f"--output={run / 'found'}",
      "--overwrite", *self.study.flags,
    )  # fmt: skip
    return run / "found" / self.study.kind

  def make_random(self, seed: int) -> Path:
    """Writes a model of random weights, otherwise as the start."""
    from dicexmbd_jax.model import unet, weights

    folder = self.out / f"random_{seed}"
    config = config_lib.read_model_config(self.start)
    weights.write_model(folder, unet.build_model(config.model, seed), config)
    return folder

  def teach(self, run: Path, effort_px: int, seed: int) -> Path:
    """Draws strokes, teaches and segments; returns the folder of masks."""
    panel = f"--panel={self.study.panel}"
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

  def score(self, found: Path) -> float:
    """Returns the mean F1 at IoU 0.5 of the images that judge."""
    scores = []
    for image, mask in self.study.judged:
      (path,) = found.glob(f"{image.name.partition('.')[0]}.*")
      one, wanted = labels.read_labels(path), labels.read_labels(mask)
      scores.append(match.score_f1(one, wanted, 0.5))
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
  methods: Sequence[str],
  num_images: int,
  numbers: Sequence[int],
  num_seeds: int,
) -> Iterator[tuple[str, list[int], int]]:
  """Yields method, images and seed; the images of a seed are nested."""
  yield START, [], 0
  for seed in range(num_seeds):
    order = np.random.default_rng(seed).permutation(num_images).tolist()
    for number in numbers:
      for method in methods:
        yield method, order[:number], seed


def draw(rows: Sequence[dict[str, str]], path: Path) -> None:
  """Draws F1 by the number of images, a line a method, seeds as dots."""
  from matplotlib.figure import Figure

  page = Figure(figsize=(5, 3.5), layout="constrained")
  axes = page.subplots()
  for method in dict.fromkeys(row["method"] for row in rows):
    own = [
      (int(row["num_images"]), float(row["f1"]))
      for row in rows
      if row["method"] == method
    ]
    numbers = sorted({number for number, _ in own})
    means = [
      np.mean([f1 for n, f1 in own if n == number]) for number in numbers
    ]
    (line,) = axes.plot(numbers, means, label=method)
    axes.plot(*zip(*own, strict=True), ".", color=line.get_color())
  axes.set(xlabel="labelled images", ylabel="F1 at IoU 0.5, images left out")
  axes.legend(frameon=False)
  page.savefig(path, dpi=150)


def main(words: Sequence[str]) -> None:
  """Does all runs that are not done, then draws the picture."""
  parser = argparse.ArgumentParser(description=__doc__)
  for name in ("start", "data", "out"):
    parser.add_argument(name, type=Path)
  parser.add_argument("--study", choices=STUDIES, default="spleen")
  parser.add_argument("--minutes", type=float, default=60.0)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--numbers", default="1,2,4,8")
  parser.add_argument("--methods", default=f"{START},{NOTHING},{TEACH}")
  values = parser.parse_args(words)
  values.out.mkdir(parents=True, exist_ok=True)
  study = STUDIES[values.study](values.data, values.out)
  curve = Curve(values.start, study, values.out, values.minutes)
  numbers = [int(word) for word in values.numbers.split(",")]
  wanted = values.methods.split(",")
  if unknown := {*wanted} - {START, NOTHING, TEACH}:
    parser.error(f"--methods: found {', '.join(unknown)}")
  methods = [one for one in study.methods if one in wanted]
  for run in plan_runs(methods, len(study.trained), numbers, values.seeds):
    curve.measure(*run)
  draw(curve.read_rows(), values.out / "learning_curve.png")


if __name__ == "__main__":
  main(sys.argv[1:])
