"""Scores of a model and of the paper's baselines, source by source.

usage: python launch/experiments/sources.py MODEL DATA SCORES

Every image of labelled.py is segmented as `predict` does it, at the
magnification that it chooses and at 1, and by the baselines. Prints two tables:
F1 by method with the count's error, splits and merges; and what was chosen,
with the time of the first pass. SCORES: where scores.sh simulated its studies.
Takes 15 minutes on two cores.
"""

import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import labelled
import numpy as np
import pandas as pd

from dicexmbd_jax import config as config_lib
from dicexmbd_jax import magnification, predict
from dicexmbd_jax.image import preparation
from dicexmbd_jax.masks import segment
from dicexmbd_jax.masks.settings import fit_to_pixels
from dicexmbd_jax.model import weights
from dicexmbd_jax.scores import evaluate
from dicexmbd_jax.scores.summary import bound_mean, draw_images
from dicexmbd_jax.types import Image

NETWORK, AT_ONE = "this system", "at magnification 1"
METHODS = {f"CP-{name}": name for name in segment.METHODS}
SCORE = "f1_iou_0.50"


class Judge:
  """A network with its configuration."""

  def __init__(self, folder: pathlib.Path):
    self.model, self.config = weights.read_model(folder)
    # As published: what was fitted to the network's maps is not theirs.
    self.baseline = fit_to_pixels(
      config_lib.drop_fitted(self.config.segment),
      self.config.image.pixel_size_um,
    )
    self.first_pass, self.network = predict.load_passes(
      self.model, self.config.predict, magnification.WINDOW_PX
    )

  def judge(self, item: labelled.Labelled) -> Iterator[dict[str, Any]]:
    """Yields a row of scores for each method."""
    pixels = self.magnify(item, 1.0)
    factor, first_s = clock(
      lambda: magnification.choose_magnification(
        pixels, self.config, self.first_pass
      )
    )
    plain, plain_s = clock(lambda: self.segment(item, 1.0))
    chosen = plain if factor == 1 else self.segment(item, factor)
    more = {"factor": factor, "share": first_s / plain_s}
    yield {**score(item, NETWORK, chosen), **more}
    yield score(item, AT_ONE, plain)
    for name, method in METHODS.items():
      masks = segment.segment_baseline(
        pixels, method, self.baseline, item.reference.shape
      )
      yield score(item, name, masks)

  def magnify(self, item: labelled.Labelled, factor: float) -> Image:
    """Returns what the network sees."""
    return preparation.to_network_grid(
      item.image, item.pixel_size_um * factor, self.config.image
    )

  def segment(
    self, item: labelled.Labelled, factor: float
  ) -> segment.Segmentation:
    """Segments an image at a magnification."""
    ((_, maps),) = self.network([(0, self.magnify(item, factor))])
    return segment.segment_seen(maps, self.config, item.reference.shape, factor)


def clock(work: Callable[[], Any]) -> tuple[Any, float]:
  """Returns what some work gives, and its seconds."""
  started = time.perf_counter()
  result = work()
  return result, time.perf_counter() - started


def score(
  item: labelled.Labelled, method: str, masks: segment.Segmentation
) -> dict[str, Any]:
  """Returns one image's scores by one method."""
  found = masks.nuclei if item.has_nuclei else masks.cells
  scores = evaluate.evaluate_image(found, item.reference).scores
  wanted = scores["num_reference"]
  return {
    "source": item.source,
    "method": method,
    SCORE: scores[SCORE],
    "count": scores["num_predicted"] / max(wanted, 1) - 1,
    "splits": scores["mesmer_split"] / max(wanted, 1),
    "merges": scores["mesmer_merge"] / max(wanted, 1),
  }


def print_scores(table: pd.DataFrame) -> None:
  """Prints F1 by source and method; the count's error, splits and merges."""
  others = [AT_ONE, *METHODS]
  print(
    f"| source | images | {NETWORK}, 95 % | {' | '.join(others)} "
    "| count | splits | merges |\n|" + "---|" * (6 + len(others))
  )
  for source, part in table.groupby("source"):
    means = part.groupby("method")[SCORE].mean()
    own = part[part["method"] == NETWORK]
    values = own[SCORE].to_numpy()
    low, high = bound_mean(values, draw_images(len(values)))
    interval = "" if np.isnan(low) else f" ({low:.2f}, {high:.2f})"
    rest = " | ".join(f"{means[name]:.3f}" for name in others)
    print(
      f"| {source} | {len(own)} | **{means[NETWORK]:.3f}**{interval} | {rest} "
      f"| {own['count'].mean():+.0%} | {own['splits'].mean():.0%} "
      f"| {own['merges'].mean():.0%} |"
    )


def print_magnifications(table: pd.DataFrame) -> None:
  """Prints what was chosen and what the first pass took."""
  print("\n| source | chosen, quartiles | first pass / second |\n|---|---|---|")
  for source, part in table[table["method"] == NETWORK].groupby("source"):
    low, middle, high = part["factor"].quantile([0.25, 0.5, 0.75])
    share = part["share"].median()
    print(f"| {source} | {low:.2f}, {middle:.2f}, {high:.2f} | {share:.2f} |")


def main(folder, data, scores) -> None:
  """Measures all images and prints the tables."""
  judge, rows = Judge(folder), []
  for item in labelled.list_labelled(data, scores, judge.config.image):
    rows += judge.judge(item)
    print(item.source, item.name, file=sys.stderr, flush=True)
  table = pd.DataFrame(rows)
  print_scores(table)
  print_magnifications(table)
  means = table.groupby(["method", "source"])[SCORE].mean()
  print(
    f"\nmeans of sources: {means.groupby('method').mean().round(3).to_dict()}"
  )


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
