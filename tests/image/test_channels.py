import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from dicexmbd_jax import storage
from dicexmbd_jax.image import channels, preparation
from dicexmbd_jax.types import LoadedImage

STACKS = hnp.arrays(
  np.float32,
  hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
  elements=st.floats(0, 2**20, width=32),
)
PRESETS = ["paper", "reference"]


def make_config(preset="paper", percentile=100.0):
  return ConfigDict(
    {
      "preset": preset,
      "hot_pixel_counts": 50.0,
      "clip_percentile": percentile,
    }
  )


def make_stack(*planes):
  return np.stack([np.array(plane, np.float32) for plane in planes], axis=-1)


def test_paper_scales_each_marker_before_it_averages():
  stack = make_stack([[0, 5], [10, 10]], [[0, 0], [0, 1]])
  image, warnings = channels.merge_channels(stack, [0, 1], [1], make_config())
  np.testing.assert_array_equal(image[..., 0], [[0, 63.75], [127.5, 255]])
  np.testing.assert_array_equal(image[..., 1], [[0, 0], [0, 255]])
  assert image.dtype == np.float32
  assert warnings == ()


def test_reference_sums_counts_first_and_cuts_to_whole_numbers():
  stack = make_stack([[0, 5], [10, 10]], [[0, 0], [0, 1]])
  image, warnings = channels.merge_channels(
    stack, [0, 1], [1], make_config("reference")
  )
  # 5/11 and 10/11 of 255 are 115.9 and 231.8.
  np.testing.assert_array_equal(image[..., 0], [[0, 115], [231, 255]])
  np.testing.assert_array_equal(image[..., 1], [[0, 0], [0, 255]])
  assert image.dtype == np.float32
  assert warnings == ()


def test_presets_remove_hot_pixels_their_own_way():
  plane = np.zeros((7, 7), np.float32)
  plane[0, 0] = 100  # On the border: only the paper's filter cleans it.
  plane[3, 3] = 20
  stack = make_stack(plane)
  paper, _ = channels.merge_channels(stack, [0], [0], make_config())
  reference, _ = channels.merge_channels(
    stack, [0], [0], make_config("reference")
  )
  assert paper[3, 3, 0] == 255
  assert paper[0, 0, 0] == pytest.approx(255 * 4 / 20)
  assert reference[0, 0, 0] == 255
  assert reference[3, 3, 0] == 51


def test_clipping_comes_before_scaling():
  plane = np.array([[0, 1], [2, 10]])
  image, _ = channels.merge_channels(
    make_stack(plane), [0], [0], make_config(percentile=75)
  )
  np.testing.assert_array_equal(image[..., 0], [[0, 63.75], [127.5, 255]])


def test_dim_markers_count_as_zeros_and_are_named():
  stack = make_stack([[0, 1]], [[7, 7]], [[0, 0]])
  image, warnings = channels.merge_channels(
    stack, [0, 1], [2], make_config(), ["DNA1", "DNA2", "CD45"]
  )
  np.testing.assert_array_equal(image, [[[0, 0], [127.5, 0]]])
  assert [w.split(" is ")[0] for w in warnings] == [
    "nuclear marker DNA2",
    "membrane marker CD45",
  ]


def test_reference_names_dim_markers_and_all_of_a_dim_sum():
  stack = make_stack([[0, 1]], [[7, 7]], [[1, 0]])
  names = ["DNA1", "DNA2", "CD45"]
  image, warnings = channels.merge_channels(
    stack, [0, 1], [0, 2], make_config("reference"), names
  )
  np.testing.assert_array_equal(image, [[[0, 0], [255, 0]]])
  assert len(warnings) == 3
  assert "DNA2" in warnings[0]
  assert "DNA1" in warnings[1]
  assert "CD45" in warnings[2]


def test_warnings_fall_back_to_indices():
  _, warnings = channels.merge_channels(
    make_stack([[1]]), [0], [0], make_config()
  )
  assert warnings[0].startswith("nuclear marker 0 ")


