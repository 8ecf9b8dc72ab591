import numpy as np
import pytest
from scipy import ndimage

from dicexmbd_jax.masks.components import label_groups


@pytest.mark.parametrize("seed", range(60))
def test_groups_are_scipys(seed):
  rng = np.random.default_rng(seed)
  field = rng.random(rng.integers(1, 40, 2))
  if seed % 2:
    field = ndimage.gaussian_filter(field, 1)
  mask = field > np.quantile(field, rng.random())
  expected, _ = ndimage.label(mask, np.ones((3, 3)))
  np.testing.assert_array_equal(label_groups(mask), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 7), (8, 6)])
def test_as_many_groups_as_fit(shape):
  mask = np.zeros(shape, bool)
  mask[::2, ::2] = True
  expected, count = ndimage.label(mask, np.ones((3, 3)))
  np.testing.assert_array_equal(label_groups(mask), expected)
  assert label_groups(mask).max() == count


@pytest.mark.parametrize("value", [False, True])
def test_uniform_masks(value):
  assert (label_groups(np.full((4, 5), value)) == value).all()


def test_groups_that_meet_late():
  mask = np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 0]], bool)
  assert (label_groups(mask) == mask).all()
