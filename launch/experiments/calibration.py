"""Measures whether a model's probabilities and confidences mean what they say.

usage: python launch/experiments/calibration.py MODEL DATA SCORES OUTPUT

On the images that are reported (SCORES: where scores.sh simulated its
studies). Draws OUTPUT/calibration.png and prints the numbers: the expected
calibration error of each class, and for each measure of a cell's confidence how
often the cell is right, by tenths of the cells, and the chance that a right
cell has more of it than a wrong one (AUC).
"""

import pathlib
import sys

import numpy as np
import pandas as pd
import reliability
import validation
from matplotlib import figure
from scipy import stats

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import labels
from dicexmbd_jax.masks import confidence
from dicexmbd_jax.report import style
from dicexmbd_jax.scores import match
from dicexmbd_jax.train import targets

CLASSES = ("nucleus", "membrane/cytoplasm", "background")
MEASURES = ("confidence", "foreground_probability")


def list_cells(maps, config) -> pd.DataFrame:
  """Returns the cells found: source, confidences, whether each is right."""
  tables = []
  for item, probabilities in maps.items():
    cells, reference = validation.find_cells(item, probabilities, config)
    table = confidence.measure_confidence(probabilities, cells)
    table["is_right"] = table["Object"].isin(find_right_ids(cells, reference))
    table["source"] = item.source
    tables.append(table)
  return pd.concat(tables)


def find_right_ids(cells: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Returns the ids of the cells that have a partner in the reference."""
  overlap = match.overlap(cells, reference)
  matching = match.match_overlap(overlap, validation.IOU)
  return overlap.predicted_ids[matching.predicted]


def list_pixels(maps, rim_fraction: float) -> dict[tuple[str, int], tuple]:
  """Returns predicted and wanted probabilities by (source, class)."""
  parts: dict[tuple[str, int], list] = {}
  for item, probabilities in maps.items():
    reference = labels.read_labels(item.masks)
    target = targets.make_target(reference, rim_fraction)
    for i in range(3):
      pair = probabilities[..., i].ravel(), target[..., i].ravel()
      parts.setdefault((item.source, i), []).append(pair)
  return {
    key: tuple(np.concatenate(side) for side in zip(*pairs, strict=True))
    for key, pairs in parts.items()
  }


def measure_auc(values: pd.Series, is_right: pd.Series) -> float:
  """Returns the chance that a right cell has more than a wrong one."""
  test = stats.mannwhitneyu(values[is_right], values[~is_right])
  return float(test.statistic / (is_right.sum() * (~is_right).sum()))


def draw(pixels, cells: pd.DataFrame) -> figure.Figure:
  """Draws reliability by class, and correctness by confidence."""
  page = figure.Figure(
    figsize=(1.35 * style.WIDTH_IN, 3.4), layout="constrained"
  )
  sources = sorted(set(cells["source"]))
  axes = page.subplots(1, 3)
  for ax, source in zip(axes[:2], sources, strict=True):
    ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    for i, name in enumerate(CLASSES):
      table = reliability.measure_reliability(*pixels[source, i])
      error = reliability.score_calibration(table)
      print(f"{source}, {name}: expected calibration error {error:.4f}")
      ax.plot(
        table["predicted"], table["outcome"], style.pick_line(i),
        marker=style.pick_marker(i), markersize=3, linewidth=1.2,
        color=style.pick_color(i), label=f"{name} ({error:.3f})",
      )  # fmt: skip
    ax.set(title=source, xlabel="predicted", ylabel="in the reference")
    ax.legend(fontsize=7, loc="lower right", frameon=False)
  for i, source in enumerate(sources):
    part = cells[cells["source"] == source]
    for measure in MEASURES:
      auc = measure_auc(part[measure], part["is_right"])
      print(f"{source}, {measure}: AUC {auc:.3f}")
      tenth = pd.qcut(part[measure].rank(method="first"), 10, labels=False)
      right = part["is_right"].groupby(tenth).mean()
      print("  right, by tenths:", " ".join(f"{x:.2f}" for x in right))
      axes[2].plot(
        np.arange(1, 11), right,
        style.pick_line(MEASURES.index(measure)), color=style.pick_color(i),
        linewidth=1.2, label=f"{source}: {measure.replace('_', ' ')}",
      )  # fmt: skip
  axes[2].set(
    title="cells", xlabel="tenth of the cells, by confidence",
    ylabel="share that is right (IoU 0.5)", ylim=(0, 1),
  )  # fmt: skip
  axes[2].legend(fontsize=7, loc="lower right", frameon=False)
  return page


def main(folder, data, scores, output) -> None:
  """Measures, prints and draws."""
  judged = validation.list_reported(data, scores)
  maps = validation.predict_maps(folder, judged)
  config = config_lib.read_model_config(folder)
  cells = list_cells(maps, config)
  page = draw(list_pixels(maps, config.records.rim_fraction), cells)
  output.mkdir(parents=True, exist_ok=True)
  page.savefig(output / "calibration.png", dpi=150)


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
