"""Columns of pixels side by side as channels, for devices with wide lanes.

A TPU works on 128 channels at once, whether there are as many or not. A level
of 64 channels takes half of its memory and of its time where two neighbouring
columns lie in the place of one: pixel (y, x) of `num` folded columns is
[y, x // num, x % num * channels:], the same bytes in the same order. Kernels
are made to match; what they compute stays the same.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def fold(x: Float[Array, "b h w c"], num: int) -> Float[Array, "b h w/n n*c"]:
  """Puts `num` columns, which divide the width, into one."""
  b, h, w, c = x.shape
  return x if num == 1 else x.reshape(b, h, w // num, num * c)


def fold_window(
  kernel: Float[Array, "3 3 c o"], num: int
) -> Float[Array, "3 3 n*c n*o"]:
  """Returns the kernel that convolves a folded image to a folded result."""
  if num == 1:
    return kernel
  # Of three folded columns, 3 num plain ones, each result sees three.
  rest = 2 * num - 2
  placed = [
    jnp.pad(kernel, ((0, 0), (num - 1 + i, rest - i), (0, 0), (0, 0)))
    for i in range(num)
  ]
  wide = jnp.stack(placed, 3)
  return wide.reshape(3, 3, num * kernel.shape[2], num * kernel.shape[3])


def fold_pixel(
  kernel: Float[Array, "c j k o"], num: int
) -> Float[Array, "n*c j n*k o"]:
  """Returns the kernel that makes j x k pixels of each, for folded images."""
  if num == 1:
    return kernel
  c, j, k, o = kernel.shape
  each = jnp.eye(num, dtype=kernel.dtype)
  wide = jnp.einsum("pq,cjko->pcjqko", each, kernel)
  return wide.reshape(num * c, j, num * k, o)
