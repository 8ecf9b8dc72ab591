import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicexmbd_jax import storage
from dicexmbd_jax.image import resample

IMAGES = hnp.arrays(
  np.float32,
  hnp.array_shapes(min_dims=3, max_dims=3, max_side=8),
  elements=st.floats(0, 255, width=32),
)
SIZES = st.integers(1, 20)


def make_row(*values):
  return np.array(values, np.float32).reshape(1, -1, 1)


@pytest.mark.parametrize(
  ("size", "expected"),
  [
    (6, [0, 1, 2, 3, 4, 5]),
    (3, [0.5, 2.5, 4.5]),
    # 1.5 old pixels each: two thirds of one and one third of the next.
    (4, [1 / 3, 5 / 3, 10 / 3, 14 / 3]),
    (1, [2.5]),
  ],
)
def test_shrinking_averages_areas(size, expected):
  row = make_row(0, 1, 2, 3, 4, 5)
  result = resample.resample_image(row, (1, size))
  np.testing.assert_allclose(result.ravel(), expected, rtol=1e-6)


def test_growing_interpolates_between_centres_and_holds_the_ends():
  result = resample.resample_image(make_row(0, 4), (1, 4))
  np.testing.assert_array_equal(result.ravel(), [0, 1, 3, 4])


def test_one_axis_may_grow_while_the_other_shrinks():
  image = np.array([[0, 4], [2, 6]], np.float32)[..., None]
  result = resample.resample_image(image, (1, 4))
  np.testing.assert_array_equal(result[..., 0], [[1, 2, 4, 5]])


def test_channels_stay_apart():
  image = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
  result = resample.resample_image(image, (3, 9))
  for channel in range(3):
    np.testing.assert_array_equal(
      result[..., channel : channel + 1],
      resample.resample_image(image[..., channel : channel + 1], (3, 9)),
    )


def test_same_shape_is_the_identity():
  image = np.ones((3, 4, 2), np.float32)
  assert resample.resample_image(image, (3, 4)) is image


@given(IMAGES, SIZES, SIZES)
def test_shape_type_and_range(image, rows, columns):
  result = resample.resample_image(image, (rows, columns))
  assert result.shape == (rows, columns, image.shape[-1])
  assert result.dtype == np.float32
  assert result.flags.c_contiguous
  assert result.min() >= image.min()
  assert result.max() <= image.max()


def test_a_bright_plateau_does_not_grow_brighter():
  image = np.full((101, 103, 2), 255, np.float32)
  result = resample.resample_image(image, (202, 307))
  assert result.max() <= 255  # Without a limit 255.00003; records refuse it.


@given(IMAGES, st.data())
def test_shrinking_keeps_the_mean(image, data):
  rows, columns = (data.draw(st.integers(1, size)) for size in image.shape[:2])
  result = resample.resample_image(image, (rows, columns))
  np.testing.assert_allclose(
    result.mean((0, 1)), image.mean((0, 1)), rtol=1e-5, atol=1e-5
  )


@given(IMAGES, SIZES, SIZES)
def test_axes_and_directions_are_treated_alike(image, rows, columns):
  result = resample.resample_image(image, (rows, columns))
  turned = resample.resample_image(image.swapaxes(0, 1), (columns, rows))
  np.testing.assert_allclose(turned.swapaxes(0, 1), result, atol=1e-4)
  flipped = resample.resample_image(image[::-1, ::-1], (rows, columns))
  np.testing.assert_allclose(flipped[::-1, ::-1], result, atol=1e-4)


@given(SIZES, SIZES)
def test_constant_stays_constant(rows, columns):
  image = np.full((6, 6, 1), 200, np.float32)
  result = resample.resample_image(image, (rows, columns))
  np.testing.assert_allclose(result, 200, rtol=1e-6)


def test_a_ramp_stays_in_place_there_and_back():
  ramp = np.arange(100, dtype=np.float32).reshape(100, 1, 1)
  back = resample.resample_image(
    resample.resample_image(ramp, (40, 1)), (100, 1)
  )
  # Old pixels are flat areas, which costs up to 0.04; a grid shifted by half
  # a pixel would cost 0.5.
  np.testing.assert_allclose(back[2:-2], ramp[2:-2], atol=0.05)


@pytest.mark.parametrize(
  ("shape", "pixel_size_um", "target_um", "expected"),
  [
    ((500, 501), 1.0, 1.0, (500, 501)),
    ((1024, 1023), 0.4, 1.0, (410, 409)),
    ((5, 1), 0.5, 1.0, (3, 1)),
    ((1, 1), 0.1, 1.0, (1, 1)),
    ((10, 20), 2.0, 1.0, (20, 40)),
  ],
)
def test_resampled_shape(shape, pixel_size_um, target_um, expected):
  assert resample.resampled_shape(shape, pixel_size_um, target_um) == expected


@pytest.mark.parametrize("size_um", [0, -1, np.nan, np.inf])
def test_impossible_pixel_sizes_are_errors(size_um):
  with pytest.raises(ValueError, match=f"pixel_size_um: found {size_um}"):
    resample.resampled_shape((5, 5), size_um, 1)
  with pytest.raises(ValueError, match=f"target_um: found {size_um}"):
    resample.resampled_shape((5, 5), 1, size_um)


@pytest.mark.parametrize(
  ("old", "new"), [((0, 3), (2, 2)), ((2, 2), (3, 0)), ((2, 2), (-1, 2))]
)
def test_shapes_without_pixels_are_errors(old, new):
  with pytest.raises(ValueError, match="at least 1 x 1"):
    resample.resample_image(np.zeros((*old, 1), np.float32), new)


@pytest.mark.parametrize("shape", [(31, 90), (120, 20), (64, 33), (50, 48)])
def test_files_and_strips_do_not_matter(shape, cut_finely):
  image = np.random.default_rng(0).random((64, 48, 2), np.float32)
  whole = resample.resample_image(image, shape)
  with cut_finely():
    cut = resample.resample_image(image, shape)
  np.testing.assert_array_equal(cut, whole)
  assert storage.is_mapped(cut)
