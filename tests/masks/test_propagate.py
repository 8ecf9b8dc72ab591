import numpy as np
import pytest

from dicexmbd_jax.masks import segment
from dicexmbd_jax.masks.propagate import limit_growth

SEEDS = np.array([[0, 2, 0, 0, 0, 3], [0, 0, 0, 0, 0, 0]], np.int32)
CELLS = np.array([[2, 2, 2, 2, 3, 3], [2, 2, 2, 2, 3, 3]], np.int32)


def test_pixels_beyond_the_radius_become_background():
  expected = [[2, 2, 2, 0, 3, 3], [0, 2, 0, 0, 0, 3]]
  assert limit_growth(CELLS, SEEDS, 1.0).tolist() == expected
  assert limit_growth(CELLS, SEEDS, 1.4).tolist() == expected
  assert limit_growth(CELLS, SEEDS, 0.9).tolist() == SEEDS.tolist()


def test_the_radius_is_inclusive_and_diagonals_count():
  expected = [[2, 2, 2, 0, 3, 3], [2, 2, 2, 0, 3, 3]]
  assert limit_growth(CELLS, SEEDS, 2**0.5).tolist() == expected
  assert limit_growth(CELLS, SEEDS, 5.0).tolist() == CELLS.tolist()


def test_another_cells_nucleus_does_not_count():
  cells = np.array([[1, 1, 1, 1, 2]], np.int32)
  seeds = np.array([[1, 0, 0, 0, 2]], np.int32)
  assert limit_growth(cells, seeds, 1.0).tolist() == [[1, 1, 0, 0, 2]]


def test_the_input_stays_as_it_was():
  cells = CELLS.copy()
  limit_growth(cells, SEEDS, 1.0)
  assert cells.tolist() == CELLS.tolist()


def make_disks():
  """Maps of two nuclei of radius 4 in one sheet of membrane, 40 x 60."""
  y, x = np.indices((40, 60))
  maps = np.zeros((40, 60, 3), np.float32)
  for left in (15, 45):
    maps[np.hypot(y - 20, x - left) <= 4, 0] = 1
  maps[..., 1] = 1 - maps[..., 0]
  return maps


@pytest.mark.parametrize(("map_um", "reach_px"), [(1.0, 4.0), (0.5, 8.0)])
def test_the_limit_is_in_um_of_the_tissue(map_um, reach_px):
  settings = {"preset": "touching", "max_growth_um": 4.0, "scale": 1}
  found = segment.segment_image(make_disks(), settings, map_um=map_um)
  y, x = np.nonzero(found.cells)
  inner = np.argwhere(found.nuclei)
  gaps = np.hypot(y[:, None] - inner[:, 0], x[:, None] - inner[:, 1])
  farthest = gaps.min(axis=1).max()
  assert reach_px - 1 < farthest <= reach_px


def test_no_limit_lets_cells_fill_the_foreground():
  settings = {"preset": "touching", "max_growth_um": 0.0}
  assert (segment.segment_image(make_disks(), settings).cells > 0).all()
  cut = segment.segment_image(make_disks(), {"preset": "touching"})
  assert (cut.cells > 0).mean() < 0.2
