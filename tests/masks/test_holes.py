import numpy as np
import pytest
from centrosome import cpmorphology
from scipy import ndimage

from dicexmbd_jax.masks import holes


def fill(rows):
  return holes.fill_object_holes(np.array(rows, np.int32)).tolist()


def test_a_hole_takes_the_label_around_it():
  rows = [[0] * 5, [0, 3, 3, 3, 0], [0, 3, 0, 3, 0], [0, 3, 3, 3, 0], [0] * 5]
  filled = fill(rows)
  assert filled[2] == [0, 3, 3, 3, 0]
  assert filled[1] == rows[1]


def test_a_hole_between_two_objects_stays():
  rows = [[0, 1, 2, 0], [1, 0, 0, 2], [0, 1, 2, 0], [0, 0, 0, 0]]
  assert fill(rows) == rows


def test_an_enclosed_object_disappears():
  rows = [[0] * 5, [0, 1, 1, 1, 0], [0, 1, 2, 1, 0], [0, 1, 1, 1, 0], [0] * 5]
  assert fill(rows)[2] == [0, 1, 1, 1, 0]


def test_holes_open_to_the_edge_stay():
  rows = [[1, 0, 1], [1, 0, 1], [1, 1, 1]]
  assert fill(rows) == rows


def test_nothing_to_fill():
  assert fill([[0, 0], [0, 0]]) == [[0, 0], [0, 0]]
  assert fill([[4]]) == [[4]]


def draw_labels(seed):
  """Nested, crowded, scattered and noisy labels, with gaps in the ids."""
  rng = np.random.default_rng(seed)
  shape = rng.integers(1, 45, 2)
  kind = seed % 4
  if kind == 0:
    return rng.integers(0, 2 + seed % 5, shape).astype(np.int32)
  field = ndimage.gaussian_filter(rng.random(shape), 1 + seed % 3)
  levels = np.digitize(field, np.quantile(field, np.linspace(0, 1, 3 + kind)))
  if kind == 1:
    return (levels % 3).astype(np.int32)
  labels = np.zeros(shape, np.int32)
  for level in np.unique(levels):
    groups, count = ndimage.label(levels == level)
    names = rng.permutation(count + 1) + 2 * level
    labels = np.where(groups, names[groups], labels)
  labels[rng.random(shape) < 0.15] = 0
  return labels.astype(np.int32)


@pytest.mark.parametrize("seed", range(120))
def test_is_centrosomes_filling(seed):
  labels = draw_labels(seed)
  expected = cpmorphology.fill_labeled_holes(labels)
  np.testing.assert_array_equal(holes.fill_object_holes(labels), expected)


def test_arguments_are_not_changed():
  labels = draw_labels(2)
  before = labels.copy()
  holes.fill_object_holes(labels)
  np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize("seed", range(40))
def test_small_holes_are_filled_as_centrosome_does(seed):
  rng = np.random.default_rng(seed)
  shape = rng.integers(1, 45, 2)
  field = ndimage.gaussian_filter(rng.random(shape), seed % 3)
  mask = field > np.quantile(field, rng.random() * 0.6)
  if seed % 2:
    mask[[0, -1]] = mask[:, [0, -1]] = True  # All background is holes.
  limit = float(rng.integers(1, 40))
  result = holes.fill_small_holes(mask, limit)
  expected = cpmorphology.fill_labeled_holes(
    mask, size_fn=lambda size, is_foreground: size < limit
  )
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3)])
def test_uniform_masks_stay(shape, value):
  mask = np.full(shape, value)
  np.testing.assert_array_equal(holes.fill_small_holes(mask, 9.0), mask)


@pytest.mark.parametrize("seed", range(20))
def test_regions_are_scipys_groups(seed):
  labels = draw_labels(seed)
  regions, count = holes.number_regions(labels, int(labels.max()))
  groups, num_groups = ndimage.label(labels == 0)
  expected = np.where(labels > 0, labels, groups + labels.max())
  np.testing.assert_array_equal(regions, expected)
  assert count == labels.max() + num_groups
