import cellprofiler
import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from dicexmbd_jax.masks import components, grid

NUMBERS = np.arange(10, dtype=np.int32)  # Each label stays as it is.


def test_sampling_reads_the_nearest_pixel():
  labels = np.arange(16, dtype=np.int32).reshape(4, 4)
  # Centres fall between four pixels: the later one.
  np.testing.assert_array_equal(
    grid.sample_labels(labels, (2, 2)), [[5, 7], [13, 15]]
  )
  np.testing.assert_array_equal(
    grid.sample_labels(labels, (4, 1)), [[2], [6], [10], [14]]
  )


def test_corners_can_be_aligned_as_scipys_zoom_does():
  labels = np.random.default_rng(0).integers(0, 99, (102, 58), np.int32)
  expected = ndimage.zoom(labels, 0.5, order=0, mode="nearest")
  result = grid.sample_labels(labels, (51, 29), aligns_corners=True)
  np.testing.assert_array_equal(result, expected)
  one = grid.sample_labels(labels, (1, 1), aligns_corners=True)
  assert one[0, 0] == labels[0, 0]


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (30, 41)])
def test_sampling_finds_every_pixel_of_a_smaller_plane(shape):
  labels = np.arange(21, dtype=np.int32).reshape(7, 3)
  sampled = grid.sample_labels(labels, shape)
  assert sampled.shape == shape
  if shape[0] >= 7 and shape[1] >= 3:
    assert set(sampled.ravel()) == set(range(21))


def test_sampling_its_own_grid_changes_nothing():
  labels = np.arange(21, dtype=np.int32).reshape(7, 3)
  np.testing.assert_array_equal(grid.sample_labels(labels, (7, 3)), labels)


@pytest.mark.parametrize(
  "shape", [(1, 1), (3, 4), (8, 9), (9, 11), (16, 18), (20, 50), (40, 41)]
)
def test_most_votes_win(shape):
  rng = np.random.default_rng(sum(shape))
  labels = rng.integers(0, 5, (6, 6)).repeat(3, 0).repeat(3, 1)
  labels = labels[:16].astype(np.int32)
  result = grid.vote_labels(labels, NUMBERS, shape)
  np.testing.assert_array_equal(result, cellprofiler.vote(labels, shape))


def draw_disk():
  y, x = np.mgrid[:60, :60] - 29.5
  return (np.hypot(y, x) < 20.3).astype(np.int32)


def test_votes_shift_outlines_less_than_the_nearest_pixel_does():
  disk = draw_disk()
  voted = grid.vote_labels(disk, NUMBERS, (30, 30))
  sampled = grid.sample_labels(disk, (30, 30))
  shifts = [
    np.hypot(*np.subtract(ndimage.center_of_mass(masks), 14.5))
    for masks in (voted, sampled)
  ]
  assert shifts[0] < 0.75 * shifts[1]
  np.testing.assert_allclose(voted.sum() * 4, disk.sum(), rtol=0.01)


def test_votes_smooth_outlines_on_a_finer_grid():
  disk = draw_disk()
  outlines = [
    measure.perimeter(masks)
    for masks in (
      grid.vote_labels(disk, NUMBERS, (150, 150)),
      grid.sample_labels(disk, (150, 150)),
    )
  ]
  circle = 2 * np.pi * 20.3 * 2.5
  assert circle * 0.98 < outlines[0] < outlines[1]


def test_votes_count_by_number():
  # Two seeds that became no nuclei are background together.
  labels = np.array([[1, 2, 3], [1, 2, 3], [1, 2, 3]], np.int32)
  numbers = np.array([0, 0, 7, 0], np.int32)
  assert grid.vote_labels(labels, numbers, (1, 1)).tolist() == [[0]]


@pytest.mark.parametrize("seed", range(20))
def test_halving_and_parting_are_cellprofilers(seed):
  rng = np.random.default_rng(seed)
  shape = 2 * rng.integers(1, 20, 2)
  labels = rng.integers(0, 5, shape).repeat(3, 0).repeat(3, 1)
  labels = labels[: shape[0], : shape[1]].astype(np.int32)
  result = grid.part_labels(grid.halve_labels(labels, NUMBERS))
  np.testing.assert_array_equal(result, cellprofiler.halve(labels))


def test_labels_are_numbered_before_they_are_halved():
  labels = np.array([[1, 1, 3, 2], [1, 1, 3, 2]], np.int32)
  numbers = np.array([0, 1, 0, 4], np.int32)
  result = grid.halve_labels(labels, numbers)
  np.testing.assert_array_equal(result, [[1, 2]])


def test_four_labels_may_make_a_fifth():
  labels = np.array([[1, 5], [3, 3]], np.int32)
  np.testing.assert_array_equal(grid.halve_labels(labels, NUMBERS), [[3]])


def test_parting_clears_a_line():
  labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]], np.int32)
  expected = [[1, 1, 0, 2], [1, 1, 0, 2]]
  np.testing.assert_array_equal(grid.part_labels(labels), expected)


def test_counting_and_replacing():
  labels = np.array([[0, 2], [2, 1]], np.int32)
  assert components.count_labels(labels, 4).tolist() == [1, 1, 2, 0]
  table = np.array([5, 0, 9, 1], np.int32)
  np.testing.assert_array_equal(
    components.replace_labels(labels, table), [[5, 9], [9, 0]]
  )
