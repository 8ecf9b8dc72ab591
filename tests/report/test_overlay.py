import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dicexmbd_jax.report import overlay

INTS = st.integers(0, 3)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
LABELS = hnp.arrays(np.int32, SHAPES, elements=INTS)


def make_image(shape, nuclear=0.0, membrane=0.0):
  image = np.zeros((*shape, 2), np.float32)
  image[..., 0], image[..., 1] = nuclear, membrane
  return image


def draw(image, cells, nuclei):
  picture = overlay.draw_overlay(image, cells, nuclei)
  # Pillow makes no arrays of pictures without pixels.
  shape = (picture.height, picture.width, 3)
  return np.frombuffer(picture.convert("RGB").tobytes(), np.uint8).reshape(
    shape
  )


@pytest.mark.parametrize(
  ("shape", "factor"),
  [
    ((0, 0), 4),
    ((1, 1), 4),
    ((500, 575), 4),
    ((500, 576), 2),
    ((1150, 3), 2),
    ((1151, 3), 1),
    ((5000, 9000), 1),
  ],
)
def test_choose_factor(shape, factor):
  assert overlay.choose_factor(shape) == factor


def test_find_outlines_of_one_pixel_and_of_touching_cells():
  alone = np.zeros((4, 4), np.int32)
  alone[2, 2] = 1
  expected = np.zeros((4, 4), bool)
  expected[1, 2] = expected[2, 1] = expected[2, 2] = True
  np.testing.assert_array_equal(overlay.find_outlines(alone), expected)
  touching = np.array([[1, 1, 2, 2]], np.int32)
  np.testing.assert_array_equal(
    overlay.find_outlines(touching), [[False, True, False, False]]
  )


def test_enlarge_labels_cuts_a_corner():
  labels = np.array([[1, 1], [1, 0]], np.int32)
  expected = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
  np.testing.assert_array_equal(overlay.enlarge_labels(labels, 2), expected)


def test_enlarge_labels_keeps_straight_borders():
  labels = np.array([[1, 1, 0], [1, 1, 0]], np.int32)
  np.testing.assert_array_equal(
    overlay.enlarge_labels(labels, 4), labels.repeat(4, 0).repeat(4, 1)
  )


@hypothesis.given(LABELS, st.sampled_from([1, 2, 4]))
def test_enlarge_labels_keeps_every_object_in_its_pixels(labels, factor):
  large = overlay.enlarge_labels(labels, factor)
  assert large.shape == tuple(factor * n for n in labels.shape)
  assert set(np.unique(large)) == set(np.unique(labels))
  # No pixel of an object is lost whole, to whatever neighbour.
  blocks = large.reshape(
    labels.shape[0], factor, labels.shape[1], factor
  ).swapaxes(1, 2)
  assert (blocks == labels[..., None, None]).any(axis=(2, 3)).all()


def test_stretch_channel_ignores_an_empty_margin():
  signal = np.linspace(1, 100, 400, dtype=np.float32).reshape(20, 20)
  framed = np.zeros((200, 200), np.float32)
  framed[90:110, 90:110] = signal
  stretched = overlay.stretch_channel(framed)
  assert stretched[0, 0] == 0
  assert stretched[90:110, 90:110].max() == 255
  assert np.median(stretched[90:110, 90:110]) > 100


def test_stretch_channel_is_monotone_and_robust_to_a_hot_pixel():
  channel = np.linspace(0, 10, 10_000, dtype=np.float32).reshape(100, 100)
  plain = overlay.stretch_channel(channel)
  assert (np.diff(plain.ravel().astype(int)) >= 0).all()
  hot = channel.copy()
  hot[0, 0] = 1e6
  differences = overlay.stretch_channel(hot).astype(int) - plain
  assert np.abs(differences[hot == channel]).max() <= 1


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf, -np.inf])
def test_stretch_channel_of_a_constant_is_black(value):
  channel = np.full((3, 4), value, np.float32)
  np.testing.assert_array_equal(overlay.stretch_channel(channel), 0)


def test_stretch_channel_of_few_dark_pixels_shows_them():
  channel = np.full((100, 100), 20, np.float32)
  channel[:2, :25] = 0
  stretched = overlay.stretch_channel(channel)
  assert (stretched[:2, :25] == 0).all() and (stretched[2:] == 255).all()


def test_stretch_channel_treats_nan_and_infinity_as_nothing():
  channel = np.array([[np.nan, 0, 1], [np.inf, 0.5, -np.inf]], np.float32)
  stretched = overlay.stretch_channel(channel)
  assert stretched[0, 2] == 255
  assert stretched[0, 0] == stretched[1, 0] == stretched[1, 2] == 0


def test_blend_channels_of_full_and_no_signal():
  nuclear = np.array([[0, 255, 0]], np.uint8)
  membrane = np.array([[0, 0, 255]], np.uint8)
  np.testing.assert_array_equal(
    overlay.blend_channels(nuclear, membrane),
    [[(0, 0, 0), overlay.NUCLEAR_RGB, overlay.MEMBRANE_RGB]],
  )


def test_draw_overlay_puts_each_channel_and_outline_in_its_colour():
  image = make_image((40, 40))
  image[5:15, 5:15, 0] = 200
  image[25:35, 25:35, 1] = 100
  cells = np.zeros((40, 40), np.int32)
  cells[17:23] = 1
  rgb = draw(image, cells, np.zeros_like(cells))
  assert rgb.shape == (160, 160, 3)
  assert rgb.dtype == np.uint8
  np.testing.assert_array_equal(rgb[40, 40], overlay.NUCLEAR_RGB)
  np.testing.assert_array_equal(rgb[120, 120], overlay.MEMBRANE_RGB)
  np.testing.assert_array_equal(rgb[80, 80], 0)  # Inside the cell: tissue.
  outline = np.array(overlay.CELL_RGB)
  np.testing.assert_array_equal(rgb[67, 80], outline)
  assert (rgb == outline).all(axis=2).sum() == 2 * 160


