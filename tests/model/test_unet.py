"""The U-Net: published size, masked borders, and its rewritten layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dicexmbd_jax.model import unet


def make_model(width=4, depth=2, in_channels=2, **options):
  """A small network whose BatchNorm statistics are not the initial ones."""
  model = unet.UNet(width, depth, in_channels, rngs=nnx.Rngs(0), **options)
  model.train()
  key = jax.random.key(1)
  for i in range(5):
    model(255 * jax.random.uniform(jax.random.fold_in(key, i), (2, 16, 16, 2)))
  model.eval()
  return model


def make_images(height, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(0, 255, (1, height, width, 2)).astype(np.float32)


def test_published_architecture_has_its_number_of_parameters():
  model = nnx.eval_shape(lambda: unet.UNet(64, 4, 3, rngs=nnx.Rngs(0)))
  # 31,037,763, less the biases before each BatchNorm that have no effect:
  # two per block, in 9 blocks.
  assert unet.count_parameters(model) == 31_037_763
  assert len(model.encoders) + len(model.decoders) == 9


def test_sizes_that_do_not_fit_the_poolings_are_refused():
  with pytest.raises(ValueError, match=r"found 10 x 16 px.*multiples of 4"):
    make_model()(make_images(10, 16))


@pytest.mark.parametrize("shape", [(16, 16), (12, 20), (4, 4)])
def test_filling_around_an_image_changes_nothing(shape):
  model = make_model()
  images = make_images(*shape)
  expected = model(images)
  height, width = shape
  filled = make_images(32, 32, seed=3)  # Garbage outside: it must not matter.
  filled[:, :height, :width] = images
  valid = np.zeros((1, 32, 32, 1), np.float32)
  valid[:, :height, :width] = 1
  found = model(filled, valid)[:, :height, :width]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pool_is_max_pooling():
  x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
  np.testing.assert_array_equal(
    unet.pool(x), nnx.max_pool(x, (2, 2), strides=(2, 2))
  )


def test_up_convolution_is_the_transposed_convolution():
  up = unet.UpConv(3, 5, dtype=jnp.float32, rngs=nnx.Rngs(0))
  up.bias[...] = jnp.arange(5.0)
  x = jax.random.normal(jax.random.key(0), (1, 3, 4, 3))
  # lax correlates, so that its kernel is the mirrored one.
  kernel = jnp.transpose(up.kernel[...], (1, 2, 0, 3))[::-1, ::-1]
  expected = jax.lax.conv_transpose(
    x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  np.testing.assert_allclose(
    up(x), expected + up.bias[...], rtol=1e-5, atol=1e-5
  )


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
  exact = make_model()
  coarse = make_model(dtype="bfloat16")
  nnx.update(coarse, nnx.state(exact))
  images = make_images(16, 16)
  found, expected = coarse(images), exact(images)
  assert found.dtype == jnp.float32
  scale = jnp.abs(expected).max()
  assert 0 < jnp.abs(found - expected).max() < 0.1 * scale
