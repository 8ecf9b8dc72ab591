import numpy as np
import pytest

from dicexmbd_jax import storage
from dicexmbd_jax.image import evidence


def draw_cells(height=80, width=90):
  """Two bright nuclei 12 px apart on a dark field; all is called foreground.

  There is some membrane signal, far from them.
  """
  y, x = np.mgrid[:height, :width].astype(np.float32)
  image = np.full((height, width, 2), 5, np.float32)
  image[..., 1] = 0
  image[-8:, -16:, 1] = 255
  for column in (34, 46):
    image[np.hypot(y - 40, x - column) < 4, 0] = 200
  maps = np.zeros((height, width, 3), np.float32)
  maps[..., 0], maps[..., 1], maps[..., 2] = 0.3, 0.5, 0.2
  return image, maps


def limit(maps, image, nuclear=0.6, membrane=0.1):
  return evidence.limit_foreground(maps.copy(), image, nuclear, membrane)


def test_dark_gaps_become_background():
  image, maps = draw_cells()
  limited = limit(maps, image)
  # In the middle of a nucleus nothing changes, between them nearly all does.
  np.testing.assert_array_equal(limited[40, 34], maps[40, 34])
  np.testing.assert_array_equal(limited[40, 46], maps[40, 46])
  assert limited[40, 40, 2] > 0.8
  assert limited[5, 5, 2] == 1


def test_probabilities_still_sum_to_one_and_keep_their_ratio():
  image, maps = draw_cells()
  limited = limit(maps, image)
  np.testing.assert_allclose(limited.sum(-1), 1, rtol=1e-6)
  assert limited.min() >= 0
  kept = limited[..., 0] > 0
  np.testing.assert_allclose(
    limited[kept, 1] / limited[kept, 0], 0.5 / 0.3, rtol=1e-5
  )


def test_without_membrane_signal_cytoplasm_ends_nowhere():
  image, maps = draw_cells()
  image[..., 1] = 0
  limited = limit(maps, image)
  np.testing.assert_array_equal(limited[..., 2], maps[..., 2])
  np.testing.assert_allclose(limited[..., :2].sum(-1), 0.8, rtol=1e-6)
  np.testing.assert_array_equal(limited[40, 34], maps[40, 34])
  assert limited[40, 40, 0] < 0.05
  assert limited[5, 5, 0] == 0


def test_probabilities_never_exceed_one():
  image, maps = draw_cells()
  maps[...] = 0.9  # As a network may have it, whose three are independent.
  for level in (0, 255):
    image[-8:, -16:, 1] = level
    limited = limit(maps, image)
    assert limited.min() >= 0
    assert limited.max() <= 1


def test_membrane_bears_out_what_nuclei_do_not():
  image, maps = draw_cells()
  image[30:50, 38:42, 1] = 60  # Dim against the brightest, bright around.
  limited = limit(maps, image)
  np.testing.assert_array_equal(limited[40, 40], maps[40, 40])
  assert limited[60, 60, 2] > 0.99


def test_dim_cells_are_measured_by_their_own_brightness():
  image, maps = draw_cells()
  y, x = np.mgrid[:80, :90]
  image[np.hypot(y - 15, x - 70) < 4, 0] = 60
  limited = limit(maps, image)
  np.testing.assert_array_equal(limited[15, 70], maps[15, 70])


@pytest.mark.parametrize("membrane", [0, 120])
def test_a_nucleus_alone_in_a_large_field_stays(membrane):
  image = np.zeros((150, 160, 2), np.float32)
  y, x = np.mgrid[:150, :160]
  image[np.hypot(y - 40, x - 30) < 4, 0] = 200
  image[100:140, :60, 1] = membrane
  maps = np.full((150, 160, 3), 0.3, np.float32)
  limited = limit(maps, image)
  np.testing.assert_array_equal(limited[40, 30], maps[40, 30])
  assert limited[80, 100, 0] == 0
  # Without membrane signal nothing tells where cytoplasm ends.
  assert limited[80, 100, 2] == (1 if membrane else maps[80, 100, 2])


@pytest.mark.parametrize("level", [0, 7, 255])
def test_an_even_image_changes_nothing(level):
  _, maps = draw_cells()
  image = np.full((80, 90, 2), level, np.float32)
  np.testing.assert_array_equal(limit(maps, image), maps)


def test_shares_of_one_ask_for_the_brightest():
  image, maps = draw_cells()
  lenient = limit(maps, image, 0.3)
  strict = limit(maps, image, 1.0)
  assert (strict[..., 2] >= lenient[..., 2]).all()
  assert (strict[..., 2] > lenient[..., 2]).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (40, 2), (97, 63)])
@pytest.mark.parametrize("rows", [1, 10, 40])
def test_strips_change_nothing(shape, rows, monkeypatch):
  rng = np.random.default_rng(0)
  image = (255 * rng.random((*shape, 2)) ** 3).astype(np.float32)
  maps = rng.dirichlet((1, 1, 1), shape).astype(np.float32)
  whole = limit(maps, image)
  monkeypatch.setattr(storage, "STRIP_BYTES", 32 * shape[1] * rows)
  np.testing.assert_array_equal(limit(maps, image), whole)


def test_ranges_are_the_percentiles_of_the_smoothed_image():
  rng = np.random.default_rng(1)
  image = (255 * rng.random((60, 70, 2))).astype(np.float32)
  for i, found in enumerate(evidence.measure_ranges(image)):
    smooth = evidence._smooth(image[..., i])
    wanted = np.percentile(
      smooth, (evidence.DARK_PERCENT, evidence.BRIGHT_PERCENT)
    )
    np.testing.assert_allclose(found, wanted, atol=0.5)