@pytest.mark.parametrize("preset", PRESETS)
@given(stack=STACKS, percentile=st.floats(50, 100))
def test_image_is_finite_and_in_range(preset, stack, percentile):
  markers = range(stack.shape[-1])
  channels.check_stack(stack)
  before = stack.copy()
  image, _ = channels.merge_channels(
    stack, markers[:1], markers, make_config(preset, percentile)
  )
  assert image.shape == (*stack.shape[:2], 2)
  assert image.dtype == np.float32
  assert np.isfinite(image).all()
  assert image.min() >= 0
  assert image.max() <= 255
  np.testing.assert_array_equal(stack, before)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("value", [0, 3])
@pytest.mark.parametrize("shape", [(1, 1), (4, 5)])
def test_constant_stacks_give_zeros(preset, value, shape):
  stack = np.full((*shape, 2), value, np.float32)
  image, warnings = channels.merge_channels(
    stack, [0], [1], make_config(preset, 99.7)
  )
  assert not image.any()
  assert len(warnings) == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_memory_order_of_the_stack_does_not_matter(preset):
  rng = np.random.default_rng(0)
  planes = rng.poisson(4, (3, 30, 20)).astype(np.float32)
  view = np.moveaxis(planes, 0, -1)
  config = make_config(preset, 99.7)
  image, _ = channels.merge_channels(view, [0], [1, 2], config)
  copy, _ = channels.merge_channels(
    np.ascontiguousarray(view), [0], [1, 2], config
  )
  np.testing.assert_array_equal(image, copy)


def test_no_nuclear_marker_is_an_error():
  with pytest.raises(ValueError, match="nuclear: found no marker"):
    channels.merge_channels(make_stack([[1]]), [], [0], make_config())


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_no_membrane_marker_gives_zeros_and_a_warning(preset):
  rng = np.random.default_rng(0)
  stack = rng.poisson(20, (30, 20, 1)).astype(np.float32)
  config = make_config(preset, 99.7)
  image, warnings = channels.merge_channels(stack, [0], [], config)
  both, _ = channels.merge_channels(stack, [0], [0], config)
  np.testing.assert_array_equal(image[..., 0], both[..., 0])
  assert not image[..., 1].any()
  assert warnings == (
    "no membrane marker: where cells end is guessed from the nuclei",
  )
  assert channels.find_weak_groups(stack, [0], [], 99.7) == ()


@pytest.mark.parametrize(
  ("value", "kind"),
  [(np.nan, "NaN"), (np.inf, "infinite"), (-1e-3, "negative")],
)
def test_check_stack_names_marker_kind_and_number(value, kind):
  stack = np.ones((2, 3, 2), np.float32)
  channels.check_stack(stack)
  stack[0, :2, 1] = value
  message = f"marker CD3: found 2 {kind} of 6 pixels, expected finite"
  with pytest.raises(ValueError, match=message):
    channels.check_stack(stack, ["DNA1", "CD3"])
  with pytest.raises(ValueError, match="marker 1:"):
    channels.check_stack(stack)


@pytest.mark.parametrize("shape", [(0, 3, 1), (2, 2, 0)])
def test_check_stack_refuses_stacks_without_pixels(shape):
  with pytest.raises(ValueError, match="at least one pixel"):
    channels.check_stack(np.zeros(shape, np.float32))


@pytest.mark.real
@pytest.mark.parametrize("preset", PRESETS)
def test_real_stacks_pass_and_use_the_range(real_data, preset):
  paths = [
    *sorted((real_data / "spleen_imc" / "img").glob("*.tiff"))[:3],
    *sorted((real_data / "imc_testdata" / "img").glob("*.tiff")),
  ]
  assert paths
  for path in paths:
    stack = np.moveaxis(tifffile.imread(path), 0, -1).astype(np.float32)
    channels.check_stack(stack)
    markers = range(stack.shape[-1])
    image, _ = channels.merge_channels(
      stack, markers[:1], markers, make_config(preset, 99.7)
    )
    assert np.isfinite(image).all()
    assert image[..., 0].max() == 255
    assert image[..., 0].min() == 0


