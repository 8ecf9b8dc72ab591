import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from dicexmbd_jax.image import normalise

CHANNELS = hnp.arrays(
  np.float32,
  hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
  elements=st.floats(0, 2**20, width=32),
)


def test_hot_pixels_mean_replaces_only_those_above_the_threshold():
  channel = np.zeros((7, 7), np.float32)
  channel[3, 3] = 100  # Mean 4, so 96 above it.
  expected = channel.copy()
  expected[3, 3] = 4
  np.testing.assert_array_equal(
    normalise.remove_hot_pixels_mean(channel, 95.9), expected
  )
  np.testing.assert_array_equal(
    normalise.remove_hot_pixels_mean(channel, 96), channel
  )


@pytest.mark.parametrize("place", [(0, 0), (0, 3), (6, 6), (4, 6)])
def test_hot_pixels_mean_cleans_the_border(place):
  channel = np.zeros((7, 7), np.float32)
  channel[place] = 100
  cleaned = normalise.remove_hot_pixels_mean(channel, 50)
  assert cleaned[place] == 4
  assert cleaned.sum() == 4


@pytest.mark.parametrize("scale", [1, 1.1, 1e5])
@pytest.mark.parametrize("shape", [(1, 50), (2, 90), (3, 4), (60, 70)])
def test_hot_pixels_mean_is_scipys_filter_to_the_bit(shape, scale):
  """Few bright pixels of whole counts are looked at alone, others not."""
  rng = np.random.default_rng(0)
  for share in (0.01, 0.5):
    channel = rng.poisson(3, shape).astype(np.float32)
    is_bright = rng.random(shape) < share
    channel[is_bright] += rng.integers(20, 2000, np.count_nonzero(is_bright))
    channel *= np.float32(scale)
    mean = ndimage.uniform_filter(channel, 5, mode="mirror")
    expected = np.where(channel - mean > 20 * scale, mean, channel)
    np.testing.assert_array_equal(
      normalise.remove_hot_pixels_mean(channel, 20 * scale), expected
    )


def test_hot_pixels_max_takes_the_largest_neighbour():
  channel = np.arange(9, dtype=np.float32).reshape(3, 3)
  channel[1, 1] = 59
  np.testing.assert_array_equal(
    normalise.remove_hot_pixels_max(channel, 51), channel
  )
  cleaned = normalise.remove_hot_pixels_max(channel, 50)
  assert cleaned[1, 1] == 8
  cleaned[1, 1] = 59
  np.testing.assert_array_equal(cleaned, channel)


def test_hot_pixels_max_leaves_the_border_as_published():
  channel = np.zeros((5, 5), np.float32)
  channel[0, 2] = 1000
  np.testing.assert_array_equal(
    normalise.remove_hot_pixels_max(channel, 50), channel
  )


@pytest.mark.parametrize(
  "remove", [normalise.remove_hot_pixels_mean, normalise.remove_hot_pixels_max]
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (4, 6)])
def test_hot_pixels_leave_constant_channels_alone(remove, shape):
  channel = np.full(shape, 70, np.float32)
  np.testing.assert_array_equal(remove(channel, 50), channel)


def test_clip_percentile_interpolates_between_pixels():
  channel = np.array([[0, 1], [2, 10]], np.float32)
  # Rank 0.75 * 3 = 2.25: a quarter of the way from 2 to 10.
  np.testing.assert_array_equal(
    normalise.clip_percentile(channel, 75), [[0, 1], [2, 4]]
  )


def test_clip_percentile_empties_a_channel_with_hardly_any_signal():
  channel = np.zeros((40, 40), np.float32)
  channel[3, :4] = 30  # 4 of 1600 pixels; 4.8 lie above the 99.7th.
  assert not normalise.clip_percentile(channel, 99.7).any()


def test_scale_min_max_spans_0_to_255():
  channel = np.array([[2, 3], [4, 7]], np.float32)
  scaled = normalise.scale_min_max(channel)
  np.testing.assert_array_equal(scaled, [[0, 51], [102, 255]])
  assert scaled.dtype == np.float32
  assert channel[0, 0] == 2


@pytest.mark.parametrize("value", [0, 5])
def test_scale_min_max_of_a_constant_is_zeros(value):
  channel = np.full((2, 3), value, np.float32)
  np.testing.assert_array_equal(
    normalise.scale_min_max(channel), np.zeros((2, 3))
  )


@given(CHANNELS)
def test_scale_min_max_reaches_both_ends_and_keeps_order(channel):
  scaled = normalise.scale_min_max(channel)
  assert scaled.dtype == np.float32
  assert scaled.min() == 0
  assert scaled.max() == (255 if np.ptp(channel) else 0)
  order = np.argsort(channel, axis=None)
  assert (np.diff(scaled.ravel()[order]) >= 0).all()


@given(CHANNELS, st.floats(0, 100), st.floats(0, 1000))
def test_nothing_edits_its_argument(channel, percentile, threshold):
  before = channel.copy()
  normalise.remove_hot_pixels_mean(channel, threshold)
  normalise.remove_hot_pixels_max(channel, threshold)
  normalise.clip_percentile(channel, percentile)
  normalise.scale_min_max(channel)
  np.testing.assert_array_equal(channel, before)


@pytest.mark.parametrize("percentile", [0, 1, 50, 99, 99.7, 99.99, 100])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (70, 81), (300, 411)])
def test_percentile_is_numpys_to_the_bit(shape, percentile):
  rng = np.random.default_rng(0)
  smooth = rng.gamma(0.5, 8, shape).astype(np.float32)
  counts = rng.poisson(smooth / 9).astype(np.float32)
  # The guess looks at single pixels: all bright ones, or none.
  stripes = np.zeros(shape, np.float32)
  stripes.ravel()[::31] = 9
  for channel in (smooth, counts, stripes, stripes[::-1].T, 9 - stripes):
    found = normalise.find_percentile(channel, percentile)
    assert found == np.percentile(channel, percentile)
    assert found.dtype == np.float32


@given(CHANNELS, st.floats(0, 100))
def test_percentile_of_any_channel_is_numpys(channel, percentile):
  assert normalise.find_percentile(channel, percentile) == np.float32(
    np.percentile(channel, percentile)
  )
