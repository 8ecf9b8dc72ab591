import numpy as np
import pytest

from dicexmbd_jax import storage
from dicexmbd_jax.edges import mark_edges
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
    "confidence",
    "foreground_probability",
  ]
  assert table["Object"].tolist() == [1, 2]
  foreground = table["foreground_probability"]
  assert foreground.tolist() == pytest.approx([(0.7 + 1.0) / 2, 0.7])
  # Peaks 0.9 and 0.1; uncertainties (1 + 0.2) / 2 and 0.2; inside 0.5 and,
  # where all is edge, 0; at the edge 0.9 and 0.1.
  constant, peak, uncertainty, inside, edge = confidence.WEIGHTS
  scores = constant + np.array([0.9, 0.1]) * peak
  scores += np.array([0.6, 0.2]) * uncertainty
  scores += np.array([0.5, 0.0]) * inside + np.array([0.9, 0.1]) * edge
  assert table["confidence"].tolist() == pytest.approx(
    (1 / (1 + np.exp(-scores))).tolist(), abs=1e-6
  )


def test_a_nucleus_with_a_rim_is_trusted_and_others_are_not():
  cells = np.zeros((7, 21), np.int32)
  maps = np.zeros((7, 21, 3), np.float32)
  cells[1:6, 1:6], maps[2:5, 2:5, 0] = 1, 1.0  # Sure, with a rim.
  cells[1:6, 8:13], maps[1:6, 8:13, 0] = 2, 0.5  # Flat.
  # Nucleus up to the edge, and beyond it: a part of something larger.
  cells[1:6, 15:20], maps[:, 14:, 0] = 3, 1.0
  table = confidence.measure_confidence(maps, cells)
  sure, flat, part = table["confidence"]
  assert sure > 0.98
  assert flat < 0.01
  assert part < 0.01


def test_strips_do_not_change_what_is_edge(monkeypatch):
  rng = np.random.default_rng(0)
  maps = rng.random((40, 30, 3), np.float32)
  cells = rng.integers(0, 3, (8, 6)).repeat(5, 0).repeat(5, 1).astype(np.int32)
  whole = confidence.measure_evidence(maps, cells)
  monkeypatch.setattr(storage, "STRIP_BYTES", 1)  # A row at a time.
  rows = confidence.measure_evidence(maps, cells)
  np.testing.assert_allclose(rows, whole, rtol=1e-12)
  edges = mark_edges(cells)
  for label in 1, 2:
    own = cells == label
    row = whole.iloc[label - 1]
    assert row["edge"] == pytest.approx(maps[own & edges, 0].mean())
    assert row["inside"] == pytest.approx(maps[own & ~edges, 0].mean())


def test_a_cell_between_the_maps_pixels_has_no_confidence():
  cells = np.zeros((3, 3), np.int32)
  cells[0, 0] = 1
  table = confidence.measure_confidence(np.ones((1, 1, 3), np.float32), cells)
  assert table.iloc[0].tolist() == [1, 0, 0]


def test_doubt_is_what_the_cells_lack_in_confidence():
  maps = make_row([0.9, 0.7, 0.6, 0.0], [0.0, 0.1, 0.1, 0.0])
  maps = maps.astype(np.float32)
  table = confidence.measure_confidence(maps, CELLS)
  doubt = confidence.measure_doubt(maps, CELLS)
  assert doubt == pytest.approx(1 - table["confidence"].mean())
  assert confidence.measure_doubt(maps, np.zeros_like(CELLS)) is None


def test_advice_comes_above_the_limit_alone():
  limit = confidence.HIGH_DOUBT
  assert confidence.advise(None) == ()
  assert confidence.advise(limit) == ()
  (line,) = confidence.advise(limit + 0.25)
  assert f"({limit + 0.25:.2f} of 1)" in line
  assert "\n" not in line


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
