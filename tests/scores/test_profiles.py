"""Correlation of what matched cells measure."""

import numpy as np
import pytest

from dicexmbd_jax.scores import evaluate, profiles

PREDICTED = np.array([[3, 3, 0, 1, 1], [3, 3, 0, 1, 1], [0, 0, 2, 2, 2]])
REFERENCE = np.array([[9, 9, 9, 4, 4], [9, 9, 9, 4, 4], [0, 0, 6, 6, 0]])


def make_stack(num_markers=4, seed=0):
  rng = np.random.default_rng(seed)
  return rng.poisson(20, (3, 5, num_markers)).astype(np.float32)


def test_correlations_are_those_of_the_cells_means():
  stack = make_stack().astype(np.float64)
  found = evaluate.evaluate_image(PREDICTED, REFERENCE)
  result = profiles.correlate_profiles(stack, PREDICTED, REFERENCE, found)
  ours = np.array([stack[i == PREDICTED].mean(0) for i in (3, 1, 2)])
  theirs = np.array([stack[i == REFERENCE].mean(0) for i in (9, 4, 6)])
  expected = [
    np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)
  ]
  np.testing.assert_allclose(result.cells, expected)
  expected = [np.corrcoef(ours[:, k], theirs[:, k])[0, 1] for k in range(4)]
  np.testing.assert_allclose(result.markers, expected)
  scores = result.score()
  assert scores["profile_pearson"] == pytest.approx(result.cells.mean())
  assert scores["marker_pearson"] == pytest.approx(result.markers.mean())


def test_constant_markers_and_too_few_values_have_no_correlation():
  stack = make_stack(2)
  stack[..., 1] = 3
  found = evaluate.evaluate_image(PREDICTED, REFERENCE)
  result = profiles.correlate_profiles(stack, PREDICTED, REFERENCE, found)
  assert np.isfinite(result.markers[0])
  assert np.isnan(result.markers[1])
  one = profiles.correlate_profiles(stack[..., :1], PREDICTED, REFERENCE, found)
  assert np.isnan(one.cells).all()
  assert np.isnan(one.score()["profile_pearson"])


def test_without_pairs_there_is_no_correlation():
  empty = np.zeros_like(PREDICTED)
  found = evaluate.evaluate_image(PREDICTED, empty)
  result = profiles.correlate_profiles(make_stack(), PREDICTED, empty, found)
  assert result.cells.shape == (0,)
  assert np.isnan(result.markers).all()
  assert np.isnan(list(result.score().values())).all()


def test_another_size_is_refused():
  found = evaluate.evaluate_image(PREDICTED, REFERENCE)
  with pytest.raises(ValueError, match=r"found \(3, 4\) pixels.*\(3, 5\)"):
    profiles.correlate_profiles(
      make_stack()[:, :4], PREDICTED, REFERENCE, found
    )
