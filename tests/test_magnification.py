"""Which parts of an image are looked at, and what follows from their nuclei."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.default import get_config
from dicexmbd_jax import magnification

WINDOW = magnification.WINDOW_PX


def make_discs(shape, diameter, spacing):
  """Draws bright discs on a square lattice; returns (y, x, 2) in 0..255."""
  y, x = np.indices(shape)
  centre = spacing // 2
  radius = np.hypot(y % spacing - centre, x % spacing - centre)
  nuclear = np.where(radius <= diameter / 2, 255, 0)
  return np.stack([nuclear, np.zeros(shape)], -1).astype(np.float32)


def be_exact(images):
  """A network whose nuclei are the nuclear channel."""
  for key, image in images:
    nucleus = np.clip(image[..., 0] / 255, 0, 1)
    maps = [nucleus, np.zeros_like(nucleus), 1 - nucleus]
    yield key, np.stack(maps, -1).astype(np.float32)


def be_fragile(images):
  """Finds what the exact one does, and nothing where it is shown larger."""
  for key, maps in be_exact(images):
    yield key, maps if key == 0 else np.zeros_like(maps)


@pytest.mark.parametrize(
  ("diameter", "agreement", "expected"),
  [
    (5.4, 0.0, 1.0),
    (5.4, 1.0, 1.0),
    (4.15, 0.0, 1.3),
    (4.15, 1.0, 1.3),  # Only making an image smaller needs a reason.
    (6.75, 0.82, 0.8),
    (6.75, 0.85, 0.9),  # 0.8 to the power of one half.
    (6.75, 0.88, 1.0),
    (100.0, 0.0, 0.6),
    (1.0, 0.0, 1.75),
  ],
)
def test_factor(diameter, agreement, expected):
  assert magnification.choose_factor(diameter, agreement) == expected


@given(st.floats(0.1, 100), st.floats(0, 1))
def test_factors_are_steps_within_bounds(diameter, agreement):
  factor = magnification.choose_factor(diameter, agreement)
  assert magnification.LOWEST <= factor <= magnification.HIGHEST
  assert factor * 20 == pytest.approx(round(factor * 20))


@pytest.mark.parametrize(("network", "shrinks"),
                         [(be_exact, False), (be_fragile, True)])  # fmt: skip
def test_large_nuclei_are_shown_smaller_unless_they_stay_whole(
  network, shrinks
):
  image = make_discs((150, 150), 9, 15)
  factor = magnification.choose_magnification(image, get_config(), network)
  assert (factor < 0.8) if shrinks else (factor == 1)


def test_dim_nuclei_that_come_and_go_tell_that_little_is_known():
  """The masks have none of them, whatever the size."""
  image = make_discs((150, 150), 9, 15)
  y, x = np.indices((150, 150)) // 15
  image[(y + x) % 2 == 0] *= 0.45

  def lose_dim(images):
    for key, maps in be_exact(images):
      yield key, maps if key == 0 else maps * (maps[..., :1] > 0.5)

  config = get_config()
  config.segment.nucleus_correction = 0.5
  with config.segment.ignore_type():
    config.segment.min_nucleus_peak = 0.6
  assert magnification.choose_magnification(image, config, lose_dim) < 0.8


def test_small_nuclei_are_shown_larger():
  image = make_discs((150, 150), 2.5, 8)
  factor = magnification.choose_magnification(image, get_config(), be_exact)
  assert factor > 1.1


def test_an_image_without_nuclei_stays_as_it_is():
  image = np.zeros((40, 300, 2), np.float32)
  config = get_config()
  assert magnification.choose_magnification(image, config, be_exact) == 1


@pytest.mark.parametrize(
  ("shape", "count"),
  [
    ((1, 1), 1),
    ((100, 300), 1),
    ((512, 512), 1),
    ((1000, 1000), 4),
    ((3000, 3000), magnification.MAX_WINDOWS),
  ],
)
def test_number_of_windows(shape, count):
  windows = magnification.cut_windows(np.zeros((*shape, 2), np.float32))
  assert len(windows) == count
  height, width = (min(size, WINDOW) for size in shape)
  assert all(window.shape == (height, width, 2) for window in windows)


def test_windows_lie_where_the_nuclear_signal_is():
  image = np.zeros((600, 600, 2), np.float32)
  image[400:, 400:, 0] = 1  # In the last window, which ends with the image.
  image[:200, :200, 1] = 9  # Membrane does not count.
  (first, *_) = magnification.cut_windows(image)
  np.testing.assert_array_equal(first, image[344:600, 344:600])


def test_unsure_nuclei_do_not_count_where_others_are_sure():
  diameters = np.array([5.0, 5, 5, 5, 5, 9, 9, 9, 9, 9, 9])
  chance = np.array([0.9] * 5 + [0.2] * 6)
  assert magnification.measure_median(diameters, chance) == 5
  assert magnification.measure_median(diameters[1:], chance[1:]) == 9
