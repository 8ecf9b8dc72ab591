"""What the labels decide beside the weights."""

import math
import time

import pytest

from dicexmbd_jax.finetuning import fit


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
