import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dicexmbd_jax.model import convolution

SHAPES = [
  (1, 1, 1, 1, 1),
  (1, 8, 12, 3, 5),  # Four bands of rows.
  (1, 7, 9, 4, 4),  # Rows that four does not divide.
  (3, 6, 5, 2, 6),
  (8, 4, 4, 3, 3),
  (2, 6, 6, 40, 40),  # Too wide for parts.
]


def draw(*shape):
  rng = np.random.default_rng(sum(shape))
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def convolve_stock(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@pytest.mark.parametrize(("b", "h", "w", "c", "o"), SHAPES)
def test_output_and_gradients_are_the_stock_convolutions(b, h, w, c, o):
  x, kernel, grad = draw(b, h, w, c), draw(3, 3, c, o), draw(b, h, w, o)
  found, find_grads = jax.vjp(convolution.convolve_3x3, x, kernel)
  expected, expect_grads = jax.vjp(convolve_stock, x, kernel)
  np.testing.assert_array_equal(found, expected)
  for one, other in zip(find_grads(grad), expect_grads(grad), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_gradients_are_summed_in_float32():
  x, grad = draw(1, 32, 32, 2), draw(1, 32, 32, 3)
  exact = convolution.multiply_shifted(x, grad)
  rounded = convolution.multiply_shifted(
    x.astype(jnp.bfloat16), grad.astype(jnp.bfloat16)
  )
  assert rounded.dtype == jnp.bfloat16
  error = jnp.abs(rounded.astype(jnp.float32) - exact)
  assert error.max() < 0.02 * jnp.abs(exact).max()


@pytest.mark.parametrize(("h", "w"), [(4, 6), (7, 5), (1, 1)])
def test_many_channels_are_convolved_to_rounding(h, w):
  c = o = convolution.MIN_WINOGRAD_CHANNELS
  x, grad = draw(2, h, w, c), draw(2, h, w, o)
  kernel = draw(3, 3, c, o) / c
  found, find_grads = jax.vjp(convolution.convolve_3x3, x, kernel)
  expected, expect_grads = jax.vjp(convolve_stock, x, kernel)
  np.testing.assert_allclose(found, expected, atol=2e-6)
  for one, other in zip(find_grads(grad), expect_grads(grad), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_kernel_transformed_by_numpy_gives_the_same_bits():
  c = o = convolution.MIN_WINOGRAD_CHANNELS
  x, kernel = draw(1, 5, 6, c), draw(3, 3, c, o)
  weights = convolution.transform_kernel(np.asarray(kernel))
  found = jax.jit(convolution.multiply_windows)(x, weights)
  expected = jax.jit(convolution.convolve_3x3)(x, kernel)
  np.testing.assert_array_equal(found, expected)
