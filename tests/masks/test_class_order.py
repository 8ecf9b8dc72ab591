import itertools

import cellprofiler
import numpy as np
import pytest
import tifffile

from dicexmbd_jax.masks.class_order import CLASSES, find_doubt, guess_order

ORDERS = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS)
def test_maps_in_any_order_are_known(order):
  maps = cellprofiler.draw_rings()[..., list(order)]
  names = tuple(CLASSES[k] for k in order)
  assert guess_order(maps) == names
  assert guess_order((maps * 255).astype(np.uint8)) == names
  assert guess_order(maps[..., :2]) == names


@pytest.mark.parametrize("top", [1.0, 255, 65535])
def test_two_maps_without_a_background_are_doubted(top):
  nucleus = cellprofiler.draw_rings()[..., 0]

  def store(*planes):
    maps = np.dstack(planes) * top
    dtype = {255: np.uint8, 65535: np.uint16}.get(top, np.float32)
    return maps.astype(np.float32) if top == 1 else np.rint(maps).astype(dtype)

  for planes in ((nucleus, 1 - nucleus), (1 - nucleus, nucleus)):
    [line] = find_doubt(store(*planes))
    assert line.startswith("found two maps that sum to 1 at every pixel")
  assert find_doubt(store(nucleus, 0.9 * (1 - nucleus))) == ()
  assert find_doubt(store(nucleus, 0.5 * (1 - nucleus), 1 - nucleus)) == ()
  assert find_doubt(store(0 * nucleus, 0 * nucleus)) == ()


def test_maps_without_clear_signs_are_left_alone():
  maps = cellprofiler.draw_rings()
  rng = np.random.default_rng(0)
  assert guess_order(np.zeros((20, 30, 3), np.uint8)) is None
  assert guess_order(rng.random((60, 60, 3))) is None
  maps[maps[..., 0] > 0.5] = (0.1, 0.8, 0.1)  # No nuclei.
  assert guess_order(maps) is None


def test_only_the_middle_of_large_maps_is_looked_at():
  maps = np.zeros((1100, 1040, 3), np.float32)
  maps[..., 0] = 1
  maps[490:610, 460:580] = cellprofiler.draw_rings()
  assert guess_order(maps) is None  # Too small a share.


@pytest.mark.real
@pytest.mark.parametrize("order", ORDERS)
def test_published_maps_in_any_order_are_known(real_data, order):
  paths = sorted((real_data / "brca2_reference/probabilities").glob("*.tiff"))
  names = tuple(CLASSES[k] for k in order)
  for path in paths[:2]:
    maps = tifffile.imread(path)[..., list(order)]
    assert guess_order(maps) == names


@pytest.mark.real
def test_ilastik_maps_raise_no_doubt(real_data):
  paths = sorted((real_data / "imc_testdata/ilastik_probabilities").glob("*"))
  assert len(paths) == 15
  found = [guess_order(tifffile.imread(path)) for path in paths]
  assert set(found) <= {None, CLASSES}
  assert CLASSES in found
