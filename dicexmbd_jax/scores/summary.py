"""From scores per image to scores per method, and which method is better.

How sure a mean over images is, the percentile bootstrap over whole images
tells. Cells of one image are alike, so images are drawn, never cells. With few
images the interval is too narrow rather than too wide: 5 images give about 80
to 85 % where 95 % is written (the percentile bootstrap of a mean).
"""

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

NUM_RESAMPLES = 10_000
COVERAGE = 0.95

Scores = Mapping[str, float]
Tables = Mapping[str, Mapping[str, Scores]]  # Method, image, score: value.
Interval = tuple[float, float]
Draws = Float64[np.ndarray, "b n"]


def summarise_methods(tables: Tables, seed: int = 0) -> dict[str, dict]:
  """Means over images, their spread, and paired differences.

  Args:
    tables: scores by method and image; methods may lack images.
    seed: the same seed gives the same intervals.

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
    count: draw_images(count, seed)
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
  draws = draw_images(len(images), seed)
  result = {}
  for name in ours:
    if name in theirs:
      values = ours[name] - theirs[name]
      result[name] = {
        "mean": average_valid(values),
        "interval": bound_mean(values, draws),
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


def draw_images(
  num_images: int, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Draws:
  """Draws images with replacement, as many as there are, many times.

  Args:
    num_images: n, at least 1.
    seed: the same seed gives the same draws.
    num_resamples: b.

  Returns:
    float64 (b, n): how often each image was drawn; rows sum to n.
  """
  shares = np.full(num_images, 1 / num_images)
  generator = np.random.default_rng(seed)
  return generator.multinomial(num_images, shares, num_resamples).astype(float)


def bound_mean(values: np.ndarray, draws: Draws) -> Interval:
  """Interval of the mean of the values that are not NaN.

  Args:
    values: one per image; NaN where an image has no such value.
    draws: from draw_images.

  Returns:
    Lower and upper bound; NaN where fewer than two images have a value.
  """
  is_valid = ~np.isnan(values)
  if np.count_nonzero(is_valid) < 2:
    return float("nan"), float("nan")
  weights = draws[:, is_valid]
  totals = weights.sum(axis=1)
  is_drawn = totals > 0
  sums = weights[is_drawn] @ values[is_valid]
  return _take_bounds(sums / totals[is_drawn])


def bound_pearson(a: np.ndarray, b: np.ndarray, draws: Draws) -> Interval:
  """Interval of the Pearson correlation of two values per image.

  Args:
    a: one value per image.
    b: likewise.
    draws: from draw_images; those in which a or b is constant are left out.

  Returns:
    Lower and upper bound; NaN with fewer than five images: draws of so few
    often hold only two different ones, whose correlation is 1 or -1.
  """
  if len(a) < 5:
    return float("nan"), float("nan")
  weights = draws / draws.sum(axis=1, keepdims=True)
  # Centred first, so that equal values leave exactly 0 behind.
  a, b = a - a.mean(), b - b.mean()
  mean_a, mean_b = weights @ a, weights @ b
  variances = (weights @ a**2 - mean_a**2) * (weights @ b**2 - mean_b**2)
  covariances = weights @ (a * b) - mean_a * mean_b
  is_valid = variances > 1e-12 * (a.var() * b.var())
  if not is_valid.any():
    return float("nan"), float("nan")
  return _take_bounds(covariances[is_valid] / np.sqrt(variances[is_valid]))


def _average(images: Mapping[str, Scores]) -> dict[str, float]:
  if not images:
    return {}
  columns = _columns(images)
  result = {name: average_valid(values) for name, values in columns.items()}
  num_cells = (columns["num_predicted"] + columns["num_reference"]).sum()
  pairs = columns["tp_iou_0.50"].sum()
  result["f1_iou_0.50_pooled"] = 2 * pairs / num_cells if num_cells else 1.0
  result["count_pearson"] = correlate_counts(images)
  return result


def _bound(images: Mapping[str, Scores], draws: Draws) -> dict[str, Interval]:
  columns = _columns(images)
  result = {name: bound_mean(values, draws) for name, values in columns.items()}
  result["count_pearson"] = bound_pearson(
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


def average_valid(values: np.ndarray) -> float:
  """Returns the mean of the values that are not NaN; NaN where all are."""
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float("nan")


def _take_bounds(values: np.ndarray) -> Interval:
  tail = 50 * (1 - COVERAGE)
  low, high = np.percentile(values, [tail, 100 - tail])
  return float(low), float(high)
