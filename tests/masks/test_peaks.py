import numpy as np
import pytest
from centrosome import cpmorphology
from scipy import ndimage

from dicexmbd_jax.masks import peaks


def test_a_brighter_pixel_of_another_label_does_not_count():
  values = np.array([[1.0, 3.0, 2.0, 2.0]])
  labels = np.array([[1, 2, 1, 1]], np.int32)
  found = peaks.find_peaks(values, labels, peaks.list_disk(2.5))
  np.testing.assert_array_equal(found, [[False, True, True, True]])


def test_zero_is_no_peak():
  values = np.zeros((3, 3))
  labels = np.ones((3, 3), np.int32)
  assert not peaks.find_peaks(values, labels, peaks.list_disk(1.0)).any()


def test_disk():
  steps = peaks.list_disk(1.0)
  assert sorted(map(tuple, steps.tolist())) == [
    (-1, 0),
    (0, -1),
    (0, 1),
    (1, 0),
  ]
  assert len(peaks.list_disk(8 / 1.5 - 0.5)) + 1 == int(
    cpmorphology.strel_disk(8 / 1.5 - 0.5).sum()
  )


@pytest.mark.parametrize("seed", range(60))
def test_peaks_are_centrosomes(seed):
  rng = np.random.default_rng(seed)
  shape = rng.integers(1, 40, 2)
  labels, _ = ndimage.label(rng.random(shape) < rng.random(), np.ones((3, 3)))
  # Few levels: plateaus and ties.
  values = rng.integers(1, 6, shape) / 7 if seed % 3 else rng.random(shape)
  radius = rng.choice([1.0, 2.5, 4.83])
  result = peaks.find_peaks(values, labels, peaks.list_disk(radius))
  expected = cpmorphology.is_local_maximum(
    values, labels, cpmorphology.strel_disk(radius)
  )
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("seed", range(60))
def test_shrinking_is_centrosomes(seed):
  rng = np.random.default_rng(seed)
  image = rng.random(rng.integers(1, 40, 2))
  if seed % 2:
    image = ndimage.gaussian_filter(image, 2)
  image = image > np.quantile(image, rng.random())
  result = peaks.shrink_peaks(image)
  expected = image if not image.any() else cpmorphology.binary_shrink(image)
  np.testing.assert_array_equal(result, expected)


def test_a_ring_keeps_its_hole():
  ring = np.ones((5, 5), bool)
  ring[2, 2] = False
  shrunk = peaks.shrink_peaks(ring)
  assert shrunk.sum() > 1
  assert ndimage.label(shrunk, np.ones((3, 3)))[1] == 1


def test_nothing_shrinks_to_nothing():
  assert not peaks.shrink_peaks(np.zeros((3, 2), bool)).any()


@pytest.mark.parametrize("side", [1, 2, 7, 8, 40])
def test_plateaus_shrink_as_in_the_library(side):
  rng = np.random.default_rng(side)
  image = np.zeros((50, 60), bool)
  image[3 : 3 + side, 5 : 5 + side] = True
  image[rng.integers(0, 50, 4 * side), rng.integers(0, 60, 4 * side)] ^= True
  np.testing.assert_array_equal(
    peaks.shrink_peaks(image), cpmorphology.binary_shrink(image)
  )
