"""BatchNorm and ReLU as one step: as Flax and JAX have them apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dicexmbd_jax.model import batch_norm

OPTIONS = {"momentum": 0.9, "epsilon": 1e-5, "rngs": nnx.Rngs(0)}


def draw(dtype):
  keys = jax.random.split(jax.random.key(0), 3)
  x = 3 + 2 * jax.random.normal(keys[0], (2, 8, 8, 5))
  weight = jax.random.normal(keys[1], x.shape)
  valid = (jax.random.uniform(keys[2], (2, 8, 8, 1)) < 0.7).astype(jnp.float32)
  return x.astype(dtype), weight, valid


def run(kind, dtype, is_masked):
  """Returns output, gradients of input, scale and bias; and statistics."""
  x, weight, valid = draw(dtype)
  norm = kind(5, dtype=dtype, **OPTIONS)
  norm.scale[...] = jnp.array([1.0, 0.5, -1.0, 2.0, 0.0])
  norm.bias[...] = jnp.array([0.0, 0.3, 0.2, -1.0, 0.1])
  graph, params, stats = nnx.split(norm, nnx.Param, ...)

  def compute(x, params):
    norm = nnx.merge(graph, params, stats, copy=True)
    if kind is batch_norm.NormRelu:
      y = norm(x, valid if is_masked else None)
    else:
      y = jax.nn.relu(norm(x))
      y = y * valid.astype(dtype) if is_masked else y
    assert y.dtype == dtype
    return (y * weight).sum(), (y, nnx.state(norm, nnx.BatchStat))

  grads, rest = jax.grad(compute, argnums=(0, 1), has_aux=True)(x, params)
  return [np.asarray(one, np.float32) for one in jax.tree.leaves((grads, rest))]


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize(
  ("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.bfloat16, 0.05)]
)
def test_values_gradients_and_statistics_are_those_of_flax(
  dtype, tolerance, is_masked
):
  found = run(batch_norm.NormRelu, dtype, is_masked)
  wanted = run(nnx.BatchNorm, dtype, is_masked)
  assert len(found) == len(wanted) == 6
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


def test_running_statistics_are_used_in_evaluation():
  x, _, valid = draw(jnp.float32)
  norm = batch_norm.NormRelu(5, **OPTIONS)
  norm.eval()
  wanted = np.maximum(x / np.sqrt(1 + 1e-5), 0) * valid
  np.testing.assert_allclose(norm(x, valid), wanted, atol=1e-5)


def test_evaluation_rounds_the_result_alone():
  norm = batch_norm.NormRelu(1, dtype=jnp.bfloat16, **OPTIONS)
  norm.mean[...], norm.var[...] = jnp.array([300.7]), jnp.array([1.0])
  norm.eval()
  x = jnp.full((1, 1, 1, 1), 302, jnp.bfloat16)
  # 300.7 alone, in bfloat16, would be 300.
  np.testing.assert_allclose(norm(x), 1.3, rtol=0.01)
