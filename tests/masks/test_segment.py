import json

import cellprofiler
import hypothesis
import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from configs.default import get_config
from dicexmbd_jax import storage
from dicexmbd_jax.masks import maps as maps_lib
from dicexmbd_jax.masks import segment

REFERENCE = "brca2_reference"
PRESETS = ["touching", "dice_xmbd", "steinbock"]


def run(pixels, preset="touching", shape=None, **settings):
  with np.errstate(all="raise"):
    return segment.segment_image(pixels, {"preset": preset, **settings}, shape)


def check(result, shape):
  """What holds for every segmentation."""
  cells, nuclei = result.cells, result.nuclei
  assert cells.shape == nuclei.shape == shape
  assert cells.dtype == nuclei.dtype == np.int32
  ids = np.unique(cells[cells > 0])
  np.testing.assert_array_equal(ids, np.arange(1, ids.size + 1))
  assert ((nuclei == 0) | (nuclei == cells)).all()
  assert result.is_border.shape == ids.shape
  rims = [cells[0], cells[-1], cells[:, 0], cells[:, -1]]
  at_border = np.isin(ids, np.concatenate(rims))
  np.testing.assert_array_equal(result.is_border, at_border)


def same(first, second):
  np.testing.assert_array_equal(first.cells, second.cells)
  np.testing.assert_array_equal(first.nuclei, second.nuclei)


# Against CellProfiler.


@pytest.mark.parametrize("seed", range(3))
def test_dice_xmbd_is_cellprofilers_pipeline(seed):
  pixels = cellprofiler.make_maps((70, 81), seed)
  result = run(pixels, "dice_xmbd")
  _, cells = cellprofiler.segment(pixels)
  expected = cellprofiler.renumber(cellprofiler.halve(cells))
  assert expected.max() > 15
  np.testing.assert_array_equal(result.cells, expected)
  check(result, (70, 81))


@pytest.mark.parametrize("seed", range(3))
def test_touching_keeps_border_cells_and_every_foreground_pixel(seed):
  pixels = cellprofiler.make_maps((70, 81), seed)
  result = run(pixels, "touching", max_growth_um=0.0)
  masks = cellprofiler.segment(pixels, keeps_border=True)
  _, cells = cellprofiler.vote_masks(*masks, (70, 81))
  expected = cellprofiler.renumber(cells)
  np.testing.assert_array_equal(result.cells, expected)
  assert result.is_border.any()
  check(result, (70, 81))


@pytest.mark.real
def test_published_masks(real_data):
  paths = sorted((real_data / REFERENCE / "probabilities").glob("*.tiff"))
  assert len(paths) == 5
  for path in paths:
    reference = tifffile.imread(real_data / REFERENCE / "masks" / path.name)
    result = run(tifffile.imread(path), "dice_xmbd")
    assert result.cells.max() == reference.max()
    assert np.unique(result.cells).size == np.unique(reference).size
    agreement = cellprofiler.match_pixels(result.cells, reference.astype(int))
    assert agreement >= 0.9999, path.name
    check(result, reference.shape)


@pytest.mark.real
def test_every_step_on_a_published_map_is_cellprofilers(real_data):
  paths = sorted((real_data / REFERENCE / "probabilities").glob("*.tiff"))
  pixels = tifffile.imread(paths[0])[:150, :130]
  nuclei, cells = cellprofiler.segment(pixels / 65535)
  result = run(pixels, "dice_xmbd")
  expected = cellprofiler.renumber(cellprofiler.halve(cells))
  np.testing.assert_array_equal(result.cells, expected)


@pytest.mark.real
def test_steinbock_preset(real_data):
  """All fifteen masks to the pixel, ids included."""
  folder = real_data / "imc_testdata"
  paths = sorted((folder / "ilastik_probabilities").glob("*.tiff"))
  assert len(paths) == 15
  for path in paths:
    reference = tifffile.imread(folder / "masks_ilastik" / path.name)
    result = run(tifffile.imread(path), "steinbock")
    np.testing.assert_array_equal(result.cells, reference)
    check(result, reference.shape)


