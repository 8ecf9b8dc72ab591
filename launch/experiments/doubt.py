"""Fits and judges what the model says about its own cells and images.

usage: python launch/experiments/doubt.py MODEL DATA SCORES OUTPUT

A logistic regression tells right cells from wrong ones by what the maps say of
them (masks/confidence.py); an image's doubt is one minus the mean of its
cells. What is reported of a source comes from a fit to the other sources.
Images are seen as they are, and spoilt: blurred, with the two groups exchanged,
and at wrong magnifications. Prints the weights for masks/confidence.py and the
table, draws OUTPUT/doubt.png. SCORES: where scores.sh simulated its studies.
Takes 10 minutes on two cores.
"""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import labelled
import matplotlib as mpl
import numpy as np
import pandas as pd
import validation
from calibration import find_right_ids, measure_auc
from scipy import ndimage, stats

from dicexmbd_jax.image import resample
from dicexmbd_jax.masks import confidence, segment
from dicexmbd_jax.model import weights
from dicexmbd_jax.report import style
from dicexmbd_jax.scores import match

AS_IT_IS = "as it is"
BLUR_PX = 2.0
WRONG_FACTORS = (0.6, 1.6)
NOT_SPOILT = "dsb2018_fluo"  # There are many of them.
MAX_SPOILT_PX = 700**2
KEYS = ["source", "image", "kind"]


def show(
  item: labelled.Labelled, config: Any
) -> Iterator[tuple[str, float, np.ndarray]]:
  """Yields kinds, magnifications and what the network sees."""
  size_um = config.image.pixel_size_um

  def magnify(factor: float) -> np.ndarray:
    shape = resample.resampled_shape(
      item.image.shape[:2], item.pixel_size_um * factor, size_um
    )
    return resample.resample_image(item.image, shape)

  plain = magnify(1.0)
  yield AS_IT_IS, 1.0, plain
  if item.source == NOT_SPOILT or plain[..., 0].size > MAX_SPOILT_PX:
    return
  yield "blurred", 1.0, ndimage.gaussian_filter(plain, (BLUR_PX, BLUR_PX, 0))
  if plain[..., 1].any():
    yield "exchanged", 1.0, np.ascontiguousarray(plain[..., ::-1])
  for factor in WRONG_FACTORS:
    yield f"at {factor}", factor, magnify(factor)


