import numpy as np
import pytest

from dicexmbd_jax.masks import confidence

CELLS = np.array([[1, 1, 2, 0]], np.int32)


def make_row(nucleus, membrane):
  background = [1 - n - m for n, m in zip(nucleus, membrane, strict=True)]
  return np.array([list(zip(nucleus, membrane, background, strict=True))])


def test_by_hand():
  maps = make_row([0.5, 0.9, 0.1, 0.0], [0.2, 0.1, 0.6, 0.1])
  table = confidence.measure_confidence(maps.astype(np.float32), CELLS)
  assert table.columns.tolist() == [
    "Object",
    "foreground_probability",
    "boundary_sharpness",
  ]
  assert table["Object"].tolist() == [1, 2]
  foreground = table["foreground_probability"]
  assert foreground.tolist() == pytest.approx([(0.7 + 1.0) / 2, 0.7])
  # Half of |0.8| + |-0.5| + |-0.3|, and of |0.1| + |0.5| + |-0.6|.
  sharpness = table["boundary_sharpness"]
  assert sharpness.tolist() == pytest.approx([0.8, (0.8 + 0.6) / 2], abs=1e-6)


def test_certain_cells_on_certain_ground_score_one():
  cells = np.zeros((6, 6), np.int32)
  cells[2:4, 2:4] = 1
  maps = np.zeros((6, 6, 3), np.float32)
  maps[..., 2] = 1
  maps[2:4, 2:4] = [1, 0, 0]
  row = confidence.measure_confidence(maps, cells).iloc[0]
  assert row.tolist() == [1, 1, 1]


def test_flat_maps_have_no_boundary():
  maps = np.full((1, 4, 3), 1 / 3, np.float32)
  table = confidence.measure_confidence(maps, CELLS)
  assert table["boundary_sharpness"].tolist() == [0, 0]


def test_a_cell_that_fills_the_image_has_no_outline():
  maps = np.full((3, 3, 3), 1 / 3, np.float32)
  table = confidence.measure_confidence(maps, np.ones((3, 3), np.int32))
  assert table["boundary_sharpness"].tolist() == [0]
  assert not table.isna().any().any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_and_two_maps(dtype):
  highest = np.iinfo(dtype).max
  maps = make_row([0.6, 0.8, 0.2, 0.0], [0.2, 0.0, 0.4, 0.0])
  whole = np.rint(maps * highest).astype(dtype)
  expected = confidence.measure_confidence(maps.astype(np.float32), CELLS)
  result = confidence.measure_confidence(whole[..., :2].copy(), CELLS)
  np.testing.assert_allclose(result, expected, atol=0.005)


def test_masks_on_another_grid_are_read_at_the_maps_centres():
  maps = make_row([0.5, 0.9, 0.1, 0.0], [0.2, 0.1, 0.6, 0.1])
  maps = maps.astype(np.float32)
  fine = CELLS.repeat(3, 0).repeat(3, 1)
  expected = confidence.measure_confidence(maps, CELLS)
  result = confidence.measure_confidence(maps, fine)
  np.testing.assert_array_equal(result, expected)


def test_no_cells():
  maps = np.zeros((2, 2, 3), np.float32)
  empty = np.zeros((2, 2), np.int32)
  assert len(confidence.measure_confidence(maps, empty)) == 0
