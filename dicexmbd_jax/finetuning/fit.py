"""What the labels decide beside the weights: magnification and settings."""

import time
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from dicexmbd_jax.finetuning import advice, judge
from dicexmbd_jax.types import Probabilities

# In the order of what they were seen to change.
GRID: dict[str, tuple[float, ...]] = {
  "nucleus_correction": (0.8, 1.0, 1.2, 1.4),
  "min_saddle_depth": (0.0, 0.06, 0.12, 0.2),
  "min_nucleus_peak": (0.0, 0.45, 0.55, 0.65),
  "max_growth_um": (0.0, 1.25, 2.5),
  "cell_correction": (1.0, 1.2, 1.4, 1.6),
  "smoothing_px": (0.5, 1.0, 1.5),
  "min_nucleus_area_px": (2.0, 4.5, 9.0),
  "regularisation": (0.2, 0.8),
  "max_diameter_px": (6.0, 12.0),
}
# From one magnification to the next that is tried, and how far they go.
FACTOR_STEP, LOWEST, HIGHEST = 1.25, 0.5, 2.5
# Of magnifications that score alike the largest is taken: rims are wider there,
# and training gains more.
ALIKE = 0.015


def fit_magnification(
  score: Callable[[float], float], start: float, deadline_s: float
) -> float:
  """Returns the largest magnification that scores best, or nearly so.

  What `predict` chooses without labels is made for tissue of any kind. Where
  nuclei lie close, a larger one shows the rims between them. Larger ones are
  tried first, and smaller ones where that gains nothing.

  Args:
    score: F1 of the start model on labelled images at a magnification.
    start: the first one.
    deadline_s: on time.monotonic's clock; no further one is tried after it.
  """
  if time.monotonic() > deadline_s:
    return start
  scores = {start: score(start)}
  for step in (FACTOR_STEP, 1 / FACTOR_STEP):
    factor = round(start * step, 2)
    while LOWEST <= factor <= HIGHEST and time.monotonic() < deadline_s:
      scores[factor] = score(factor)
      if scores[factor] < max(scores.values()) - ALIKE:
        break
      factor = round(factor * step, 2)
    if len(scores) > 2:  # The first step upwards was none too many.
      break
  least = max(scores.values()) - ALIKE
  return max(factor for factor, found in scores.items() if found >= least)


def fit_settings(
  shown: Sequence[judge.Shown],
  maps: Sequence[Probabilities],
  config: ConfigDict,
  is_over: Callable[[], bool],
  tell: Callable[[str], None],
) -> ConfigDict:
  """Returns the configuration with the settings that score best.

  One setting after the other takes its best value, as far as time allows. A
  value counts as better where all of the 95 % interval of the difference lies
  above zero: few images judge, and what is chance in them costs in others.

  Args:
    shown: the images that judge.
    maps: what the model makes of them.
    config: to start from; it is left as it is.
    is_over: whether the time is up.
    tell: told of each setting that changes.
  """
  chosen = config.copy_and_resolve_references()
  best = judge.judge_maps(shown, maps, chosen)
  for name, values in GRID.items():
    kept = chosen.segment[name]
    for value in values:
      if is_over():
        set_value(chosen, name, kept)
        return chosen
      if value == kept:
        continue
      set_value(chosen, name, value)
      found = judge.judge_maps(shown, maps, chosen)
      if advice.is_better(judge.compare(found, best)):
        best, kept = found, value
        tell(f"segment.{name} = {value:g}: F1 {found.f1:.3f}")
    set_value(chosen, name, kept)
  return chosen


def set_value(config: ConfigDict, name: str, value: float | None) -> None:
  """Sets one of the segmenter's settings, of which the preset's are None."""
  with config.segment.ignore_type():
    config.segment[name] = value
