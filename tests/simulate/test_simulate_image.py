"""The simulated image: truth, counts, panel, any size."""

import numpy as np
import pytest
from skimage import measure

from dicexmbd_jax import simulate
from dicexmbd_jax.simulate import layout, study_panel

STYLES = list(layout.STYLES)


@pytest.fixture(scope="module", params=STYLES)
def image(request):
  rng = np.random.default_rng(STYLES.index(request.param))
  return simulate.simulate_image(rng, (150, 210), style=request.param)


def test_planes_match_truth_and_channels(image):
  assert image.stack.shape == (150, 210, len(image.channels))
  assert image.cells.shape == image.nuclei.shape == (150, 210)
  assert len(image.names) == len(set(image.names)) == len(image.channels)
  assert image.stack.dtype == np.uint16
  assert image.cells.dtype == image.nuclei.dtype == np.int32


def test_counts_look_like_ions(image):
  kept = [i for i, name in enumerate(image.names) if name == "CD45"]
  counts = image.stack[..., kept[0]]
  # Few counts, many of them zero or one, but not empty.
  assert counts.max() > 5
  assert np.median(counts) < 200
  assert len(np.unique(image.stack)) > 50


def test_cell_ids_are_consecutive_and_cells_whole(image):
  num = image.cells.max()
  assert num > 50
  assert set(np.unique(image.cells)) == set(range(num + 1))
  pieces = measure.label(image.cells, background=0, connectivity=1)
  assert pieces.max() == num


def test_nuclei_lie_inside_their_cells_in_one_piece(image):
  is_nucleus = image.nuclei > 0
  np.testing.assert_array_equal(
    image.nuclei[is_nucleus], image.cells[is_nucleus]
  )
  pieces = measure.label(image.nuclei, background=0, connectivity=1)
  assert pieces.max() == len(np.unique(image.nuclei)) - 1
  areas = np.bincount(image.nuclei.ravel())[1:]
  assert areas[areas > 0].min() >= 4


def test_some_cells_show_no_nucleus(image):
  num_cells, num_nuclei = (
    len(np.unique(labels)) - 1 for labels in (image.cells, image.nuclei)
  )
  assert 0.5 * num_cells < num_nuclei < num_cells


def test_dna_is_brighter_in_nuclei(image):
  dna = image.stack[..., image.channels.index("191Ir")].astype(float)
  inside = np.median(dna[image.nuclei > 0])
  assert inside > 2 * np.median(dna[image.cells == 0])
  assert inside > 1.5 * np.median(dna[(image.cells > 0) & (image.nuclei == 0)])


def test_membrane_channels_are_brighter_in_cells(image):
  stain = image.stack[..., list(image.membrane)].astype(float).mean(axis=-1)
  inside = np.median(stain[image.cells > 0])
  assert inside > 1.3 * np.median(stain[image.cells == 0])


def test_has_hot_pixels(image):
  counts = image.stack.astype(int)
  padded = np.pad(counts, ((1, 1), (1, 1), (0, 0)), mode="reflect")
  neighbours = [
    padded[1 + dy : 151 + dy, 1 + dx : 211 + dx]
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dy, dx) != (0, 0)
  ]
  is_hot = counts > np.max(neighbours, axis=0) + 50
  # Noise cannot do this where counts are few.
  is_dim = np.percentile(counts, 99, axis=(0, 1)) < 25
  assert is_hot[..., is_dim].any()
  assert is_hot.mean() < 0.01


def test_same_state_same_image():
  first, second, other = (
    simulate.simulate_image(np.random.default_rng(seed), (60, 50))
    for seed in (7, 7, 8)
  )
  np.testing.assert_array_equal(first.stack, second.stack)
  np.testing.assert_array_equal(first.cells, second.cells)
  np.testing.assert_array_equal(first.nuclei, second.nuclei)
  assert first.names == second.names
  assert not np.array_equal(first.cells, other.cells)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (20, 30), (2, 150)])
@pytest.mark.parametrize("seed", range(4))
def test_any_size_will_do(shape, seed):
  image = simulate.simulate_image(np.random.default_rng(seed), shape)
  assert image.stack.shape[:2] == shape
  assert image.cells.shape == image.nuclei.shape == shape
  assert image.cells.min() >= 0


def test_refuses_empty_shapes_and_unknown_styles():
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match=r"shape: found \(0, 5\)"):
    simulate.simulate_image(rng, (0, 5))
  with pytest.raises(ValueError, match="style: found 'bone', expected one of"):
    simulate.simulate_image(rng, (5, 5), style="bone")


def test_cell_sizes_span_lymphocytes_and_tumour_cells():
  diameters = []
  for style in ("lymphoid", "tumour"):
    for seed in range(3):
      rng = np.random.default_rng([seed, 11])
      image = simulate.simulate_image(rng, (200, 200), style=style)
      areas = np.bincount(image.cells.ravel())[1:]
      diameters.append(2 * np.sqrt(np.median(areas) / np.pi))
  assert 5.5 < min(diameters) < 8.5
  assert 9.5 < max(diameters) < 19


@pytest.mark.parametrize("seed", range(60))
def test_panels_differ_but_can_segment(seed):
  channels = study_panel.draw_channels(np.random.default_rng(seed))
  assert 30 <= len(channels) <= 45
  metals = [c.metal for c in channels]
  assert len(set(metals)) == len(metals)
  assert {"191Ir", "193Ir"} <= {c.metal for c in channels if c.is_nuclear}
  assert sum(c.is_membrane for c in channels) >= 4
  assert "CD45" in {c.marker.name for c in channels if c.is_membrane}
  junk = [c for c in channels if not c.is_kept]
  assert len(junk) >= 4
  assert not any(c.is_nuclear or c.is_membrane for c in junk)


def test_panels_are_not_all_alike():
  panels = {
    tuple(c.marker.name for c in study_panel.draw_channels(rng))
    for rng in map(np.random.default_rng, range(10))
  }
  assert len(panels) == 10
