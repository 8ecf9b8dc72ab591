"""The U-Net: published size, masked borders, and its rewritten layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax.model import convolution, unet


def make_model(width=4, depth=2, in_channels=2, dtype="float32"):
  """A small network whose BatchNorm statistics are not the initial ones."""
  config = ConfigDict(
    {
      "width": width,
      "depth": depth,
      "in_channels": in_channels,
      "dtype": dtype,
    }
  )
  model = unet.build_model(config)
  rng = np.random.default_rng(1)
  stats = nnx.state(model, nnx.BatchStat)
  stats = jax.tree.map(
    lambda leaf: jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), leaf.dtype),
    stats,
  )
  nnx.update(model, stats)
  model.eval()
  return model


@nnx.jit
def run(model, images, valid=None):
  return model(images, valid)


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
  expected = run(model, images)
  height, width = shape
  filled = make_images(32, 32, seed=3)  # Garbage outside: it must not matter.
  filled[:, :height, :width] = images
  valid = np.zeros((1, 32, 32, 1), np.float32)
  valid[:, :height, :width] = 1
  found = run(model, filled, valid)[:, :height, :width]
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
  found, expected = run(coarse, images), run(exact, images)
  assert found.dtype == jnp.float32
  scale = jnp.abs(expected).max()
  assert 0 < jnp.abs(found - expected).max() < 0.1 * scale


def test_initial_kernels_come_from_the_seed_and_fit_relus():
  config = ConfigDict(
    {"width": 8, "depth": 1, "in_channels": 2, "dtype": "float32"}
  )
  first, again = unet.build_model(config, 3), unet.build_model(config, 3)
  other = unet.build_model(config, 4)
  kernel = first.encoders[1].conv2.kernel[...]
  np.testing.assert_array_equal(kernel, again.encoders[1].conv2.kernel[...])
  assert not np.allclose(kernel, other.encoders[1].conv2.kernel[...])
  # Standard deviation of He et al.: sqrt(2 / (9 pixels * 16 channels)).
  np.testing.assert_allclose(kernel.std(), (2 / (9 * 16)) ** 0.5, rtol=0.05)


def test_a_network_of_three_inputs_sees_a_third_channel_of_zeros():
  model = make_model(in_channels=3)
  model.eval()
  image = np.random.default_rng(0).uniform(0, 255, (1, 8, 8, 2))
  image = jnp.asarray(image, jnp.float32)
  third = jnp.zeros((1, 8, 8, 1))
  wanted = model(jnp.concatenate([image, third], -1))
  np.testing.assert_array_equal(model(image), wanted)
  # The third input counts: it is zeros that are seen, not nothing.
  assert (model(jnp.concatenate([image, third + 9], -1)) != wanted).any()


def test_transformed_kernels_give_the_same_bits():
  model = make_model(convolution.MIN_WINOGRAD_CHANNELS, 1)
  ready = unet.transform_kernels(model)
  assert len(ready.encoders[0].conv2.windows) == 16
  assert not hasattr(ready.encoders[0].conv1, "windows")  # Two inputs.
  assert not hasattr(model.encoders[0].conv2, "windows")
  images = make_images(6, 8)
  np.testing.assert_array_equal(run(ready, images), run(model, images))


def test_kernels_kept_whole_give_the_same_up_to_rounding():
  model = make_model(convolution.MIN_WINOGRAD_CHANNELS, 1)
  whole = unet.keep_kernels_whole(model)
  assert not hasattr(model.encoders[0].conv2, "is_whole")
  ready = unet.transform_kernels(whole)
  assert not hasattr(ready.encoders[0].conv2, "windows")
  images = make_images(6, 8)
  found, wanted = run(ready, images), run(model, images)
  scale = np.abs(wanted).max()
  assert 0 < np.abs(found - wanted).max() < 1e-5 * scale  # Other sums.