def test_draw_overlay_lays_cells_above_nuclei():
  labels = np.zeros((10, 10), np.int32)
  labels[3:6, 3:6] = 1
  image = make_image(labels.shape)
  both = draw(image, labels, labels)
  nuclei = draw(image, np.zeros_like(labels), labels)
  lines = nuclei.any(axis=2)
  np.testing.assert_array_equal(both.any(axis=2), lines)
  # Near-white lies nearer to grey than the nuclei's magenta.
  assert np.ptp(both[lines], axis=1).max() < np.ptp(nuclei[lines], axis=1).min()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (1, 7), (3, 2)])
def test_draw_overlay_of_tiny_images(shape):
  labels = np.zeros(shape, np.int32)
  image = make_image(shape, nuclear=3.0, membrane=np.nan)
  rgb = draw(image, labels, labels)
  assert rgb.shape == (4 * shape[0], 4 * shape[1], 3)
  assert not rgb.any()


def test_draw_overlay_leaves_its_arguments():
  rng = np.random.default_rng(0)
  image = rng.random((9, 9, 2), np.float32)
  labels = rng.integers(0, 4, (9, 9), np.int32)
  before = image.copy(), labels.copy()
  overlay.draw_overlay(image, labels, labels)
  np.testing.assert_array_equal(image, before[0])
  np.testing.assert_array_equal(labels, before[1])


def test_draw_overlay_names_the_argument_of_another_grid():
  image, good = make_image((4, 5)), np.zeros((4, 5), np.int32)
  bad = np.zeros((5, 4), np.int32)
  with pytest.raises(ValueError, match=r"cells: shape \(5, 4\).*\(4, 5\)"):
    overlay.draw_overlay(image, bad, good)
  with pytest.raises(ValueError, match="nuclei: shape"):
    overlay.draw_overlay(image, good, bad)
  with pytest.raises(ValueError, match=r"image: shape \(4, 5, 1\)"):
    overlay.draw_overlay(image[..., :1], good, good)


def test_an_enlarged_overlay_has_a_palette_of_colours():
  rng = np.random.default_rng(0)
  image = rng.gamma(1, 20, (60, 60, 2)).astype(np.float32)
  cells = np.arange(3600, dtype=np.int32).reshape(60, 60) // 200
  rgb = draw(image, cells, np.roll(cells, 3, 1))
  assert rgb.shape == (240, 240, 3)
  assert 100 < len(np.unique(rgb.reshape(-1, 3), axis=0)) <= 256


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (23, 31)])
def test_an_enlarged_overlay_is_what_is_enlarged_and_drawn(
  shape, factor, monkeypatch
):
  """The kernels give what Pillow and the plain functions give, to the pixel."""
  monkeypatch.setattr(overlay, "MAX_ENLARGED_PX", max(shape) * factor)
  rng = np.random.default_rng(0)
  image = rng.gamma(1, 20, (*shape, 2)).astype(np.float32)
  nuclei, cells = rng.integers(0, 3, (2, *shape), np.int32)
  rgb = draw(image, cells, nuclei)
  expected = overlay.blend_channels(
    *(
      overlay.enlarge_channel(overlay.stretch_channel(image[..., i]), factor)
      for i in (0, 1)
    )
  )
  for labels, colour in (
    (nuclei, overlay.NUCLEUS_RGB),
    (cells, overlay.CELL_RGB),
  ):
    lines = overlay.find_outlines(overlay.enlarge_labels(labels, factor))
    overlay.paint_outline(expected, lines, colour, 1.0)
  np.testing.assert_array_equal(rgb, expected)


def test_a_large_overlay_mixes_outlines_and_tissue():
  shape = (20, 1200)  # Too wide to be enlarged.
  image = np.random.default_rng(0).gamma(1, 20, (*shape, 2))
  nuclei, cells = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  nuclei[8:12, 300:] = 1
  cells[4:15] = 1
  rgb = draw(image, cells, nuclei)
  assert len(np.unique(rgb.reshape(-1, 3), axis=0)) > 256
  expected = overlay.blend_channels(
    *(overlay.stretch_channel(image[..., i]) for i in (0, 1))
  )
  for labels, colour, opacity in (
    (nuclei, overlay.NUCLEUS_RGB, overlay.PLAIN_NUCLEUS_OPACITY),
    (cells, overlay.CELL_RGB, overlay.PLAIN_CELL_OPACITY),
  ):
    lines = overlay.find_outlines(labels)
    assert lines.any()
    overlay.paint_outline(expected, lines, colour, opacity)
  np.testing.assert_array_equal(rgb, expected)


def test_large_images_are_drawn_in_strips(cut_finely):
  rng = np.random.default_rng(0)
  image = rng.gamma(1, 50, (1200, 3, 2)).astype(np.float32)
  cells = rng.integers(0, 3, (1200, 3), np.int32)
  nuclei = np.where(rng.random(cells.shape) < 0.5, cells, 0)
  whole = overlay.draw_overlay(image, cells, nuclei)
  with cut_finely():
    cut = overlay.draw_overlay(image, cells, nuclei)
  assert cut.mode == "RGB"
  np.testing.assert_array_equal(np.asarray(cut), whole.convert("RGB"))
