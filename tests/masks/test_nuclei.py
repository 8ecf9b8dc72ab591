import cellprofiler
import numpy as np
import pytest

from dicexmbd_jax.masks import nuclei
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.settings import PRESETS, Settings


@pytest.mark.parametrize("seed", range(4))
def test_nuclei_are_cellprofilers(seed):
  pixels = cellprofiler.make_maps((60, 75), seed)
  maps = WorkingMaps(pixels, Settings())
  result = nuclei.find_nuclei(maps, Settings())
  smooth = cellprofiler.smooth_gaussian(
    cellprofiler.enlarge(pixels)[..., 0], 4 / 2.35
  )
  expected = cellprofiler.find_nuclei(np.clip(smooth, 0, 1))
  assert result.max() > 20
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("preset", ["dice_xmbd", "touching"])
@pytest.mark.parametrize("seed", range(6))
def test_the_selection_is_cellprofilers(seed, preset):
  settings = PRESETS[preset]
  rng = np.random.default_rng(seed)
  found = rng.integers(0, 30, (14, 17)).repeat(3, 0).repeat(2, 1)
  found[rng.random(found.shape) < 0.3] = 0
  found = found.astype(np.int32)
  result = nuclei.select_nuclei(found, settings)
  expected = cellprofiler.select_nuclei(found, settings.keeps_border)
  np.testing.assert_array_equal(result[0], expected[0])
  np.testing.assert_array_equal(result[1], expected[1])


def test_border_objects_stay_as_seeds():
  found = np.zeros((9, 9), np.int32)
  found[:3, :3] = 1  # At the border.
  found[4:7, 4:7] = 2
  found[8, 4] = 3  # At the border, and small.
  kept, seeds = nuclei.select_nuclei(found, PRESETS["dice_xmbd"])
  assert kept[5, 5] == 1
  assert kept.max() == 1
  assert (seeds[0, 0], seeds[5, 5], seeds[8, 4]) == (2, 1, 4)
  kept, seeds = nuclei.select_nuclei(found, PRESETS["touching"])
  assert (kept[0, 0], kept[5, 5], kept[8, 4]) == (1, 2, 0)
  assert seeds is kept


def test_small_means_fewer_than_five_at_scale_two():
  found = np.zeros((5, 20), np.int32)
  found[2, 2:6] = 1
  found[2, 8:13] = 2
  kept, _ = nuclei.select_nuclei(found, Settings())
  assert (kept == 0).sum() == 95