def test_weak_groups_are_named():
  rng = np.random.default_rng(0)
  stack = np.stack(
    [
      rng.poisson(0.2, (40, 40)),
      rng.poisson(30, (40, 40)),
      np.zeros((40, 40)),
    ],
    axis=-1,
  ).astype(np.float32)
  lines = channels.find_weak_groups(stack, (0,), (1,), 99.7)
  assert len(lines) == 1
  assert lines[0].startswith("nuclear signal is weak: no marker above 2.0")
  assert channels.find_weak_groups(stack, (0, 1), (1,), 99.7) == ()
  assert channels.find_weak_groups(stack, (1,), (2,), 99.7) == ()
  assert channels.find_weak_groups(stack / 100, (0,), (1,), 99.7) == ()


@pytest.mark.parametrize(
  ("names", "nuclear", "membrane", "strays"),
  [
    (("CD45", "DNA1_Ir191", "DNA2"), (0,), (1, 2), "DNA1_Ir191, DNA2"),
    (("NaKATPase", "HistoneH3_Yb176"), (0,), (1,), "HistoneH3_Yb176"),
    (("CD45", "193Ir"), (0,), (1, 0), "193Ir"),
    (("CD45", "DAPI"), (1,), (0,), None),  # As it should be.
    (("CD45", "DAPI", "H3K9Ac"), (1,), (0, 2), None),  # A nuclear one is there.
    (("FoxP3", "CD45", "DNAM1"), (0,), (1, 2), None),  # No name is known.
    (("CD45", "dsDNA"), (0,), (), None),
  ],
)
def test_exchanged_groups_are_told_by_names(names, nuclear, membrane, strays):
  lines = channels.find_exchanged_groups(names, nuclear, membrane)
  assert len(lines) == (strays is not None)
  for line in lines:
    assert line.startswith(f"the membrane/cytoplasm group has {strays}, and")
    assert f"({names[nuclear[0]]}): are the groups exchanged?" in line


def make_loaded(stack):
  return LoadedImage(stack, ("DNA1", "CD3"), (0,), (1,), None)


def test_negative_values_are_refused_or_count_as_zeros():
  dna, cd3 = [[0, 5], [10, 10]], [[0, 0], [0, 1]]
  wanted, _ = preparation.merge_loaded(
    make_loaded(make_stack(dna, cd3)), make_config()
  )
  dna[0][0] = -3.5
  loaded = make_loaded(make_stack(dna, cd3))
  message = (
    "marker DNA1: found 1 negative of 4 pixels, expected finite counts >= 0, "
    "or --config.image.negative=clip"
  )
  for negative in ({}, {"negative": "refuse"}):
    config = ConfigDict({**make_config(), **negative})
    with pytest.raises(ValueError, match=message):
      preparation.merge_loaded(loaded, config)
  config = ConfigDict({**make_config(), "negative": "clip"})
  image, (line,) = preparation.merge_loaded(loaded, config)
  np.testing.assert_array_equal(image, wanted)
  assert line.startswith("values below zero count as zeros in the two channels")
  assert "(DNA1)" in line
  assert loaded.stack[0, 0, 0] == -3.5


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_values_that_are_no_numbers_are_not_clipped(value):
  stack = make_stack([[0, 5], [10, 10]], [[0, 0], [0, value]])
  config = ConfigDict({**make_config(), "negative": "clip"})
  with pytest.raises(ValueError, match="marker CD3: found 1 (NaN|infinite)"):
    preparation.merge_loaded(make_loaded(stack), config)


def test_a_stack_without_negative_values_is_not_copied():
  stack = make_stack([[0, 5], [10, 10]])
  assert channels.clip_negative(stack) == (stack, ())


@pytest.mark.parametrize("preset", PRESETS)
def test_files_and_strips_do_not_matter(preset, cut_finely):
  rng = np.random.default_rng(5)
  stack = rng.gamma(0.4, 9, (83, 61, 3)).astype(np.float32)  # No whole counts.
  stack[::17, ::13] += 200
  config = make_config(preset, 99.7)
  whole = channels.merge_channels(stack, (0, 1), (1, 2), config)
  with cut_finely():
    cut = channels.merge_channels(stack, (0, 1), (1, 2), config)
  np.testing.assert_array_equal(cut[0], whole[0])
  assert storage.is_mapped(cut[0]) and cut[1] == whole[1]