# What must not matter.


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("block_px", [11, 32, 10**6])
def test_blocks_do_not_matter(preset, block_px, monkeypatch):
  pixels = cellprofiler.make_maps((90, 77), 5)
  pixels = np.round(pixels * 12) / np.float32(12)  # Plateaus and ties.
  whole = run(pixels, preset, block_px=10**6)
  monkeypatch.setattr(maps_lib, "_MAX_KEPT_PX", 0)
  same(run(pixels, preset, block_px=block_px), whole)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [None, (60, 81)])
def test_files_and_strips_do_not_matter(preset, shape, cut_finely):
  pixels = cellprofiler.make_maps((90, 77), 6)
  pixels = np.round(pixels * 65535).astype(np.uint16)
  with cut_finely():
    cut = run(pixels, preset, shape, block_px=16)
  assert storage.is_mapped(cut.cells) and storage.is_mapped(cut.nuclei)
  same(cut, run(pixels, preset, shape, block_px=10**6))


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
  hnp.array_shapes(min_dims=2, max_dims=2, max_side=24),
  st.integers(0, 10**6),
  st.sampled_from(PRESETS),
  st.sampled_from([2, 5, 2**16]),
  st.sampled_from([0, 1, 3]),
)
def test_any_maps_give_sound_masks(shape, seed, preset, num_levels, sigma):
  rng = np.random.default_rng(seed)
  pixels = ndimage.gaussian_filter(rng.random((*shape, 3)), (sigma, sigma, 0))
  pixels -= pixels.min()
  pixels = np.floor(pixels / pixels.max() * num_levels) / num_levels
  pixels = pixels.astype(np.float32)
  result = run(pixels, preset)
  if preset == "steinbock":
    shape = tuple(max(round(n / 2), 1) for n in shape)
  check(result, shape)
  same(run(pixels, preset, block_px=4), result)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_are_shares(dtype):
  highest = np.iinfo(dtype).max
  pixels = np.rint(cellprofiler.make_maps((40, 50), 1) * highest).astype(dtype)
  as_float = pixels.astype(np.float32) / np.float32(highest)
  assert run(pixels).cells.max() > 5
  same(run(pixels), run(as_float))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(dtype):
  pixels = cellprofiler.make_maps((40, 50), 1).astype(np.float16)
  same(run(pixels.astype(dtype)), run(pixels.astype(np.float32)))


def test_two_maps_are_enough():
  pixels = cellprofiler.make_maps((40, 50), 1)
  same(run(np.ascontiguousarray(pixels[..., :2])), run(pixels))


def test_layout_and_arguments():
  pixels = cellprofiler.make_maps((40, 50), 1)
  expected = run(pixels)
  turned = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
  turned.flags.writeable = False
  before = pixels.copy()
  same(run(turned), expected)
  np.testing.assert_array_equal(pixels, before)


def test_the_default_config():
  pixels = cellprofiler.make_maps((40, 50), 1)
  result = segment.segment_image(pixels, get_config().segment)
  same(result, run(pixels, "touching"))
  # As a worker process gets it.
  config = json.loads(get_config().to_json())["segment"]
  same(segment.segment_image(pixels, config), result)


# Awkward images.


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 3), (40, 30)])
@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 1.0])
def test_constant_maps(preset, shape, value):
  pixels = np.full((*shape, 3), value, np.float32)
  result = run(pixels, preset)
  check(result, result.cells.shape)
  # All nucleus, or none; one at the border is none for dice_xmbd.
  has_cell = value >= 0.5 and preset != "dice_xmbd"
  if min(shape) > 4:
    assert result.cells.max() == has_cell
    assert (result.cells > 0).all() == has_cell


@pytest.mark.parametrize("preset", PRESETS)
def test_one_cell_that_fills_the_image(preset):
  y, x = np.mgrid[:41, :41]
  nucleus = np.clip(1.5 - np.hypot(y - 20, x - 20) / 8, 0, 1)
  pixels = np.stack([nucleus, 1 - nucleus, 0 * nucleus], -1)
  result = run(pixels.astype(np.float32), preset, max_growth_um=0.0)
  assert (result.cells == 1).all()
  assert 0 < np.count_nonzero(result.nuclei) < result.cells.size / 2
  assert result.is_border.tolist() == [True]


