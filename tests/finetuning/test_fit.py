"""What the labels decide beside the weights."""

import math
import time

import numpy as np
import pytest

from configs import default
from dicexmbd_jax.finetuning import fit, judge


@pytest.mark.parametrize(
  ("best", "start", "chosen"),
  [(1.0, 0.7, 1.1), (0.4, 1.0, 0.51), (1.0, 1.0, 1.0), (9.0, 1.0, 2.44)],
)
def test_magnifications_are_tried_towards_the_better_scores(
  best, start, chosen
):
  tried = []

  def score(factor):
    tried.append(factor)
    return -abs(math.log(factor / best))

  found = fit.fit_magnification(score, start, time.monotonic() + 60)
  assert found == chosen
  assert len(tried) == len(set(tried))
  assert all(fit.LOWEST <= factor <= fit.HIGHEST for factor in tried)


def test_of_those_that_score_alike_the_largest_is_taken():
  scores = {0.8: 0.5, 1.0: 0.508, 1.25: 0.495, 1.56: 0.46, 0.64: 0.9}
  found = fit.fit_magnification(scores.get, 0.8, time.monotonic() + 60)
  assert found == 1.25


def test_without_time_nothing_is_tried():
  assert fit.fit_magnification(lambda factor: 1 / 0, 0.8, 0.0) == 0.8


def fit_settings(monkeypatch, count, is_over=lambda: False):
  """Fits where `count` gives the counts by square of a section `segment`."""

  def judge_maps(shown, maps, config):
    counts = np.array(count(config.segment))
    return judge.Verdict(counts, {}, {}, 0, 0)

  monkeypatch.setattr(judge, "judge_maps", judge_maps)
  config = default.get_config()
  told = []
  found = fit.fit_settings([], [], config, is_over, told.append)
  values = {name: found.segment[name] for name in fit.GRID}
  before = {name: config.segment[name] for name in fit.GRID}
  return values, before, told


def test_a_setting_that_is_better_everywhere_is_taken(monkeypatch):
  def count(segment):
    right = 8 if segment.smoothing_px == 0.5 else 5
    return [[right, 10 - right, 10 - right]] * 20

  values, before, told = fit_settings(monkeypatch, count)
  assert values == before | {"smoothing_px": 0.5}
  assert told == ["segment.smoothing_px = 0.5: F1 0.800"]


def test_a_gain_within_chance_is_left(monkeypatch):
  """Better in eleven squares, and as much worse in nine."""

  def count(segment):
    if segment.smoothing_px != 0.5:
      return [[5, 5, 5]] * 20
    return [[7, 3, 3]] * 11 + [[3, 7, 7]] * 9

  values, before, told = fit_settings(monkeypatch, count)
  assert values == before
  assert not told


def test_without_time_no_setting_changes(monkeypatch):
  def count(segment):
    right = 8 if segment.smoothing_px == 0.5 else 5
    return [[right, 10 - right, 10 - right]] * 20

  values, before, _ = fit_settings(monkeypatch, count, is_over=lambda: True)
  assert values == before
