"""Images drawn around nuclei: cells contain them, and gaps are background."""

import numpy as np
import pytest

from dicexmbd_jax.simulate import drawn_nuclei


def make_nuclei():
  """Returns grey levels and two nuclei, 12 px apart."""
  nuclei = np.zeros((24, 32), np.int32)
  nuclei[8:16, 4:10] = 1
  nuclei[8:16, 22:28] = 2
  return np.where(nuclei > 0, 200, 10).astype(np.float32), nuclei


@pytest.mark.parametrize("seed", range(8))
def test_cells_keep_their_nuclei_and_the_gap_between(seed):
  nuclear, nuclei = make_nuclei()
  rng = np.random.default_rng(seed)
  image, cells = drawn_nuclei.stain_nuclei(rng, nuclear, nuclei)
  np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
  assert not cells[:, 13:19].any()  # Cells reach 3 px at most.
  assert image.shape == (24, 32, 2)
  assert (image >= 0).all() and (image == np.rint(image)).all()
  assert image[nuclei > 0, 0].mean() > image[:, 15:17, 0].mean()
  again = drawn_nuclei.stain_nuclei(
    np.random.default_rng(seed), nuclear, nuclei
  )
  np.testing.assert_array_equal(again[0], image)


def test_without_stained_membranes_all_cells_reach_as_far():
  for seed in range(8):
    rng = np.random.default_rng(seed)
    growth = drawn_nuclei.draw_growth(rng, 5, is_stained=False)
    assert growth[0] == 0
    assert set(growth[1:]) in ({0}, {1})


def test_stained_cells_reach_1_to_3_px_or_not_at_all():
  rng = np.random.default_rng(0)
  growth = drawn_nuclei.draw_growth(rng, 1000, is_stained=True)
  positive = growth[growth > 0]
  assert 350 < len(positive) <= 1000
  assert positive.min() >= 1 and positive.max() <= 3


def test_rims_are_bright_and_gaps_dark():
  _, nuclei = make_nuclei()
  distance, nearest = drawn_nuclei.measure_outside(nuclei)
  growth = np.array([0, 2, 2], np.float32)
  cells = np.where(distance <= growth[nearest], nearest, 0).astype(np.int32)
  rng = np.random.default_rng(0)
  signal = drawn_nuclei.stain_rims(rng, cells, distance, growth)
  is_rim = (cells == 1) & (nuclei == 0)
  assert signal[is_rim].mean() > 2 * signal[:, 15:17].mean()
  assert signal[is_rim].mean() > signal[11:13, 6:8].mean()


def test_no_nuclei_make_no_cells():
  empty = np.zeros((5, 4), np.int32)
  for seed in range(4):
    rng = np.random.default_rng(seed)
    image, cells = drawn_nuclei.stain_nuclei(rng, empty * 1.0, empty)
    assert not cells.any()
    assert np.isfinite(image).all()


def test_other_shapes_are_refused():
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match=r"nuclei: found \(2, 2\) px, expected"):
    drawn_nuclei.stain_nuclei(
      rng, np.zeros((3, 2), np.float32), np.zeros((2, 2), np.int32)
    )
