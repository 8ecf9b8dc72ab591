"""Accuracy against annotated pixels, and what uncertainty is worth.

  python tests/benchmarks/bench_annotation.py [SEEDS] [FIGURE.png]

A simulated annotator draws on eight spleen ROIs (the middle 160 x 160 px of
each), more in every round; after every round a teacher is fit and scored on the
middle 250 x 250 px of ROIs 28 and 30, which nobody draws on. One JSON line per
strategy and budget: means over the seeds and 95 % intervals (Student's t), and
the paired difference to `random` from the same first round. Strategies:

  random            strokes anywhere on all images
  uncertain places  strokes on all images begin where the teacher is unsure
  random images     strokes anywhere on two images, drawn by lot each round
  uncertain images  strokes on the two images that `teach rank` puts first,
                    inside the squares that it cuts

The last pair is what a person does who opens an image at a time. Needs the real
data; no line without them. About ten minutes of one core for 5 seeds.
"""

import dataclasses
import json
import os
import pathlib
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib as mpl
import numpy as np
from scipy import stats

TESTS = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENTS = TESTS.parent / "launch" / "experiments"
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(EXPERIMENTS)]

import annotator
from conftest import REAL_DATA

from configs.default import get_config
from dicexmbd_jax.image import preparation
from dicexmbd_jax.io import images, labels, panel
from dicexmbd_jax.masks.segment import segment_image
from dicexmbd_jax.report import style
from dicexmbd_jax.scores import match
from dicexmbd_jax.teach import features, forest, rank
from dicexmbd_jax.teach.uncertainty import measure_uncertainty
from dicexmbd_jax.types import ImageSource

POOL, UNSEEN = (6, 8, 10, 14, 16, 18, 20, 22), (28, 30)
POOL_PX, UNSEEN_PX = 160, 250
BUDGETS_PX = (150, 300, 600, 1200, 2400)
STRATEGIES = (
  "random",
  "uncertain places",
  "random images",
  "uncertain images",
)
NUM_IMAGES, NUM_CROPS, CROP_PX = 2, 2, 64
SCORES = {
  "accuracy": "pixels of a class found,\nmean of the three classes",
  "f1": "F1 of cells at IoU 0.5",
}


@dataclasses.dataclass(frozen=True)
class Field:
  """A part of a ROI: cells, pixel classes and features."""

  cells: np.ndarray
  classes: np.ndarray
  features: np.ndarray


def main(num_seeds: int, figure: str | None) -> None:
  folder = REAL_DATA / "spleen_imc"
  if not folder.is_dir():
    return
  pool = [read_field(folder, number, POOL_PX) for number in POOL]
  unseen = [read_field(folder, number, UNSEEN_PX) for number in UNSEEN]
  scores = np.array(
    [
      [run_rounds(name, seed, pool, unseen) for name in STRATEGIES]
      for seed in range(num_seeds)
    ]
  )  # Seeds, strategies, budgets, scores.
  for k, name in enumerate(STRATEGIES):
    for b, budget_px in enumerate(BUDGETS_PX):
      report(name, budget_px, scores[:, k, b], scores[:, 0, b])
  if figure:
    draw_curves(scores).savefig(figure, dpi=160)


