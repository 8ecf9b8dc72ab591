"""Scores models on the images of scores.sh, whatever they have seen.

usage: python launch/experiments/left_out.py DATA SCORES NAME=MODEL ...

SCORES: where scores.sh simulated its studies. Prints a Markdown table:
the mean over images of F1 at IoU 0.5, with its 95 % interval where there are
enough images for one. training/simulated/last of base.sh has
seen no real image.
"""

import pathlib
import sys

import numpy as np
import validation

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.scores import match, summary

SOURCES = ("spleen", "simulated", "imc_testdata")  # The table's columns.
MIN_IMAGES = 5  # Fewer give no interval worth the name.


def score(folder: pathlib.Path, judged: list[validation.Judged]):
  """Returns F1 of each image, by source."""
  config = config_lib.read_model_config(folder)
  scores: dict[str, list[float]] = {}
  for item, found in validation.predict_maps(folder, judged).items():
    pair = validation.find_cells(item, found, config)
    f1 = match.score_f1(*pair, validation.IOU)
    scores.setdefault(item.source, []).append(f1)
  return scores


def format_mean(values: list[float]) -> str:
  """Returns the mean, its interval or the single values."""
  mean = f"{np.mean(values):.3f}"
  if len(values) < MIN_IMAGES:
    return f"{mean} ({', '.join(f'{value:.3f}' for value in values)})"
  draws = summary.draw_images(len(values))
  low, high = summary.bound_mean(np.array(values), draws)
  return f"{mean} ({low:.3f} to {high:.3f})"


def main(data: str, scores: str, *models: str) -> None:
  """Prints a row for each model."""
  data_dir = pathlib.Path(data)
  crops = sorted((data_dir / "imc_testdata" / "masks_ilastik").glob("*.tiff"))
  judged = validation.list_reported(data_dir, pathlib.Path(scores))
  judged += validation.list_crops(data_dir, [path.stem for path in crops])
  print(
    "| trained on | spleen 28, 30 | simulated (20) | imc_testdata (15) |\n"
    "|---|---|---|---|"
  )
  for name, _, folder in (model.partition("=") for model in models):
    found = score(pathlib.Path(folder), judged)
    means = (format_mean(found[source]) for source in SOURCES)
    print(f"| {name} |", " | ".join(means), "|", flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
