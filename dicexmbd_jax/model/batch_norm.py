"""BatchNorm and ReLU as one step, which keeps nothing but its input.

Differentiated part by part they keep the centred image in float32 and which
pixels are above zero; compilers for accelerators write both to memory, at twice
and half the size of the bfloat16 image itself, and read them again. Here the
backward pass makes them anew from the image, in the same pass over it.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

_AXES = (0, 1, 2)
_Saved = tuple[Array, Array, Array, Array, Array, Array | None]


class NormRelu(nnx.BatchNorm):
  """nnx.BatchNorm, then a ReLU, then zero outside of the image."""

  def __call__(self, x, valid=None):
    """Returns f[b h w c]; zero where `valid` is zero."""
    if self.use_running_average:
      return mask_outside(jax.nn.relu(super().__call__(x)), valid)
    x, mean, var = normalise(
      self.epsilon, x, self.scale[...], self.bias[...], valid
    )
    for kept, now in ((self.mean, mean), (self.var, var)):
      kept[...] = self.momentum * kept[...] + (1 - self.momentum) * now
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalise(
  epsilon: float,
  x: Float[Array, "b h w c"],
  scale: Float[Array, " c"],
  bias: Float[Array, " c"],
  valid: Float[Array, "b h w 1"] | None,
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
  """Returns relu(scale * normalised x + bias) * valid, and mean and variance.

  Over all pixels, those outside too. In float32, whatever the type of x, which
  the result has. Mean and variance are for the running statistics alone: no
  gradient comes from them.
  """
  return _normalise(epsilon, x, scale, bias, valid)[0]


def _normalise(epsilon, x, scale, bias, valid):
  exact = x.astype(jnp.float32)
  mean = exact.mean(_AXES)
  var = jnp.maximum((exact**2).mean(_AXES) - mean**2, 0)
  rate = jax.lax.rsqrt(var + epsilon)
  y = jax.nn.relu((exact - mean) * (rate * scale) + bias).astype(x.dtype)
  return (mask_outside(y, valid), mean, var), (
    x,
    mean,
    rate,
    scale,
    bias,
    valid,
  )


def _differentiate(epsilon, saved: _Saved, grads):
  x, mean, rate, scale, bias, valid = saved
  grad = mask_outside(grads[0], valid).astype(jnp.float32)
  normal = (x.astype(jnp.float32) - mean) * rate
  grad = jnp.where(normal * scale + bias > 0, grad, 0)
  grad_bias = grad.sum(_AXES)
  grad_scale = (grad * normal).sum(_AXES)
  num_px = x.size // x.shape[-1]
  centred = grad - grad_bias / num_px - normal * (grad_scale / num_px)
  no_grad = None if valid is None else jnp.zeros_like(valid)
  grad_x = (centred * (rate * scale)).astype(x.dtype)
  return grad_x, grad_scale, grad_bias, no_grad


normalise.defvjp(_normalise, _differentiate)


def mask_outside(x, valid):
  """Sets what lies outside the image to zero."""
  return x if valid is None else x * valid.astype(x.dtype)