def read_field(folder: pathlib.Path, number: int, edge_px: int) -> Field:
  stem = f"ROI{number:03d}"
  source = ImageSource(stem, folder / "img" / f"{stem}.ome.tiff")
  loaded = images.read_image(source, panel.read_panel(folder / "panel.csv"))
  image, _ = preparation.merge_loaded(loaded, get_config().image)
  cells = labels.read_labels(folder / "masks" / f"{stem}.tiff")
  values = features.compute_features(image, features.list_features())
  classes = annotator.classify_pixels(cells)
  part = tuple(
    slice((size - edge_px) // 2, (size + edge_px) // 2) for size in cells.shape
  )
  return Field(cells[part], classes[part], values[part])


def run_rounds(
  strategy: str, seed: int, pool: list[Field], unseen: list[Field]
) -> list[tuple[float, float]]:
  """Draws, fits and scores round by round; the first round is alike for all."""
  generator = np.random.default_rng(seed)
  drawn = [np.zeros_like(field.classes) for field in pool]
  scores, trees, spent_px = [], None, 0
  for budget_px in BUDGETS_PX:
    guides = choose_places(
      strategy if trees else "random", pool, trees, generator
    )
    shares = annotator.share_budget(budget_px - spent_px, list(guides))
    for k, share_px in shares.items():
      drawn[k] = annotator.draw_strokes(
        pool[k].classes, drawn[k], guides[k], share_px, generator
      )
    spent_px = budget_px
    trees = fit_teacher(pool, drawn, seed)
    scores.append(score_teacher(trees, unseen))
  return scores


def choose_places(strategy, pool, trees, generator) -> dict[int, np.ndarray]:
  """Returns where to draw: image -> guide."""
  guides = {k: np.ones(f.classes.shape, np.float32) for k, f in enumerate(pool)}
  if strategy == "random":
    return guides
  if strategy == "random images":
    chosen = generator.choice(len(pool), NUM_IMAGES, replace=False)
    return {int(k): guides[int(k)] for k in chosen}
  unsure = {
    k: measure_uncertainty(forest.predict_forest(trees, field.features))
    for k, field in enumerate(pool)
  }
  guides = {k: annotator.make_guide(values) for k, values in unsure.items()}
  if strategy == "uncertain places":
    return guides
  means = {str(k): float(values.mean()) for k, values in unsure.items()}
  chosen = [int(k) for k in rank.rank_images(means)[:NUM_IMAGES]]
  for k in chosen:
    inside = np.zeros(unsure[k].shape, np.float32)
    for region in rank.find_regions(unsure[k], NUM_CROPS, CROP_PX):
      inside[region.slices] = 1
    guides[k] = guides[k] * inside
  return {k: guides[k] for k in chosen}


def fit_teacher(pool, drawn, seed: int) -> forest.Forest:
  rows = [f.features[d > 0] for f, d in zip(pool, drawn, strict=True)]
  found = [d[d > 0].astype(np.int32) for d in drawn]
  return forest.fit_forest(np.concatenate(rows), np.concatenate(found), seed)


def score_teacher(trees, unseen) -> tuple[float, float]:
  """Returns the classes' mean recall and the cells' F1, over the fields."""
  found = []
  for field in unseen:
    maps = forest.predict_forest(trees, field.features)
    is_right = maps.argmax(axis=-1) + 1 == field.classes
    recalls = [is_right[field.classes == k].mean() for k in (1, 2, 3)]
    cells = segment_image(maps, {"preset": "touching"}).cells
    found.append((np.mean(recalls), match.score_f1(cells, field.cells)))
  return tuple(np.mean(found, axis=0))


def bound(values: np.ndarray) -> tuple[float, float]:
  """Returns the mean over the seeds and half the width of its 95 % interval."""
  width = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1)
  return float(values.mean()), float(width / np.sqrt(len(values)))


def report(name, budget_px, values, baseline) -> None:
  line = {"strategy": name, "budget_px": budget_px, "seeds": len(values)}
  for i, score in enumerate(SCORES):
    line[score], line[f"{score}_half"] = bound(values[:, i])
    change, half = bound(values[:, i] - baseline[:, i])
    line[f"{score}_change"], line[f"{score}_change_half"] = change, half
  rounded = {
    k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()
  }
  print(json.dumps(rounded), flush=True)


def draw_curves(scores: np.ndarray) -> style.Figure:
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN, 3.1)
    axes = page.subplots(1, len(SCORES))
    for i, (ax, title) in enumerate(zip(axes, SCORES.values(), strict=True)):
      for k, name in enumerate(STRATEGIES):
        bounds = [bound(scores[:, k, b, i]) for b in range(len(BUDGETS_PX))]
        mean, half = np.array(bounds).T
        ax.errorbar(
          np.array(BUDGETS_PX) * 1.03 ** (k - 1.5),  # Beside one another.
          mean,
          half,
          color=style.pick_color(k),
          linestyle=style.pick_line(k),
          marker=style.pick_marker(k),
          markersize=3.5,
          linewidth=1.2,
          elinewidth=0.8,
          capsize=2,
          label=name,
        )
      ax.set(xscale="log", xlabel="annotated pixels", ylabel=title)
      ax.set_xticks(BUDGETS_PX, [f"{n:,}" for n in BUDGETS_PX])
      ax.minorticks_off()
      ax.grid(True, axis="y")
    style.add_legend(page, axes[0], STRATEGIES)
  return page


if __name__ == "__main__":
  main(
    int(sys.argv[1]) if len(sys.argv) > 1 else 5,
    sys.argv[2] if len(sys.argv) > 2 else None,
  )
