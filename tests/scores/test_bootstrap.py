"""Intervals over images."""

import numpy as np
import pytest

from dicexmbd_jax.scores import summary


def test_draws_are_seeded_and_hold_as_many_images_as_there_are():
  draws = summary.draw_images(7, seed=3)
  assert draws.shape == (summary.NUM_RESAMPLES, 7)
  assert (draws.sum(axis=1) == 7).all()
  np.testing.assert_array_equal(draws, summary.draw_images(7, seed=3))
  assert (draws != summary.draw_images(7, seed=4)).any()


def test_interval_of_a_mean_is_that_of_plain_resampling():
  values = np.array([0.1, 0.5, 0.4, 0.9, 0.3, 0.7])
  low, high = summary.bound_mean(values, summary.draw_images(6))
  rng = np.random.default_rng(1)
  means = rng.choice(values, (20_000, 6)).mean(axis=1)
  np.testing.assert_allclose(
    [low, high], np.percentile(means, [2.5, 97.5]), atol=0.01
  )


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
  rng = np.random.default_rng(0)
  draws = summary.draw_images(40, num_resamples=500)
  hits = 0
  for values in rng.normal(0.8, 0.1, (300, 40)):
    low, high = summary.bound_mean(values, draws)
    hits += low <= 0.8 <= high
  assert 0.9 <= hits / 300 <= 0.98


def test_missing_values_are_left_out():
  values = np.array([0.2, np.nan, 0.4, 0.4, 0.6])
  low, high = summary.bound_mean(values, summary.draw_images(5))
  assert 0.2 <= low < 0.4 < high <= 0.6


@pytest.mark.parametrize("values", [[0.5], [0.5, np.nan], [np.nan, np.nan]])
def test_too_few_values_have_no_interval(values):
  draws = summary.draw_images(len(values))
  assert np.isnan(summary.bound_mean(np.array(values), draws)).all()


def test_equal_values_have_an_interval_of_no_width():
  draws = summary.draw_images(5)
  low, high = summary.bound_mean(np.full(5, 0.25), draws)
  assert low == high == pytest.approx(0.25)


def test_interval_of_a_correlation_is_that_of_plain_resampling():
  rng = np.random.default_rng(5)
  a = rng.normal(100, 30, 15)
  b = a + rng.normal(0, 20, 15)
  low, high = summary.bound_pearson(a, b, summary.draw_images(15))
  picks = rng.integers(0, 15, (5000, 15))
  values = [np.corrcoef(a[p], b[p])[0, 1] for p in picks]
  np.testing.assert_allclose(
    [low, high], np.percentile(values, [2.5, 97.5]), atol=0.02
  )


@pytest.mark.parametrize("b", [[1.0, 2.0, 4.0, 3.0], [5.0] * 8])
def test_correlations_without_an_interval(b):
  a = np.arange(float(len(b)))
  draws = summary.draw_images(len(b))
  assert np.isnan(summary.bound_pearson(a, np.array(b), draws)).all()
