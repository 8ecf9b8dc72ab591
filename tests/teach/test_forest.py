import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from dicexmbd_jax.teach import forest


def make_rows(num_rows=300, num_columns=9, seed=0):
  generator = np.random.default_rng(seed)
  rows = generator.normal(size=(num_rows, num_columns)).astype(np.float32)
  labels = 1 + (rows[:, 0] > 0) + ((rows[:, 1] > 0) & (rows[:, 0] > 0))
  return rows, labels.astype(np.int32)


def test_probabilities_are_scikit_learns():
  rows, labels = make_rows()
  trees = forest.fit_forest(rows, labels, seed=3)
  model = RandomForestClassifier(100, max_features=3, random_state=3)
  model.fit(rows, labels)
  others, _ = make_rows(seed=1)
  found = forest.predict_forest(trees, others.reshape(20, 15, 9))
  assert found.shape == (20, 15, 3)
  assert found.dtype == np.float32
  expected = model.predict_proba(others).reshape(20, 15, 3)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  np.testing.assert_allclose(found.sum(axis=2), 1, rtol=1e-6)


def test_a_seed_gives_one_forest():
  rows, labels = make_rows()
  first, second, other = (
    forest.fit_forest(rows, labels, seed) for seed in (5, 5, 6)
  )
  for name in ("roots", "columns", "thresholds", "children", "leaves"):
    np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
  assert not np.array_equal(first.columns, other.columns)


def test_a_tree_draws_a_bounded_number_of_rows(monkeypatch):
  rows, labels = make_rows(3000)
  whole = forest.fit_forest(rows, labels, seed=0)
  monkeypatch.setattr(forest, "MAX_DRAWS", 3000)
  alike = forest.fit_forest(rows, labels, seed=0)
  np.testing.assert_array_equal(alike.thresholds, whole.thresholds)
  monkeypatch.setattr(forest, "MAX_DRAWS", 10)
  small = forest.fit_forest(rows, labels, seed=0)
  # Leaves are pure, so ten rows have ten leaves at most, and nine nodes above.
  assert np.diff([*small.roots, small.columns.size]).max() <= 19
  others, truth = make_rows(3000, seed=1)
  found = forest.predict_forest(small, others.reshape(60, 50, 9))
  assert (found.argmax(axis=2).ravel() + 1 == truth).mean() > 0.7


def test_a_class_without_pixels_has_probability_zero():
  rows, labels = make_rows()
  chosen = labels != 2
  trees = forest.fit_forest(rows[chosen], labels[chosen], seed=0)
  found = forest.predict_forest(trees, rows.reshape(30, 10, 9))
  assert (found[..., 1] == 0).all()
  np.testing.assert_allclose(found.sum(axis=2), 1, rtol=1e-6)


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    ([1, 1, 1], "pixels of nucleus only, expected two classes"),
    ([1, 2, 4], "the label 4, expected 1 to 3"),
    ([0, 1, 2], "the label 0"),
  ],
)
def test_wrong_labels(labels, message):
  rows = np.zeros((3, 2), np.float32)
  with pytest.raises(ValueError, match=message):
    forest.fit_forest(rows, np.array(labels, np.int32), seed=0)


def test_rows_that_are_not_finite():
  rows, labels = make_rows()
  rows[3, 3] = np.nan
  with pytest.raises(ValueError, match="not finite"):
    forest.fit_forest(rows, labels, seed=0)


def test_another_number_of_columns():
  trees = forest.fit_forest(*make_rows(), seed=0)
  trees = dataclasses.replace(trees)
  with pytest.raises(ValueError, match="found 8 columns, expected 9"):
    forest.predict_forest(trees, np.zeros((4, 4, 8), np.float32))
