import annotator
import numpy as np
import pytest
from scipy import ndimage

from configs.default import get_config

EIGHT = np.ones((3, 3), bool)


def make_cells(shape=(60, 70), pitch=12):
  """Square cells of 10 px with a gap of 2."""
  y, x = np.indices(shape)
  ids = 1 + (y // pitch) * (shape[1] // pitch + 1) + x // pitch
  is_cell = (y % pitch < 10) & (x % pitch < 10) & (x < 48)
  return np.where(is_cell, ids, 0).astype(np.int32)


def draw(budget_px, seed=0, drawn=None, guide=None, classes=None):
  if classes is None:
    classes = annotator.classify_pixels(make_cells())
  return annotator.draw_strokes(
    classes,
    np.zeros_like(classes) if drawn is None else drawn,
    np.ones(classes.shape, np.float32) if guide is None else guide,
    budget_px,
    np.random.default_rng(seed),
  )


def test_classes_are_core_rim_and_background():
  cells = np.zeros((7, 9), np.int32)
  cells[1:6, 1:6] = 4
  classes = annotator.classify_pixels(cells)
  expected = np.full((7, 9), 3)
  expected[1:6, 1:6] = 2
  expected[2:5, 2:5] = 1
  np.testing.assert_array_equal(classes, expected)
  assert classes.dtype == np.uint8


def test_nuclei_that_are_known_are_the_nuclei():
  cells = np.zeros((5, 6), np.int32)
  cells[1:4, 1:5] = 1
  nuclei = np.zeros_like(cells)
  nuclei[2, 2] = 7
  classes = annotator.classify_pixels(cells, nuclei)
  assert np.argwhere(classes == 1).tolist() == [[2, 2]]
  assert np.count_nonzero(classes == 2) == 11
  with pytest.raises(ValueError, match="found nuclei"):
    annotator.classify_pixels(cells, nuclei[1:])


def test_the_rim_is_as_wide_as_in_the_targets():
  config = get_config()
  section = config.get("records", config.train)
  fraction = section.get("rim_fraction", config.train.get("rim_fraction"))
  assert fraction == annotator.RIM_FRACTION


@pytest.mark.parametrize("budget_px", [0, 1, 7, 100, 401])
def test_strokes_keep_the_budget_and_stay_in_their_class(budget_px):
  classes = annotator.classify_pixels(make_cells())
  strokes = draw(budget_px)
  is_drawn = strokes > 0
  assert strokes.dtype == np.uint8
  assert is_drawn.sum() == budget_px
  np.testing.assert_array_equal(strokes[is_drawn], classes[is_drawn])


def test_classes_are_balanced_whatever_their_area():
  for budget_px in (3, 31, 300):
    counts = np.bincount(draw(budget_px).ravel(), minlength=4)[1:]
    assert counts.sum() == budget_px
    assert counts.max() - counts.min() <= 2


def test_balance_counts_what_was_drawn_before():
  classes = annotator.classify_pixels(make_cells())
  drawn = np.where(classes == 3, 3, 0).astype(np.uint8)
  drawn[:, :50] = 0
  added = draw(60, drawn=drawn)
  np.testing.assert_array_equal(added[drawn > 0], drawn[drawn > 0])
  assert np.count_nonzero(added == 3) == np.count_nonzero(drawn == 3)


def test_lines_are_thin_and_of_a_persons_length():
  classes = np.full((200, 200), 3, np.uint8)
  strokes = draw(200, classes=classes)
  groups, count = ndimage.label(strokes, EIGHT)
  sizes = np.bincount(groups.ravel())[1:]
  assert count >= 200 / (2 * annotator.LONGEST_PX)
  assert np.median(sizes) >= annotator.SHORTEST_PX
  is_block = ndimage.binary_erosion(strokes > 0, np.ones((3, 3), bool))
  assert not is_block.any()


def test_the_seed_decides_the_strokes():
  np.testing.assert_array_equal(draw(90, seed=3), draw(90, seed=3))
  assert (draw(90, seed=3) != draw(90, seed=4)).any()


def test_full_images_take_what_they_can():
  classes = annotator.classify_pixels(make_cells())
  np.testing.assert_array_equal(draw(classes.size + 50), classes)


def test_no_stroke_goes_where_the_guide_forbids():
  guide = np.zeros((60, 70), np.float32)
  guide[20:40, 10:50] = 1
  strokes = draw(80, guide=guide)
  assert strokes.any()
  assert not strokes[guide == 0].any()


def test_strokes_begin_where_the_teacher_is_unsure():
  uncertainty = np.full((60, 70), 0.05, np.float32)
  uncertainty[:, :35] = 0.9
  strokes = draw(200, guide=annotator.make_guide(uncertainty))
  share = np.count_nonzero(strokes[:, :35]) / np.count_nonzero(strokes)
  assert share > 0.9


def test_a_certain_map_invites_nowhere():
  guide = annotator.make_guide(np.zeros((60, 70), np.float32))
  assert not draw(50, guide=guide).any()


def test_arrays_that_do_not_fit_are_refused():
  small = np.zeros((3, 3), np.uint8)
  with pytest.raises(ValueError, match="found an annotation of"):
    draw(5, drawn=small)
  with pytest.raises(ValueError, match="found an uncertainty map of"):
    draw(5, guide=small.astype(np.float32))
  with pytest.raises(ValueError, match="found a budget of -1"):
    draw(-1)


def test_a_budget_is_shared_to_the_pixel():
  assert annotator.share_budget(11, ["a", "b", "c"]) == {"a": 4, "b": 4, "c": 3}
  with pytest.raises(ValueError, match="no image"):
    annotator.share_budget(11, [])
