"""Where patches lie, and what is in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicexmbd_jax.train import patches


def count_covering(shape, patch_px, origins):
  """Returns how many patches each pixel is in."""
  count = np.zeros(shape, int)
  for y, x in origins:
    count[y : y + patch_px, x : x + patch_px] += 1
  return count


@pytest.mark.parametrize(
  ("shape", "number"), [((1500, 500), 3), ((500, 1500), 3), ((513, 1), 2)]
)
def test_no_pixel_of_a_long_image_is_lost(shape, number):
  origins = patches.plan_grid(shape, 512, 512)
  assert len(origins) == number
  assert (count_covering(shape, 512, origins) == 1).all()


@given(
  st.tuples(st.integers(1, 40), st.integers(1, 40)),
  st.integers(1, 16),
  st.data(),
)
def test_every_pixel_is_cut(shape, patch_px, data):
  stride_px = data.draw(st.integers(1, patch_px))
  origins = patches.plan_grid(shape, patch_px, stride_px)
  count = count_covering(shape, patch_px, origins)
  assert count.min() >= 1
  assert len(set(origins)) == len(origins)
  if stride_px == patch_px:
    assert count.max() == 1


@given(st.tuples(st.integers(1, 20), st.integers(1, 20)), st.integers(1, 8))
def test_patches_put_together_are_the_image(shape, patch_px):
  image = np.arange(shape[0] * shape[1] * 2, dtype=np.float32)
  image = image.reshape(*shape, 2)
  whole = np.full_like(image, np.nan)
  for y, x in patches.plan_grid(shape, patch_px, patch_px):
    patch = patches.cut_patch(image, (y, x), patch_px)
    place = whole[y : y + patch_px, x : x + patch_px]
    place[:] = patch[: place.shape[0], : place.shape[1]]
  np.testing.assert_array_equal(whole, image)


def test_padding_lies_at_the_bottom_and_right():
  patch = patches.cut_patch(np.ones((3, 3, 3)), (2, 1), 3, fill=(0, 0, 5))
  np.testing.assert_array_equal(patch[0, :2], np.ones((2, 3)))
  np.testing.assert_array_equal(patch[0, 2], (0, 0, 5))
  np.testing.assert_array_equal(
    patch[1:], np.broadcast_to((0, 0, 5), (2, 3, 3))
  )


def test_overlapping_patches_follow_the_stride():
  assert patches.plan_grid((10, 4), 4, 3) == [(0, 0), (3, 0), (6, 0)]


@pytest.mark.parametrize("stride_px", [0, 5])
def test_a_stride_that_loses_pixels_is_refused(stride_px):
  with pytest.raises(ValueError, match="stride_px"):
    patches.plan_grid((8, 8), 4, stride_px)


def test_random_places_hang_on_their_words_alone():
  one = patches.draw_origins((100, 200), 16, 5, (0, "a"))
  assert one == patches.draw_origins((100, 200), 16, 5, (0, "a"))
  assert one != patches.draw_origins((100, 200), 16, 5, (0, "b"))
  assert one != patches.draw_origins((100, 200), 16, 5, (1, "a"))
  assert len(set(one)) == 5
  assert all(0 <= y <= 84 and 0 <= x <= 184 for y, x in one)


def test_small_images_have_few_random_places():
  assert patches.draw_origins((5, 3), 8, 4, ("a",)) == [(0, 0)]
  assert patches.draw_origins((5, 4), 4, 9, ("a",)) == [(0, 0), (1, 0)]


def test_an_empty_image_is_refused():
  with pytest.raises(ValueError, match="at least 1 x 1"):
    patches.plan_grid((0, 5), 4, 4)
