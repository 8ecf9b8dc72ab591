import heapq

import numpy as np
import pytest
import skimage.segmentation

from dicexmbd_jax.masks import flood

CLOSED = np.zeros(4, bool)


def flood_plainly(levels, markers, mask):
  """The definition, with a plain heap."""
  labels = np.where(mask, markers, 0)
  queue = [
    (levels[y, x], age, y, x)
    for age, (y, x) in enumerate(np.argwhere(labels).tolist())
  ]
  heapq.heapify(queue)
  age = len(queue)
  near = [(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
  while queue:
    _, _, y, x = heapq.heappop(queue)
    for dy, dx in near:
      v, u = y + dy, x + dx
      if not (0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]):
        continue
      if mask[v, u] and labels[v, u] == 0:
        labels[v, u] = labels[y, x]
        age += 1
        heapq.heappush(queue, (levels[v, u], age, v, u))
  return labels


def draw(seed, num_levels):
  rng = np.random.default_rng(seed)
  shape = rng.integers(1, 40, 2)
  levels = rng.permutation(shape.prod()).reshape(shape) % num_levels
  mask = rng.random(shape) < rng.random() ** 0.5
  markers = rng.permutation(shape.prod()).reshape(shape) + 1
  markers[rng.random(shape) > 0.03] = 0
  return levels, markers.astype(np.int32), mask


def test_first_in_first_out_parts_a_plateau_in_the_middle():
  markers = np.array([[1, 0, 0, 0, 0, 2]], np.int32)
  levels = np.zeros((1, 6), np.int64)
  result = flood.flood_markers(levels, markers, levels == 0, CLOSED, True)
  np.testing.assert_array_equal(result, [[1, 1, 1, 2, 2, 2]])


def test_water_does_not_leave_the_mask():
  markers = np.array([[1, 0, 0, 0, 2]], np.int32)
  mask = np.array([[True, True, False, True, False]])
  levels = np.zeros((1, 5), np.int64)
  result = flood.flood_markers(levels, markers, mask, CLOSED, True)
  np.testing.assert_array_equal(result, [[1, 1, 0, 0, 0]])


@pytest.mark.parametrize("seed", range(40))
def test_is_scikit_images_watershed(seed):
  levels, markers, mask = draw(seed, 10**9)  # No two levels are equal.
  result = flood.flood_markers(levels, markers, mask, CLOSED, True)
  expected = skimage.segmentation.watershed(
    levels, markers * mask, connectivity=np.ones((3, 3)), mask=mask
  )
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("seed", range(40))
def test_ties_go_by_age(seed):
  levels, markers, mask = draw(seed, 1 + seed % 5)
  result = flood.flood_markers(levels, markers, mask, CLOSED, True)
  expected = flood_plainly(levels, markers, mask)
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("seed", range(40))
def test_equal_markers_can_go_as_scikit_images_heap_has_them(seed):
  levels, markers, mask = draw(seed, 10**9)
  levels = np.where(markers > 0, 0, levels + 1)
  result = flood.flood_markers(levels, markers, mask, CLOSED, False)
  expected = skimage.segmentation.watershed(
    levels, markers * mask, connectivity=np.ones((3, 3)), mask=mask
  )
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("seed", range(60))
def test_a_window_is_right_or_says_unknown(seed):
  levels, markers, mask = draw(seed, 1 + seed % 7)
  whole = flood.flood_markers(levels, markers, mask, CLOSED, True)
  rng = np.random.default_rng(seed)
  height, width = mask.shape
  top, bottom = sorted(rng.choice(height + 1, 2, replace=False))
  left, right = sorted(rng.choice(width + 1, 2, replace=False))
  part = np.s_[top:bottom, left:right]
  is_open = np.array([top > 0, bottom < height, left > 0, right < width])
  result = flood.flood_markers(
    *(np.ascontiguousarray(a[part]) for a in (levels, markers, mask)),
    is_open,
    True,
  )
  is_known = result != flood.UNKNOWN
  np.testing.assert_array_equal(result[is_known], whole[part][is_known])


def test_windows_know_what_is_far_from_their_open_sides():
  markers = np.array([[1, 0, 0, 0, 2, 0, 0, 0, 3]], np.int32)
  levels = np.zeros((1, 9), np.int64)
  is_open = np.array([False, False, False, True])
  result = flood.flood_markers(
    levels[:, :8].copy(),
    markers[:, :8].copy(),
    levels[:, :8] == 0,
    is_open,
    True,
  )
  np.testing.assert_array_equal(result, [[1, 1, 1, 2, 2, 2, -1, -1]])


def test_water_that_runs_down_into_a_hollow_stays_what_it_was():
  # Marker 1 fills the hollow behind its level of 3 before 2 comes down.
  levels = np.array([[3, 0, 1, 4, 2, 5, 1]])
  markers = np.array([[1, 0, 0, 0, 0, 0, 2]], np.int32)
  result = flood.flood_markers(levels, markers, levels >= 0, CLOSED, True)
  np.testing.assert_array_equal(result, [[1, 1, 1, 1, 1, 2, 2]])