def test_tissue_without_background_keeps_whole_cells():
  y, x = np.mgrid[:60, :60]
  nucleus = np.clip(np.sin(y / 3) * np.sin(x / 3), 0, 1)
  foreground = 1 - 0.05 * np.random.default_rng(0).random((60, 60))
  pixels = np.stack([nucleus * foreground, (1 - nucleus) * foreground], -1)
  # As published, the threshold parts foreground from foreground.
  settings = {"cell_correction": 1.2, "max_growth_um": 0.0}
  shrunk = run(pixels, **settings)
  assert (shrunk.cells > 0).mean() < 0.5
  result = run(pixels, max_cell_threshold=0.6, **settings)
  assert (result.cells > 0).all()
  same(run(pixels, max_cell_threshold=1.0), run(pixels))


def test_a_field_without_cells_has_none():
  noise = np.random.default_rng(0).uniform(0, 0.2, (60, 60, 2))
  assert run(noise).cells.any()  # As published, noise is parted from noise.
  assert not run(noise, min_nucleus_threshold=0.25).cells.any()


def test_signal_without_nuclei_makes_no_cell():
  pixels = cellprofiler.make_maps((40, 50), 1)
  pixels[..., 0] = 0
  result = run(pixels)
  assert not result.cells.any()
  assert result.is_border.size == 0


def test_more_than_65535_cells():
  # One bright pixel in each 2 x 2 of 520 x 520: 67,600 nuclei at scale 1.
  tile = np.array([[0.9, 0], [0, 0]], np.float32)
  nucleus = np.tile(tile, (260, 260))
  pixels = np.stack([nucleus, 0 * nucleus, 1 - nucleus], -1)
  result = run(
    pixels,
    scale=1,
    smoothing_px=0.0,
    min_diameter_px=1.0,
    declump_smoothing_px=0.0,
    min_nucleus_area_px=0.0,
    cell_threshold_sigma_px=0.0,
    max_diameter_px=1.0,
  )
  assert result.cells.max() == 260 * 260
  check(result, (520, 520))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(20, 25), (80, 100), (57, 33)])
def test_masks_on_another_grid(preset, shape):
  pixels = cellprofiler.make_maps((40, 50), 1)
  result = run(pixels, preset, shape)
  check(result, shape)
  same(run(pixels, preset, shape), result)


def test_a_cell_between_the_output_pixels_is_dropped():
  pixels = cellprofiler.make_maps((40, 50), 1)
  fine = run(pixels)
  coarse = run(pixels, shape=(4, 5))
  assert 0 < coarse.cells.max() < fine.cells.max()
  check(coarse, (4, 5))


def test_cells_that_lose_their_last_pixel_to_a_nucleus_leave_no_gap():
  pixels = cellprofiler.make_maps((70, 81), 10)
  small = {"min_diameter_px": 2.0, "declump_smoothing_px": 0.0}
  check(run(pixels, shape=(17, 20), smoothing_px=1.0, **small), (17, 20))


@pytest.mark.parametrize("seed", range(40))
def test_votes_on_a_coarse_grid_number_all_cells_there(seed):
  rng = np.random.default_rng(seed)
  is_centre = rng.random((30, 34)) < 0.15
  distance, nearest = ndimage.distance_transform_edt(
    ~is_centre, return_indices=True
  )
  labels = np.cumsum(is_centre).reshape(is_centre.shape) * is_centre
  cells = labels[tuple(nearest)].astype(np.int32)
  cells[distance > 3] = 0
  seeds = np.where(distance <= 1, cells, 0).astype(np.int32)
  numbers = np.arange(labels.max() + 1, dtype=np.int32)
  settings = segment.resolve_settings({"preset": "touching"})
  shape = 30 // (1 + seed % 4), 34 // (1 + seed % 4)
  result = segment.finish_masks(seeds, cells, numbers, settings, shape)
  assert result.cells.max() > 5
  check(result, shape)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_sizes_keep_their_meaning_at_other_scales(scale):
  pixels = cellprofiler.make_maps((80, 80), 2, num_cells=30)
  count = run(pixels, scale=scale).cells.max()
  assert 0.7 < count / run(pixels).cells.max() < 1.4


