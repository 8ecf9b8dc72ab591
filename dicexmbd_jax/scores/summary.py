"""From scores per image to scores per method, and which method is better."""

import itertools
from collections.abc import Mapping

import numpy as np

from dicexmbd_jax.scores import bootstrap

Scores = Mapping[str, float]
Tables = Mapping[str, Mapping[str, Scores]]  # Method, image, score: value.
Interval = tuple[float, float]


def summarise_methods(tables: Tables, seed: int = 0) -> dict[str, dict]:
  """Means over images, their spread, and paired differences.

  Args:
    tables: scores by method and image; methods may lack images.
    seed: of the bootstrap.

  Returns:
    `methods`: method -> score -> mean over its images, where NaN is left out,
      and count_pearson, f1_iou_0.50_pooled (from the pairs and cells of all
      images together).
    `intervals`: method -> score -> 95 % bootstrap interval over images.
    `sd`: method -> score -> standard deviation over images (n - 1).
    `num_images`: method -> number of images.
    `differences`: "A - B" -> score -> mean and interval of the differences on
      the images that both have, for every pair of methods in their order.
    Values that do not exist are NaN.
  """
  draws = {
    count: bootstrap.draw_images(count, seed)
    for count in {len(images) for images in tables.values()}
    if count
  }
  return {
    "methods": {name: _average(images) for name, images in tables.items()},
    "intervals": {
      name: _bound(images, draws[len(images)]) if images else {}
      for name, images in tables.items()
    },
    "sd": {name: _spread(images) for name, images in tables.items()},
    "num_images": {name: len(images) for name, images in tables.items()},
    "differences": {
      f"{first} - {second}": compare_methods(
        tables[first], tables[second], seed
      )
      for first, second in itertools.combinations(tables, 2)
    },
  }


def compare_methods(
  first: Mapping[str, Scores], second: Mapping[str, Scores], seed: int = 0
) -> dict[str, dict]:
  """Differences first - second on the images that both have.

  Returns:
    Score -> `mean`, `interval` (95 %, NaN for fewer than two images) and
    `num_images` with a value on both sides; empty without a common image.
  """
  images = [image for image in first if image in second]
  if not images:
    return {}
  ours = _columns({image: first[image] for image in images})
  theirs = _columns({image: second[image] for image in images})
  draws = bootstrap.draw_images(len(images), seed)
  result = {}
  for name in ours:
    if name in theirs:
      values = ours[name] - theirs[name]
      result[name] = {
        "mean": _mean(values),
        "interval": bootstrap.bound_mean(values, draws),
        "num_images": int(np.count_nonzero(~np.isnan(values))),
      }
  return result


def correlate_counts(images: Mapping[str, Scores]) -> float:
  """Pearson correlation over images of predicted and reference cell counts.

  NaN for fewer than three images, since two always lie on a line, or where
  either count never changes.
  """
  columns = _columns(images)
  if len(images) < 3:
    return float("nan")
  predicted, reference = columns["num_predicted"], columns["num_reference"]
  if np.ptp(predicted) == 0 or np.ptp(reference) == 0:
    return float("nan")
  return float(np.corrcoef(predicted, reference)[0, 1])


def _average(images: Mapping[str, Scores]) -> dict[str, float]:
  if not images:
    return {}
  columns = _columns(images)
  result = {name: _mean(values) for name, values in columns.items()}
  num_cells = (columns["num_predicted"] + columns["num_reference"]).sum()
  pairs = columns["tp_iou_0.50"].sum()
  result["f1_iou_0.50_pooled"] = 2 * pairs / num_cells if num_cells else 1.0
  result["count_pearson"] = correlate_counts(images)
  return result


def _bound(
  images: Mapping[str, Scores], draws: bootstrap.Draws
) -> dict[str, Interval]:
  columns = _columns(images)
  result = {
    name: bootstrap.bound_mean(values, draws)
    for name, values in columns.items()
  }
  result["count_pearson"] = bootstrap.bound_pearson(
    columns["num_predicted"], columns["num_reference"], draws
  )
  return result


def _spread(images: Mapping[str, Scores]) -> dict[str, float]:
  result = {}
  for name, values in _columns(images).items():
    values = values[~np.isnan(values)]
    result[name] = float(values.std(ddof=1)) if len(values) > 1 else np.nan
  return result


def _columns(images: Mapping[str, Scores]) -> dict[str, np.ndarray]:
  """Score -> one value per image, in order; NaN where an image lacks it."""
  names = dict.fromkeys(name for scores in images.values() for name in scores)
  return {
    name: np.array([s.get(name, np.nan) for s in images.values()], float)
    for name in names
  }


def _mean(values: np.ndarray) -> float:
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float("nan")
