import numpy as np
import pytest
import skimage.segmentation
from scipy import ndimage

from dicexmbd_jax.masks import flood
from dicexmbd_jax.masks.distance import grow_labels
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.settings import Settings


def draw_seeds(seed, shape):
  rng = np.random.default_rng(seed)
  seeds = np.zeros(shape, np.int32)
  for label in range(1, 8):
    y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
    seeds[y : y + 3, x : x + 3] = label
  return seeds


def test_distance_takes_the_nearest_within_reach():
  seeds = np.zeros((1, 30), np.int32)
  seeds[0, 3], seeds[0, 15] = 1, 2
  result = grow_labels(seeds, 4.0)[0]
  expected = [1] * 8 + [0] * 3 + [2] * 9 + [0] * 10
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("seed", range(5))
def test_distance_is_by_brute_force(seed):
  seeds = draw_seeds(seed, (20, 24))
  result = grow_labels(seeds, 4.5)
  points = np.argwhere(seeds)
  for y, x in np.ndindex(seeds.shape):
    distances = np.hypot(*(points - [y, x]).T)
    near = points[distances == distances.min()]
    allowed = {int(seeds[tuple(p)]) for p in near}
    assert result[y, x] in (allowed if distances.min() <= 4.5 else {0})


@pytest.mark.parametrize("reach_px", [0, 1, 2.5, 4, 30])
@pytest.mark.parametrize("share", [0.005, 0.05, 0.5])
def test_distance_breaks_ties_as_scipy(share, reach_px, cut_finely):
  rng = np.random.default_rng(0)
  seeds = rng.integers(1, 99, (40, 50), np.int32)
  seeds[rng.random(seeds.shape) > share] = 0
  distances, (rows, columns) = ndimage.distance_transform_edt(
    seeds == 0, return_indices=True
  )
  expected = np.where(distances <= reach_px, seeds[rows, columns], 0)
  np.testing.assert_array_equal(grow_labels(seeds, reach_px), expected)
  with cut_finely():
    np.testing.assert_array_equal(grow_labels(seeds, reach_px), expected)


def test_distance_without_nuclei():
  seeds = np.zeros((4, 4), np.int32)
  assert not grow_labels(seeds, 5.0).any()


@pytest.mark.parametrize("block_px", [4, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_watershed_is_cellprofilers(seed, block_px):
  rng = np.random.default_rng(seed)
  pixels = rng.random((20, 24, 2), np.float32)
  settings = Settings(scale=1, block_px=block_px)
  maps = WorkingMaps(pixels, settings, adds_nucleus=False)
  seeds = draw_seeds(seed, (20, 24))
  mask = rng.random((20, 24)) < 0.8
  result = flood.spread_watershed(maps, seeds, mask, settings)
  expected = skimage.segmentation.watershed(
    np.abs(ndimage.sobel(pixels[..., 1].astype(float))),
    seeds,
    connectivity=np.ones((3, 3)),
    mask=mask | (seeds > 0),
  )
  np.testing.assert_array_equal(result, expected)
