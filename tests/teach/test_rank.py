import numpy as np
import pytest

from dicexmbd_jax.teach import rank


def test_images_are_ordered_by_uncertainty_then_name():
  means = {"b": 0.2, "a": 0.2, "c": 0.9, "d": 0.0}
  assert rank.rank_images(means) == ["c", "a", "b", "d"]


def test_regions_are_the_highest_squares_and_never_overlap():
  values = np.zeros((6, 8), np.float32)
  values[1:3, 1:3] = 1.0
  values[3:5, 5:7] = 0.5
  values[2, 3] = 0.9  # Belongs to squares that overlap the first.
  found = rank.find_regions(values, 3, 2)
  assert found[0] == rank.Region(1, 1, 2, 2, 1.0)
  assert found[1] == rank.Region(3, 5, 2, 2, 0.5)
  painted = np.zeros(values.shape, int)
  for region in found:
    painted[region.slices] += 1
  assert len(found) == 3
  assert painted.max() == 1
  assert painted.sum() == 12


def test_of_equal_squares_the_first_is_taken():
  found = rank.find_regions(np.full((5, 7), 0.1, np.float32), 4, 3)
  assert [(region.y_px, region.x_px) for region in found] == [(0, 0), (0, 3)]


def test_a_square_is_no_larger_than_the_image():
  values = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 6)
  (region,) = rank.find_regions(values, 5, 64)
  assert (region.height_px, region.width_px) == (2, 6)
  assert region.uncertainty == pytest.approx(0.5)


@pytest.mark.parametrize(
  ("shape", "count", "edge_px"),
  [((0, 4), 1, 4), ((4, 4, 1), 1, 4), ((4, 4), 0, 4), ((4, 4), 1, 0)],
)
def test_regions_of_nothing_are_refused(shape, count, edge_px):
  with pytest.raises(ValueError, match="found"):
    rank.find_regions(np.zeros(shape, np.float32), count, edge_px)


def make_history(*values):
  return [{"a": value, "b": 0.5} for value in values]


def test_the_same_numbers_are_the_same_round():
  history = make_history(0.9, 0.8)
  assert rank.add_round(history, {"a": 0.8, "b": 0.5}) == history
  longer = rank.add_round(history, {"a": 0.7, "b": 0.5})
  assert longer == make_history(0.9, 0.8, 0.7)
  assert history == make_history(0.9, 0.8)


def test_three_rounds_without_a_fall_are_the_end():
  assert not rank.should_stop([])
  assert not rank.should_stop(make_history(0.9))
  assert not rank.should_stop(make_history(0.9, 0.8, 0.8, 0.8))
  assert rank.should_stop(make_history(0.9, 0.8, 0.8, 0.85, 0.8))
  assert not rank.should_stop(make_history(0.9, 0.8, 0.8, 0.85, 0.7))


def test_one_image_that_falls_is_enough_to_go_on():
  history = [{"a": 0.5, "b": 0.9 - 0.1 * n} for n in range(5)]
  assert rank.count_quiet_rounds(history) == 0
  assert rank.list_falls(history, 4) == ["b"]


def test_coming_back_from_a_rise_is_no_fall():
  assert rank.count_quiet_rounds(make_history(0.8, 0.9, 0.85, 0.8)) == 3


def test_a_fall_within_the_noise_is_none():
  step = rank.MIN_FALL * 0.9
  assert rank.count_quiet_rounds(make_history(0.8, 0.8 - step)) == 1
  assert rank.count_quiet_rounds(make_history(0.8, 0.8 - 1.2 * step)) == 0


def test_an_images_first_round_is_no_fall():
  history = [{"a": 0.5}, {"a": 0.5}, {"a": 0.5, "new": 0.1}]
  assert rank.count_quiet_rounds(history) == 2


def test_maps_of_finer_grids_are_averaged():
  fine = np.array([[0, 1, 0.5, 0.5], [0, 1, 0.5, 0.5]], np.float32)
  np.testing.assert_allclose(rank.shrink_map(fine, (1, 2)), [[0.5, 0.5]])
  np.testing.assert_array_equal(rank.shrink_map(fine, (2, 4)), fine)
  for shape in ((2, 3), (3, 4), (1, 1)):
    with pytest.raises(ValueError, match="found an uncertainty map"):
      rank.shrink_map(fine, shape)
