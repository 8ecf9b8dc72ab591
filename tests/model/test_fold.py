"""Folded columns: the same function, of images laid out in another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax.model import batch_norm, convolution, fold, unet


def draw(*shape):
  rng = np.random.default_rng(sum(shape))
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def test_a_folded_column_has_its_columns_channels_in_order():
  x = jnp.arange(16).reshape(1, 1, 8, 2)
  np.testing.assert_array_equal(fold.fold(x, 4)[0, 0], [range(8), range(8, 16)])
  np.testing.assert_array_equal(fold.fold(x, 1), x)


@pytest.mark.parametrize("num", [1, 2, 4])
def test_a_folded_window_convolves_as_the_plain_one(num):
  x, kernel = draw(2, 5, 8, 3), draw(3, 3, 3, 2)
  found = convolution.convolve_3x3(
    fold.fold(x, num), fold.fold_window(kernel, num)
  )
  wanted = fold.fold(convolution.convolve_3x3(x, kernel), num)
  np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("num", [1, 2])
def test_a_folded_pixel_is_multiplied_as_the_plain_one(num):
  x, kernel = draw(1, 3, 4, 3), draw(3, 1, 2, 5)
  found = jnp.einsum(
    "bhwi,ijko->bhjwko", fold.fold(x, num), fold.fold_pixel(kernel, num)
  )
  wanted = jnp.einsum("bhwi,ijko->bhjwko", x, kernel)
  np.testing.assert_allclose(found.ravel(), wanted.ravel(), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 2, 2, 5), (3, 2, 1, 4), (3, 1, 2, 2)])
def test_pixels_with_gaps_between_are_convolved_to_the_same(shape):
  x, kernel = draw(2, 3, 4, 3), draw(*shape)
  weight = draw(2, 3 * shape[1], 4 * shape[2], shape[3])
  found, wanted = (
    jax.value_and_grad(
      lambda x, kernel, make=make: (weight * make(x, kernel) ** 2).sum(), (0, 1)
    )(x, kernel)
    for make in (unet.upsample_dilated, unet.upsample_placed)
  )
  for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_pooling_leaves_half_of_the_columns_folded():
  x = draw(1, 4, 8, 3)
  wanted = unet.pool(x)
  for num in (2, 4, 8):
    found = unet.pool(fold.fold(x, num), num)
    np.testing.assert_array_equal(found, fold.fold(wanted, num // 2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num", [2, 4])
def test_a_folded_mask_is_the_plain_one_to_the_bit(num, dtype):
  x = draw(2, 3, 8, 5).astype(dtype)
  # Between pixels of the image and none, interpolation leaves parts of one.
  valid = jnp.clip(draw(2, 3, 8, 1), 0, 1)
  assert len(np.unique(valid)) > 3
  found = batch_norm.mask_outside(fold.fold(x, num), fold.fold(valid, num))
  wanted = fold.fold(batch_norm.mask_outside(x, valid), num)
  np.testing.assert_array_equal(found, wanted)


def make_parts(dtype):
  """Returns the structure, parameters and statistics of a small network."""
  config = {"width": 4, "depth": 2, "in_channels": 3, "dtype": dtype}
  return nnx.split(
    unet.build_model(ConfigDict(config)), nnx.Param, nnx.BatchStat
  )


def differentiate(lanes, valid, dtype="float32"):
  """Returns loss, logits, statistics and gradients of a training step."""
  graph, params, stats = make_parts(dtype)
  images = 50 * draw(2, 8, 16, 2)
  weight = draw(2, 8, 16, 3)

  def compute(params):
    model = nnx.merge(graph, params, stats, copy=True)
    model.lanes = lanes
    model.train()
    logits = model(images, valid)
    known = 1 if valid is None else valid
    loss = (weight * known * jax.nn.sigmoid(logits)).sum()
    return loss, (logits, nnx.state(model, nnx.BatchStat))

  found = jax.jit(jax.value_and_grad(compute, has_aux=True))(params)
  return [np.asarray(one, np.float32) for one in jax.tree.leaves(found)]


@pytest.mark.parametrize(
  ("dtype", "is_masked", "tolerance"),
  [
    ("float32", True, 1e-4),
    pytest.param("float32", False, 1e-4, marks=pytest.mark.slow),
    pytest.param("bfloat16", True, 0.2, marks=pytest.mark.slow),
  ],
)
def test_a_training_step_is_the_same_with_folded_columns(
  dtype, is_masked, tolerance
):
  valid = np.ones((2, 8, 16, 1), np.float32)
  valid[0, 6:] = valid[1, :, 13:] = 0
  valid = jnp.asarray(valid) if is_masked else None
  found, wanted = (differentiate(n, valid, dtype) for n in (16, 1))
  assert len(found) == len(wanted) > 30
  for one, other in zip(found, wanted, strict=True):
    scale = np.abs(other).max()
    assert np.abs(one - other).max() <= tolerance * scale + 1e-6


def test_evaluation_is_the_same_with_folded_columns():
  model = nnx.merge(*make_parts("float32"))
  model.eval()
  images = 50 * draw(2, 8, 16, 2)
  wanted = model(images)
  model.lanes = 16
  assert model.count_folded() == [4, 2, 1]
  np.testing.assert_allclose(model(images), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("lanes", "wanted"),
  [(1, [1, 1, 1]), (4, [1, 1, 1]), (64, [4, 2, 1]), (6, [1, 1, 1])],
)
def test_no_more_is_folded_than_fills_the_lanes_and_divides_the_image(
  lanes, wanted
):
  model = nnx.merge(*make_parts("float32"))
  model.lanes = lanes
  assert model.count_folded() == wanted
