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
  found = cellprofiler.renumber(found).astype(np.int32)
  seeds, numbers = nuclei.select_nuclei(found, settings)
  kept, expected = cellprofiler.select_nuclei(found, settings.keeps_border)
  np.testing.assert_array_equal(numbers[seeds], kept)
  # CellProfiler leaves holes in its seeds; the cells' holes are filled later.
  is_seed = expected > 0
  np.testing.assert_array_equal(seeds[is_seed] > 0, True)
  np.testing.assert_array_equal((seeds > 0) & ~is_seed, (kept > 0) & ~is_seed)


def draw_three():
  found = np.zeros((9, 9), np.int32)
  found[:3, :3] = 1  # At the border.
  found[4:7, 4:7] = 2
  found[8, 4] = 3  # At the border, and small.
  return found


def test_border_objects_stay_as_seeds():
  found = draw_three()
  seeds, numbers = nuclei.select_nuclei(found, PRESETS["dice_xmbd"])
  np.testing.assert_array_equal(seeds, found)
  assert numbers.tolist() == [0, 0, 1, 0]


def test_border_objects_can_be_nuclei_unless_small():
  found = draw_three()
  seeds, numbers = nuclei.select_nuclei(found, PRESETS["touching"])
  np.testing.assert_array_equal(seeds, found)
  assert numbers.tolist() == [0, 1, 2, 0]


def test_small_means_fewer_than_five_at_scale_two():
  found = np.zeros((5, 20), np.int32)
  found[2, 2:6] = 1
  found[2, 8:13] = 2
  seeds, numbers = nuclei.select_nuclei(found, Settings())
  assert numbers.tolist() == [0, 0, 1]
  assert np.unique(seeds).tolist() == [0, 2]


def test_no_nuclei():
  seeds, numbers = nuclei.select_nuclei(np.zeros((4, 5), np.int32), Settings())
  assert not seeds.any()
  assert numbers.tolist() == [0]
