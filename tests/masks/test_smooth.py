import cellprofiler
import numpy as np
import pytest

from dicexmbd_jax.masks import smooth
from dicexmbd_jax.masks.blocks import Window, cut_blocks


def smooth_whole(plane, gaussian, is_single=False):
  window = Window(0, plane.shape[0], 0, plane.shape[1])
  return smooth.smooth_window(
    lambda part: plane[part.slices], gaussian, window, plane.shape, is_single
  )


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (30, 41)])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 4 / 2.35])
def test_equals_cellprofilers_gaussian(shape, sigma):
  plane = np.random.default_rng(0).random(shape)
  expected = cellprofiler.smooth_gaussian(plane, sigma)
  result = smooth_whole(plane, smooth.make_gaussian(sigma))
  np.testing.assert_allclose(result, expected, rtol=0, atol=2e-12)


@pytest.mark.parametrize("size", [1.0, 2.35 * 8 / 3.5])
def test_equals_cellprofilers_smoothing_for_maxima(size):
  plane = np.random.default_rng(0).random((17, 12))
  expected = cellprofiler.smooth_for_maxima(plane, size)
  result = smooth_whole(plane, smooth.make_declumping_gaussian(size))
  np.testing.assert_allclose(result, expected, rtol=0, atol=2e-12)


def test_single_precision_is_cellprofilers_to_the_bit():
  single = np.random.default_rng(0).random((17, 12), np.float32)
  plane = single.astype(float)
  expected = cellprofiler.smooth_gaussian(single, 1.7)
  result = smooth_whole(plane, smooth.make_gaussian(1.7), is_single=True)
  np.testing.assert_array_equal(result, expected)
  expected = cellprofiler.smooth_for_maxima(single, 5.4)
  gaussian = smooth.make_declumping_gaussian(5.4)
  result = smooth_whole(plane, gaussian, is_single=True)
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("is_single", [False, True])
@pytest.mark.parametrize("block", [1, 4, 7, 50])
def test_windows_do_not_matter(block, is_single):
  plane = np.random.default_rng(0).random((23, 31))
  gaussian = smooth.make_gaussian(1.7)
  whole = smooth_whole(plane, gaussian, is_single)
  for window in cut_blocks(plane.shape, block):
    part = smooth.smooth_window(
      lambda w: plane[w.slices], gaussian, window, plane.shape, is_single
    )
    np.testing.assert_array_equal(part, whole[window.slices])


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
def test_a_constant_stays_one_value(value):
  result = smooth_whole(np.full((20, 9), value), smooth.make_gaussian(1.7))
  assert np.unique(result).size == 1
  assert result[0, 0] == pytest.approx(value, abs=1e-12)


def test_sigma_zero_changes_nothing():
  plane = np.random.default_rng(0).random((4, 5))
  result = smooth_whole(plane, smooth.make_gaussian(0.0))
  np.testing.assert_array_equal(result, plane)
