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

_Saved = tuple[Array, Array, Array, Array, Array, Array | None]


class NormRelu(nnx.BatchNorm):
  """nnx.BatchNorm, then a ReLU, then zero outside of the image.

  Of images with several columns folded into one (fold.py), too.
  """

  def __call__(self, x, valid=None):
    """Returns f[b h w c]; zero where `valid` is zero."""
    scale, bias = self.scale[...], self.bias[...]
    if self.use_running_average:
      mean, var = self.mean[...], self.var[...]
      return _apply(self.epsilon, x, mean, var, scale, bias, valid)
    x, mean, var = normalise(self.epsilon, x, scale, bias, valid)
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
  exact, num_px = x.astype(jnp.float32), x.size // scale.size
  mean = _sum(exact, scale) / num_px
  var = jnp.maximum(_sum(exact**2, scale) / num_px - mean**2, 0)
  rate = jax.lax.rsqrt(var + epsilon)
  y = _apply(epsilon, x, mean, var, scale, bias, valid)
  return (y, mean, var), (x, mean, rate, scale, bias, valid)


def _apply(epsilon, x, mean, var, scale, bias, valid):
  """Returns what these statistics make of x; in float32, but for the result."""
  spread = _make_spread(x, scale)
  factor = jax.lax.rsqrt(var + epsilon) * scale
  y = (x.astype(jnp.float32) - spread(mean)) * spread(factor) + spread(bias)
  return mask_outside(jax.nn.relu(y).astype(x.dtype), valid)


def _differentiate(epsilon, saved: _Saved, grads):
  x, mean, rate, scale, bias, valid = saved
  spread, num_px = _make_spread(x, scale), x.size // scale.size
  grad = mask_outside(grads[0], valid).astype(jnp.float32)
  normal = (x.astype(jnp.float32) - spread(mean)) * spread(rate)
  grad = jnp.where(normal * spread(scale) + spread(bias) > 0, grad, 0)
  grad_bias = _sum(grad, bias)
  grad_scale = _sum(grad * normal, scale)
  centred = grad - spread(grad_bias / num_px)
  centred = centred - normal * spread(grad_scale / num_px)
  no_grad = None if valid is None else jnp.zeros_like(valid)
  grad_x = (centred * spread(rate * scale)).astype(x.dtype)
  return grad_x, grad_scale, grad_bias, no_grad


normalise.defvjp(_normalise, _differentiate)


def _sum(x: Float[Array, "b h w n*c"], like: Float[Array, " c"]):
  """Returns the sums over pixels, those of folded columns too: f[c]."""
  sums = x.sum((0, 1, 2))
  return sums.reshape(-1, like.size).sum(0) if x.shape[-1] > like.size else sums


def _make_spread(x: Float[Array, "b h w n*c"], like: Float[Array, " c"]):
  """Returns what repeats a channel's number for each of folded columns."""
  num = x.shape[-1] // like.size
  return lambda values: jnp.tile(values, num) if num > 1 else values


def mask_outside(x, valid):
  """Sets what lies outside the image to zero; both may be folded."""
  return x if valid is None else x * _make_mask(valid, x)


def _make_mask(valid: Float[Array, "b h w n"], x: Float[Array, "b h w n*c"]):
  """Returns what x is multiplied by: its shape, or one channel if n is 1."""
  valid, num = valid.astype(x.dtype), valid.shape[-1]
  if num == 1:
    return valid
  # As a product it is made once and read by all passes over a level; chosen
  # channel by channel, the columns are spread anew in each, which costs more.
  # As a convolution it lies as they want it; compilers copy a matrix product.
  columns = jnp.repeat(jnp.eye(num, dtype=x.dtype), x.shape[-1] // num, 1)
  return jax.lax.conv_general_dilated(
    valid,
    columns[None, None],
    (1, 1),
    "VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision="highest",
  )
