import numpy as np
import pytest
from centrosome.propagate import propagate

from dicexmbd_jax.masks import cheapest_paths

CLOSED = np.zeros(4, bool)


def grow(image, seeds, mask, weight=0.05, part=None, is_open=CLOSED):
  """Grows in a window (top, bottom, left, right) of the image."""
  height, width = image.shape
  top, bottom, left, right = part or (0, height, 0, width)
  first_y, first_x = max(top - 1, 0), max(left - 1, 0)
  inside = np.s_[top:bottom, left:right]
  costs = cheapest_paths.weigh_steps(
    np.ascontiguousarray(image[first_y : bottom + 1, first_x : right + 1]),
    np.ascontiguousarray(mask[inside]),
    top - first_y,
    left - first_x,
    weight,
  )
  return cheapest_paths.grow_forest(
    costs,
    np.ascontiguousarray(seeds[inside]),
    np.ascontiguousarray(mask[inside]),
    is_open,
  )


def draw(seed, num_levels=0):
  rng = np.random.default_rng(seed)
  shape = rng.integers(1, 40, 2)
  image = rng.random(shape)
  if num_levels:
    image = np.floor(image * num_levels) / num_levels
  seeds = rng.permutation(shape.prod()).reshape(shape) + 1
  seeds[rng.random(shape) > 0.03] = 0
  mask = rng.random(shape) < rng.random() ** 0.5
  return image, seeds.astype(np.int32), mask


def test_flat_ground_goes_to_the_nearest_seed():
  seeds = np.array([[1, 0, 0, 0, 0, 2]], np.int32)
  result = grow(np.zeros((1, 6)), seeds, np.ones((1, 6), bool))
  np.testing.assert_array_equal(result, [[1, 1, 1, 2, 2, 2]])


def test_a_tie_goes_to_the_lower_label():
  seeds = np.array([[2, 0, 1]], np.int32)
  result = grow(np.zeros((1, 3)), seeds, np.ones((1, 3), bool))
  np.testing.assert_array_equal(result, [[2, 1, 1]])


def test_a_step_in_the_image_keeps_cells_apart():
  image = np.array([[0.0] * 8 + [1.0] * 2] * 5)
  seeds = np.zeros((5, 10), np.int32)
  seeds[2, 0], seeds[2, 9] = 1, 2
  result = grow(image, seeds, np.ones((5, 10), bool))
  assert (result[:, :7] == 1).all()  # Farther from 1 than from 2, but flat.
  assert (result[:, 9] == 2).all()


def test_a_seed_outside_the_mask_stays_but_does_not_grow():
  seeds = np.array([[1, 0, 0]], np.int32)
  mask = np.array([[False, True, True]])
  result = grow(np.zeros((1, 3)), seeds, mask)
  np.testing.assert_array_equal(result, [[1, 0, 0]])


@pytest.mark.parametrize("weight", [0.001, 0.05, 1.0, 20.0])
@pytest.mark.parametrize("seed", range(25))
def test_is_centrosomes_propagate(seed, weight):
  image, seeds, mask = draw(seed)
  expected, _ = propagate(image, seeds, mask, weight)
  np.testing.assert_array_equal(grow(image, seeds, mask, weight), expected)


def test_step_costs_are_the_definition():
  rng = np.random.default_rng(0)
  image = rng.random((6, 7))
  costs = cheapest_paths.weigh_steps(image, np.ones((6, 7), bool), 0, 0, 0.3)
  near = np.pad(image, 1, mode="edge")
  steps = [(0, 1), (1, -1), (1, 0), (1, 1)]
  for index, (dy, dx) in enumerate(steps):
    for y in range(6 - dy):
      for x in range(max(0, -dx), 7 - max(0, dx)):
        here = near[y : y + 3, x : x + 3]
        there = near[y + dy : y + dy + 3, x + dx : x + dx + 3]
        change = np.abs(here - there).sum()
        expected = np.sqrt(change**2 + (dy + abs(dx)) * 0.09)
        cost = costs[index, (y + 1) * 9 + x + 1]
        assert cost == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(80))
def test_a_window_is_right_or_says_unknown(seed):
  image, seeds, mask = draw(seed, num_levels=seed % 6)
  whole = grow(image, seeds, mask)
  rng = np.random.default_rng(seed)
  height, width = mask.shape
  top, bottom = sorted(rng.choice(height + 1, 2, replace=False))
  left, right = sorted(rng.choice(width + 1, 2, replace=False))
  is_open = np.array([top > 0, bottom < height, left > 0, right < width])
  part = (top, bottom, left, right)
  result = grow(image, seeds, mask, part=part, is_open=is_open)
  is_known = result != cheapest_paths.UNKNOWN
  expected = whole[top:bottom, left:right]
  np.testing.assert_array_equal(result[is_known], expected[is_known])


def test_what_could_come_from_outside_is_unknown():
  seeds = np.array([[1, 0, 0, 0, 0, 0, 0]], np.int32)
  is_open = np.array([False, False, False, True])
  result = grow(np.zeros((1, 7)), seeds, np.ones((1, 7), bool), is_open=is_open)
  np.testing.assert_array_equal(result, [[1, 1, 1, -1, -1, -1, -1]])


def test_paths_wind_as_far_as_they_must():
  # Walls with a gap at every other end: few pixels get nearer in each sweep.
  mask = np.ones((21, 30), bool)
  mask[1::4, 1:] = mask[3::4, :-1] = False
  seeds = np.zeros(mask.shape, np.int32)
  seeds[-1, -1] = 7
  result = grow(np.zeros(mask.shape), seeds, mask)
  np.testing.assert_array_equal(result, np.where(mask, 7, 0))
