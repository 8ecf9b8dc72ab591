import numpy as np
import pytest

from dicexmbd_jax.teach.uncertainty import KINDS, measure_uncertainty


def make(*pixels):
  return np.array([pixels], np.float32)


def test_margin_is_one_minus_the_difference_of_the_best_two():
  maps = make((1, 0, 0), (0.5, 0.5, 0), (0.2, 0.1, 0.7), (1 / 3, 1 / 3, 1 / 3))
  found = measure_uncertainty(maps, "margin")
  np.testing.assert_allclose(found, [[0, 1, 0.5, 1]], atol=1e-6)
  assert found.dtype == np.float32


def test_entropy_is_one_where_all_are_equal():
  maps = make((1, 0, 0), (0.5, 0.5, 0), (1 / 3, 1 / 3, 1 / 3))
  found = measure_uncertainty(maps, "entropy")
  np.testing.assert_allclose(found, [[0, np.log(2) / np.log(3), 1]], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_the_classes_does_not_matter(kind):
  maps = np.random.default_rng(0).dirichlet([1, 1, 1], (4, 5))
  first = measure_uncertainty(maps.astype(np.float32), kind)
  second = measure_uncertainty(maps[..., [2, 0, 1]].astype(np.float32), kind)
  np.testing.assert_allclose(first, second, atol=1e-6)
  assert 0 <= first.min() <= first.max() <= 1


def test_wrong_calls():
  with pytest.raises(ValueError, match="'variance', expected one of margin"):
    measure_uncertainty(make((1, 0, 0)), "variance")
  with pytest.raises(ValueError, match="expected \\(y, x, classes\\)"):
    measure_uncertainty(np.zeros((3, 3), np.float32))
