"""Augmentation: identity at zero strength, target moves with the image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dicexmbd_jax.train import augment

ALL = augment.Strengths(
  contrast=0.5,
  intensity=0.5,
  rotation_deg=180,
  flip=True,
  noise=10,
  log_scale=0.3,
  blur_px=1,
  gamma=0.4,
  channel_dropout=0.5,
  nuclear_dropout=0.5,
  poisson=0.2,
  shift=1.0,
  background=0.4,
  dim=1.6,
  empty=0.5,
)


def make_batch(num=64, size=24):
  """Patches; each further shape is compiled for seconds."""
  rng = np.random.default_rng(0)
  image = rng.uniform(0, 255, (num, size, size, 2)).astype(np.float32)
  target = rng.uniform(0, 1, (num, size, size, 3)).astype(np.float32)
  valid = np.ones((num, size, size, 1), np.float32)
  return image, target, valid, np.ones_like(target)


def test_no_strength_is_the_identity():
  image, target, valid, known = make_batch()
  key = jax.random.key(0)
  found = augment.augment_batch(
    key, (image, target, valid, known), augment.Strengths(), 24
  )
  np.testing.assert_allclose(found[0], image, atol=1e-3)
  np.testing.assert_allclose(found[1], target, atol=1e-5)
  np.testing.assert_array_equal(found[2], valid)


def test_no_strength_cuts_the_centre():
  image, target, valid, known = make_batch()
  key = jax.random.key(0)
  found = augment.augment_batch(
    key, (image, target, valid, known), augment.Strengths(), 16
  )
  np.testing.assert_allclose(found[0], image[:, 4:20, 4:20], atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_target_moves_with_the_image(seed):
  image, target, valid, known = make_batch()
  target[..., :2] = image / 255
  strengths = augment.Strengths(rotation_deg=180, flip=True, log_scale=0.3)
  found = augment.augment_batch(
    jax.random.key(seed), (image, target, valid, known), strengths, 16
  )
  np.testing.assert_allclose(found[0] / 255, found[1][..., :2], atol=1e-5)
  assert not np.allclose(found[0], image[:, 4:20, 4:20], atol=1)


def test_sampling_at_pixels_and_between():
  fields = jnp.arange(9.0).reshape(3, 3, 1)
  rows = jnp.array([[0.0, 1.0, 0.5, -0.5, 5.0]])
  columns = jnp.array([[0.0, 2.0, 0.5, 0.0, 5.0]])
  found = augment.sample_bilinear(fields, rows, columns)
  np.testing.assert_allclose(found[..., 0], [[0, 5, 2, 0, 0]], atol=1e-6)


def test_quarter_turns_move_pixels_and_mix_none():
  patches = make_batch()
  strengths = augment.Strengths(
    rotation_deg=180, log_scale=0.3, interpolated=0.0
  )
  found, *_ = augment.augment_batch(jax.random.key(0), patches, strengths, 24)
  turns = set()
  for before, after in zip(patches[0], np.asarray(found), strict=True):
    fits = [
      np.allclose(np.rot90(before, turn), after, atol=0.05) for turn in range(4)
    ]
    assert sum(fits) == 1
    turns.add(fits.index(True))
  assert turns == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [23, 24])
def test_pixels_stay_whole_where_patch_and_crop_differ_by_an_odd_number(size):
  image, target, valid, known = make_batch(num=32, size=size)
  y, x = np.mgrid[:size, :size]
  image[..., 0], image[..., 1] = y, x
  strengths = augment.Strengths(
    rotation_deg=180, interpolated=0.0, flip=True, shift=1.0
  )
  found, _, inside, _ = augment.augment_batch(
    jax.random.key(0), (image, target, valid, known), strengths, 16
  )
  np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
  assert np.asarray(inside).min() == 1


def test_outside_the_patch_is_zero_and_not_valid():
  image, target, valid, known = make_batch(size=8)
  found = augment.augment_batch(
    jax.random.key(0), (image, target, valid, known), augment.Strengths(), 16
  )
  is_inside = np.zeros((16, 16), bool)
  is_inside[4:12, 4:12] = True
  for field in found:
    assert not np.asarray(field)[:, ~is_inside].any()
  assert np.asarray(found[2])[:, is_inside].all()


def test_what_lies_beside_unknown_pixels_is_unknown():
  image, target, valid, known = make_batch()
  known[:, :, :12, 1] = 0
  found = augment.augment_batch(
    jax.random.key(0),
    (image, target, valid, known),
    augment.Strengths(),
    24,
  )
  np.testing.assert_array_equal(found[3], known)
  turned = augment.augment_batch(
    jax.random.key(0),
    (image, target, valid, known),
    augment.Strengths(rotation_deg=45),
    16,
  )[3]
  assert set(np.unique(turned)) == {0, 1}
  np.testing.assert_array_equal(np.asarray(turned)[..., (0, 2)], 1)


def test_an_empty_field_is_known():
  image, target, valid, known = make_batch()
  *_, found = augment.augment_batch(
    jax.random.key(0),
    (image, target, valid, 0 * known),
    augment.Strengths(empty=1.0),
    24,
  )
  assert np.asarray(found).all()


def test_seeds_reproduce_and_differ():
  batch = make_batch()
  first = augment.augment_batch(jax.random.key(3), batch, ALL, 16)
  again = augment.augment_batch(jax.random.key(3), batch, ALL, 16)
  other = augment.augment_batch(jax.random.key(4), batch, ALL, 16)
  for a, b, c in zip(first, again, other, strict=True):
    np.testing.assert_array_equal(a, b)
    assert a.shape == c.shape
  assert not np.allclose(first[0], other[0])
  # Examples of one batch change each in their own way.
  same = tuple(np.stack([field[0]] * len(field)) for field in batch)
  found = augment.augment_batch(jax.random.key(3), same, ALL, 16)
  assert not np.allclose(found[0][0], found[0][1])


@pytest.mark.parametrize(
  "name",
  [
    field.name
    for field in dataclasses.fields(augment.Strengths)
    if field.name not in ("interpolated", "shift")  # Need a rim.
  ],
)
def test_each_step_alone_changes_the_image_within_its_range(name):
  image, target, valid, known = make_batch()
  value = {"flip": True, "channel_dropout": 1.0}.get(name, getattr(ALL, name))
  strengths = augment.Strengths(**{name: value})
  found, moved, *_ = augment.augment_batch(
    jax.random.key(0), (image, target, valid, known), strengths, 24
  )
  assert not np.allclose(found, image, atol=0.5)
  assert found.min() >= 0
  assert found.max() <= 255
  changes_target = name in ("rotation_deg", "flip", "log_scale", "empty")
  assert np.allclose(moved, target, atol=1e-4) != changes_target


def test_constant_image_stays_finite():
  zero = np.zeros((64, 24, 24, 2), np.float32)
  one = zero[..., :1]
  found = augment.augment_batch(
    jax.random.key(0), (zero, one, one, one), ALL, 16
  )
  assert all(np.isfinite(field).all() for field in found)


def test_blur_keeps_a_constant_and_spreads_a_point():
  constant = jnp.full((9, 9, 1), 7.0)
  np.testing.assert_allclose(augment.blur(constant, 1.0), 7.0, rtol=1e-6)
  point = jnp.zeros((9, 9, 1)).at[4, 4, 0].set(1.0)
  spread = augment.blur(point, 1.0)
  np.testing.assert_allclose(spread.sum(), 1.0, rtol=1e-5)
  assert spread[4, 4, 0] < 0.2


def test_crops_lie_anywhere_in_the_patch_and_target_with_them():
  image, target, valid, known = make_batch()
  y, x = np.mgrid[:24, :24]
  image[..., 0], image[..., 1] = y, x
  target[..., 0], target[..., 1] = y / 24, x / 24
  strengths = augment.Strengths(shift=1.0)
  found, moved, inside, _ = augment.augment_batch(
    jax.random.key(0), (image, target, valid, known), strengths, 16
  )
  corners = np.asarray(found[:, 0, 0])
  np.testing.assert_allclose(corners, np.rint(corners), atol=1e-3)
  assert corners.min() >= 0 and corners.max() <= 8
  assert np.ptp(corners, axis=0).min() >= 6
  np.testing.assert_allclose(found / 24, moved[..., :2], atol=1e-3)
  assert np.asarray(inside).min() == 1


def test_counts_drawn_anew_keep_the_mean_and_have_poisson_noise():
  image = np.full((1, 64, 64, 2), 100.0, np.float32)
  image[..., 1] = 0
  found = np.asarray(augment.draw_counts(jax.random.key(0), image[0], 0.2))
  assert not found[..., 1].any()
  assert found[..., 0].mean() == pytest.approx(100, rel=0.02)
  # Each ion is worth the same: values are whole multiples of the smallest.
  values = np.unique(found[..., 0])
  level = np.diff(values).min()
  np.testing.assert_allclose(values / level, np.rint(values / level), atol=0.01)
  assert found[..., 0].var() == pytest.approx(100 * level, rel=0.1)


def test_a_channel_may_be_lost_but_never_both():
  image, target, valid, known = make_batch()
  strengths = augment.Strengths(channel_dropout=0.5, nuclear_dropout=0.5)
  found, *_ = augment.augment_batch(
    jax.random.key(0), (image, target, valid, known), strengths, 24
  )
  is_lit = np.asarray(found).max((1, 2)) > 0
  assert is_lit.any(axis=1).all()
  assert 20 < 64 - is_lit[:, 1].sum() < 44
  assert 5 < 64 - is_lit[:, 0].sum() < 28


def test_empty_fields_are_noise_and_background():
  image, target, valid, known = make_batch()
  image[..., 1] = 0
  found, aim, *_ = augment.augment_batch(
    jax.random.key(0),
    (image, target, valid, known),
    augment.Strengths(empty=0.5),
    24,
  )
  found, aim = np.asarray(found), np.asarray(aim)
  is_empty = (aim == (0, 0, 1)).all((1, 2, 3))
  assert 20 < is_empty.sum() < 44
  np.testing.assert_allclose(found[~is_empty], image[~is_empty], atol=1e-3)
  np.testing.assert_allclose(aim[~is_empty], target[~is_empty], atol=1e-5)
  assert not found[..., 1].any()
  # Few ions in some, so that most pixels are 0; many in others.
  dark = (found[is_empty, ..., 0] == 0).mean((1, 2))
  assert dark.min() < 0.3 and dark.max() > 0.9
  for field in found[is_empty, ..., 0]:
    levels = np.unique(field)
    assert levels.size < 30  # Whole numbers of ions.


def test_a_background_is_smooth_and_under_the_signal():
  image, target, valid, known = make_batch(size=32)
  image[...] = 100
  image[:, 16, 16] = 255
  image[8:, ..., 1] = 0
  found, aim, *_ = augment.augment_batch(
    jax.random.key(0),
    (image, target, valid, known),
    augment.Strengths(background=0.5),
    32,
  )
  found = np.asarray(found)
  np.testing.assert_allclose(aim, target, atol=1e-5)
  assert not found[8:, ..., 1].any()
  flat = found[:8, :14]
  steepest = 0.5 * 255 / 8  # From corner to corner of the field's grid.
  assert np.abs(np.diff(flat, axis=2)).max() < steepest
  assert np.ptp(flat, axis=(1, 2)).max() > 10
  # The signal keeps its height, but for the stretch to the new range.
  sides = (found[:8, 16, 14] + found[:8, 16, 18]) / 2
  height = found[:8, 16, 16] - sides
  assert (height > 155 / 1.5 - 8).all() and (height < 155 + 8).all()


def test_a_missing_channel_stays_missing_behind_a_changed_grey_curve():
  image, target, valid, known = make_batch(size=32)
  image[..., 1] = 0
  found, *_ = augment.augment_batch(
    jax.random.key(0),
    (image, target, valid, known),
    augment.Strengths(gamma=0.3, background=0.4, nuclear_dropout=0.5),
    32,
  )
  brightest = np.asarray(found).max((1, 2))
  assert (brightest[:, 1] < 0.01).all()  # Of 255; gamma alone lifts zeros so.
  assert (brightest[:, 0] > 10).all()  # The only channel left is never lost.


def test_channels_are_dimmed_smoothly_and_not_too_far():
  image, target, valid, known = make_batch(size=32)
  image[...] = 200
  found, aim, *_ = augment.augment_batch(
    jax.random.key(0),
    (image, target, valid, known),
    augment.Strengths(dim=1.6),
    32,
  )
  gain = np.asarray(found) / 200
  np.testing.assert_allclose(aim, target, atol=1e-5)
  assert gain.min() >= np.exp(-1.6) - 1e-5 and gain.max() <= 1 + 1e-5
  assert gain.min() < 0.25 and gain.max() > 0.95
  # Some evenly, some not; and each channel by its own.
  spread = gain.max((1, 2)) / gain.min((1, 2))
  assert spread.min() < 1.05 and spread.max() > 1.8
  assert np.abs(np.diff(gain, axis=1)).max() < 1.6 / 8  # The grid is 8 px wide.
  means = gain.mean((1, 2))
  assert 0.35 < (means == 1).mean() < 0.65
  assert abs(np.corrcoef(means[:, 0], means[:, 1])[0, 1]) < 0.4


def test_few_ions_are_poisson_distributed():
  rates = jnp.array([0.01, 0.5, 18.0])
  ions = augment.draw_few_ions(jax.random.key(0), rates, (300, 300, 3))
  np.testing.assert_allclose(ions.mean((0, 1)), rates, rtol=0.1)
  np.testing.assert_allclose(ions.var((0, 1)), rates, rtol=0.1)