@pytest.mark.parametrize("preset", PRESETS[:2])
def test_a_network_of_half_the_pixel_size_gives_the_same_masks(preset):
  """Where its maps are the others, enlarged to the working grid."""
  pixels = cellprofiler.make_maps((40, 50), 1)
  config = get_config()
  config.segment.preset = preset
  expected = segment.segment_seen(pixels, config, (40, 50), 0.8)
  assert expected.cells.max() > 5
  config.image.pixel_size_um = 0.5
  finer = cellprofiler.enlarge(pixels)
  found = segment.segment_seen(finer, config, (40, 50), 0.8)
  same(found, expected)


# Baselines.


@pytest.mark.parametrize("method", segment.METHODS)
def test_baselines_share_the_nuclei(method):
  image = cellprofiler.make_maps((60, 70), 3)[..., :2] * 255
  results = {
    name: segment.segment_baseline(image, name, {}) for name in segment.METHODS
  }
  check(results[method], (60, 70))
  inside = results[method].nuclei > 0
  np.testing.assert_array_equal(inside, results["distance"].nuclei > 0)


def test_propagation_uses_the_membrane_channel_alone():
  image = cellprofiler.make_maps((60, 70), 3)[..., :2] * 255
  result = segment.segment_baseline(image, "propagation", {})
  maps = cellprofiler.enlarge(image / np.float32(255))
  smooth = cellprofiler.smooth_gaussian(maps[..., 0], 4 / 2.35)
  found = cellprofiler.find_nuclei(np.clip(smooth, 0, 1))
  nuclei, seeds = cellprofiler.select_nuclei(found, keeps_border=True)
  cells = cellprofiler.grow_cells(maps[..., 1], seeds)
  cells = cellprofiler.filter_cells(cells, nuclei)
  _, voted = cellprofiler.vote_masks(nuclei, cells, (60, 70))
  expected = cellprofiler.renumber(voted)
  np.testing.assert_array_equal(result.cells, expected)


def test_baselines_on_another_grid():
  image = cellprofiler.make_maps((60, 70), 3)[..., :2] * 255
  result = segment.segment_baseline(image, "watershed", {}, (30, 35))
  check(result, (30, 35))


@pytest.mark.parametrize("method", segment.METHODS)
@pytest.mark.parametrize("value", [0.0, 128.0, 255.0])
def test_baselines_on_constant_images(method, value):
  image = np.full((20, 20, 2), value, np.float32)
  with np.errstate(all="raise"):
    result = segment.segment_baseline(image, method, {})
  check(result, (20, 20))
  assert result.cells.max() == (value > 127)


# Wrong calls.


@pytest.mark.parametrize(
  ("pixels", "message"),
  [
    (np.zeros((4, 4)), r"shape \(4, 4\), expected \(y, x, 2 or 3\)"),
    (np.zeros((4, 4, 4)), r"shape \(4, 4, 4\), expected"),
    (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\), expected pixels"),
    (np.zeros((4, 4, 3), np.int64), "are int64, expected uint8, uint16"),
    (np.full((4, 4, 3), np.nan), "range from nan to nan, expected 0 to 1"),
    (np.full((4, 4, 3), np.inf), "range from inf"),
    (np.full((4, 4, 3), -0.5), "range from -0.5 to -0.5"),
    (np.full((4, 4, 3), 255.0), "range from 255 to 255"),
  ],
)
def test_wrong_maps_are_refused(pixels, message):
  with pytest.raises(ValueError, match=message):
    run(pixels)


def test_wrong_settings_are_refused():
  with pytest.raises(ValueError, match="config.segment.preset: found 'x'"):
    run(np.zeros((4, 4, 3)), "x")
  image = np.zeros((4, 4, 2), np.float32)
  with pytest.raises(ValueError, match="method is 'snake', expected one of"):
    segment.segment_baseline(image, "snake", {})
