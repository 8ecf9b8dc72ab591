import cellprofiler
import numpy as np
import pytest
import skimage.transform

from dicexmbd_jax.masks import maps
from dicexmbd_jax.masks.blocks import Window, cut_blocks
from dicexmbd_jax.masks.settings import Settings


def read_whole(pixels, settings, name, **kwargs):
  working = maps.WorkingMaps(pixels, settings, **kwargs)
  window = Window(0, working.shape[0], 0, working.shape[1])
  return getattr(working, name)(window)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 4)])
def test_enlarges_as_scikit_image_does(scale, shape):
  pixels = np.random.default_rng(0).random((*shape, 2), np.float32) / 2
  result = read_whole(pixels, Settings(scale=scale), "read_foreground")
  expected = skimage.transform.resize(
    pixels.sum(-1, dtype=float),
    (shape[0] * scale, shape[1] * scale),
    order=1,
    mode="symmetric",
    anti_aliasing=False,
  )
  np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_the_smooth_map_is_cellprofilers():
  pixels = cellprofiler.make_maps((20, 24), 0)
  result = read_whole(pixels, Settings(), "read_smooth")
  nucleus = cellprofiler.enlarge(pixels)[..., 0]
  expected = np.clip(cellprofiler.smooth_gaussian(nucleus, 4 / 2.35), 0, 1)
  np.testing.assert_allclose(result, expected, rtol=0, atol=2e-12)


@pytest.mark.parametrize(
  "name",
  [
    "read_smooth",
    "read_foreground",
    "read_blurred",
    "read_thresholded_nucleus",
    "read_thresholded_foreground",
  ],
)
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_windows_do_not_matter(name, scale, monkeypatch):
  pixels = np.random.default_rng(0).random((19, 26, 3), np.float32)
  settings = Settings(scale=scale, nucleus_threshold_sigma_px=0.5)
  whole = read_whole(pixels, settings, name)
  monkeypatch.setattr(maps, "_MAX_KEPT_PX", 0)
  working = maps.WorkingMaps(pixels, settings)
  for window in cut_blocks(working.shape, 17):
    part = getattr(working, name)(window)
    np.testing.assert_array_equal(part, whole[window.slices])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_stand_for_shares_of_the_highest(dtype):
  highest = np.iinfo(dtype).max
  pixels = np.array([[[0, highest], [highest // 5, 0]]], dtype)
  result = read_whole(pixels, Settings(scale=1), "read_foreground")
  np.testing.assert_allclose(result, [[1, 0.2]], atol=1e-7)


def test_the_second_map_alone_can_be_the_foreground():
  pixels = np.array([[[0.5, 0.25]]], np.float32)
  settings = Settings(scale=1)
  alone = read_whole(pixels, settings, "read_foreground", adds_nucleus=False)
  assert alone[0, 0] == 0.25
  assert read_whole(pixels, settings, "read_foreground")[0, 0] == 0.75