def list_cells(
  folder: pathlib.Path, data: pathlib.Path, scores: pathlib.Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
  """Returns all cells, with what tells them and is_right; and images' F1."""
  model, config = weights.read_model(folder)
  network = validation.load_network(model, config)
  cells, rows = [], []
  for item in labelled.list_labelled(data, scores, config.image):
    for kind, factor, pixels in show(item, config):
      ((_, maps),) = network([(0, pixels)])
      table, f1 = judge_image(item, maps, factor, config)
      key = dict(zip(KEYS, (item.source, item.name, kind), strict=True))
      cells.append(table.assign(**key))
      rows.append({**key, "f1": f1})
  return pd.concat(cells, ignore_index=True), pd.DataFrame(rows)


def judge_image(
  item: labelled.Labelled, maps: np.ndarray, factor: float, config: Any
) -> tuple[pd.DataFrame, float]:
  """Returns the cells, with what tells them and is_right, and F1."""
  masks = segment.segment_seen(maps, config, item.reference.shape, factor)
  judged = masks.nuclei if item.has_nuclei else masks.cells
  table = confidence.measure_evidence(maps, masks.cells)
  right = find_right_ids(judged, item.reference)
  table["is_right"] = np.isin(np.arange(1, len(table) + 1), right)
  return table, match.score_f1(judged, item.reference, validation.IOU)


def fit(cells: pd.DataFrame) -> np.ndarray:
  """Returns the weights of a constant and of the evidence (Newton's method).

  A source of n cells counts as much as the root of n.
  """
  counts = cells.groupby("source")["source"].transform("size")
  share = np.sqrt(1 / counts.to_numpy())
  columns = [cells[name] for name in confidence.EVIDENCE]
  features = np.stack([np.ones(len(cells)), *columns], 1)
  right = cells["is_right"].to_numpy(float)
  found = np.zeros(features.shape[1])
  for _ in range(30):
    chance = 1 / (1 + np.exp(-features @ found))
    spread = share * chance * (1 - chance)
    slope = features.T @ (share * (right - chance))
    found += np.linalg.solve((features.T * spread) @ features, slope)
  return found


def judge_left_out(cells: pd.DataFrame) -> pd.Series:
  """Returns each cell's confidence from a fit to the other sources."""
  parts = []
  for source, own in cells.groupby("source"):
    found = fit(cells[cells["source"] != source])
    values = confidence.judge_cells(own, found)
    parts.append(pd.Series(values, own.index))
  return pd.concat(parts)


def correlate(images: pd.DataFrame) -> float:
  """Returns the rank correlation of 1 - doubt with F1."""
  return float(stats.spearmanr(1 - images["doubt"], images["f1"]).statistic)


def print_table(cells: pd.DataFrame, images: pd.DataFrame) -> None:
  """Prints a row per source, as Markdown, for images as they are."""
  print(
    "| source, left out of the fit | images | F1 | doubt | correlation "
    "| AUC of cells |\n|---|---|---|---|---|---|"
  )
  for source, part in [*images.groupby("source"), ("all", images)]:
    own = cells if source == "all" else cells[cells["source"] == source]
    auc = measure_auc(own["confidence"], own["is_right"])
    rank = f"{correlate(part):.2f}" if len(part) >= 10 else ""
    print(
      f"| {source} | {len(part)} | {part['f1'].mean():.2f} "
      f"| {part['doubt'].mean():.2f} | {rank} | {auc:.2f} |"
    )


def print_steps(images: pd.DataFrame) -> None:
  """Prints F1 by doubt."""
  steps = pd.cut(images["doubt"], [0, 0.2, 0.3, 0.4, 0.5, 0.6, 1])
  print("| doubt | images | F1, quartiles |\n|---|---|---|")
  for step, part in images.groupby(steps, observed=True):
    low, middle, high = part["f1"].quantile([0.25, 0.5, 0.75])
    print(
      f"| {step.left:g} to {step.right:g} | {len(part)} "
      f"| {low:.2f}, {middle:.2f}, {high:.2f} |"
    )


def draw(images: pd.DataFrame) -> style.Figure:
  """Draws F1 over doubt, one mark per image; spoilt images are hollow."""
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN * 0.7, 3.6)
    ax = page.subplots()
    for i, (source, part) in enumerate(images.groupby("source")):
      look = {"marker": style.pick_marker(i), "s": 16, "linewidths": 0.8}
      plain = part[part["kind"] == AS_IT_IS]
      spoilt = part[part["kind"] != AS_IT_IS]
      color = style.pick_color(i)
      ax.scatter(spoilt["doubt"], spoilt["f1"], facecolors="none",
                 edgecolors=color, alpha=0.6, **look)  # fmt: skip
      ax.scatter(plain["doubt"], plain["f1"], color=color, label=source,
                 **look)  # fmt: skip
    ax.axvline(confidence.HIGH_DOUBT, color="#999999", linewidth=0.8)
    ax.set(
      xlabel="doubt, without the truth (fitted to the other sources)",
      ylabel="F1 at IoU 0.5", xlim=(0, 1), ylim=(-0.02, 1.02),
    )  # fmt: skip
    ax.legend(fontsize=7)
  return page


def main(folder, data, scores, output) -> None:
  """Measures, fits, prints and draws."""
  cells, images = list_cells(folder, data, scores)
  print("WEIGHTS =", tuple(round(float(x), 2) for x in fit(cells)))
  cells = cells.assign(confidence=judge_left_out(cells))
  doubt = (1 - cells.groupby(KEYS)["confidence"].mean()).rename("doubt")
  # Images without cells have no doubt.
  images = images.merge(doubt.reset_index(), on=KEYS)
  plain = images[images["kind"] == AS_IT_IS]
  print_table(cells[cells["kind"] == AS_IT_IS], plain)
  print(f"\nspoilt too: {len(images)} images, {correlate(images):.2f}\n")
  warned = plain[plain["doubt"] > confidence.HIGH_DOUBT]["f1"]
  print(
    f"as they are, F1 below 0.5: {(plain['f1'] < 0.5).sum()}; warned of: "
    f"{(warned < 0.5).sum()} of these, {(warned >= 0.5).sum()} others\n"
  )
  print_steps(images)
  draw(images).savefig(output / "doubt.png", dpi=150)


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
