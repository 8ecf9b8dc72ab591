"""A 3x3 convolution that is fast on a CPU; XLA's own on other devices.

With 128 or more channels it is F(2x2, 3x3) of Lavin and Gray (2016, "Fast
algorithms for convolutional neural networks"), with 2.25 times fewer
multiplications: the image is cut into 4 x 4 windows that overlap by 2; windows
and kernel become 16 numbers each, by additions; what remains is one matrix
product for each of the 16; and each window gives 2 x 2 results, by additions
again. The rounding is that of the plain sum: its points 0, 1, -1 need no
division but by 2.

XLA:CPU takes the kernel's gradient as a convolution whose window is the whole
image, after copying both operands to another layout. As one matrix product of
shifted copies it takes half of the time at 16 channels and a quarter at 64.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# From here on fewer multiplications outweigh more additions (measured).
MIN_WINOGRAD_CHANNELS = 128

_NHWC = ("NHWC", "HWIO", "NHWC")

# The paper's B^T, G and A^T; each is applied to rows and to columns.
_WINDOW = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_RESULT = ((1, 1, 1, 0), (0, 1, -1, -1))

Matrix = Sequence[Sequence[float]]
Grid = list[list[Any]]  # grid[row][column]: one array for each place


@jax.custom_vjp
def convolve_3x3(
  x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "b h w o"]:
  """Returns the correlation with the kernel; zeros outside the image."""
  return _convolve(x, kernel)


def _convolve(x, kernel):
  return _choose(convolve_by_windows, convolve_plainly, x, kernel)


def _choose(on_cpu, elsewhere, x, kernel):
  """Calls the first on a CPU with many channels, else the second."""
  if not is_cut(kernel):
    return elsewhere(x, kernel)
  # Chosen when compiling, by the device that it is compiled for.
  return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def is_cut(kernel: Float[Array, "3 3 c o"]) -> bool:
  """Whether a CPU convolves with this kernel by windows."""
  is_wide = min(kernel.shape[2:]) >= MIN_WINOGRAD_CHANNELS
  return is_wide and kernel.dtype == jnp.float32  # bfloat16 would lose digits.


def convolve_plainly(
  x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "b h w o"]:
  """Returns the correlation as XLA does it; zeros outside the image."""
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=_NHWC
  )


def _convolve_forward(x, kernel):
  return _convolve(x, kernel), (x, kernel)


def _convolve_backward(saved, grad):
  x, kernel = saved
  grad_x = _choose(_convolve_flipped, _differentiate_image, grad, kernel)
  # Here, too, chosen when compiling.
  grad_kernel = jax.lax.platform_dependent(
    x, grad, cpu=multiply_shifted, default=_differentiate_kernel
  )
  return grad_x, grad_kernel.astype(kernel.dtype)


convolve_3x3.defvjp(_convolve_forward, _convolve_backward)


def _convolve_flipped(grad, kernel):
  return convolve_by_windows(grad, kernel[::-1, ::-1].swapaxes(2, 3))


def _differentiate_image(grad, kernel):
  zeros = jnp.zeros((*grad.shape[:3], kernel.shape[2]), grad.dtype)
  return jax.vjp(lambda x: convolve_plainly(x, kernel), zeros)[1](grad)[0]


def _differentiate_kernel(x, grad):
  shape = (3, 3, x.shape[-1], grad.shape[-1])
  zeros = jnp.zeros(shape, x.dtype)
  return jax.vjp(lambda kernel: convolve_plainly(x, kernel), zeros)[1](grad)[0]


def multiply_shifted(
  x: Float[Array, "b h w c"], grad: Float[Array, "b h w o"]
) -> Float[Array, "3 3 c o"]:
  """Returns the gradient of the kernel as one matrix product.

  The image is shifted along its rows and the gradient along its columns: three
  copies of each give all nine places of the kernel.

  Args:
    x: the convolution's input.
    grad: the loss's gradient by the convolution's output.
  """
  b, h, w, c = x.shape
  o = grad.shape[-1]
  wide = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
  tall = jnp.pad(grad, ((0, 0), (1, 1), (0, 0), (0, 0)))
  columns = jnp.concatenate([wide[:, :, j : j + w] for j in range(3)], -1)
  rows = jnp.concatenate([tall[:, 2 - i : 2 - i + h] for i in range(3)], -1)
  # A narrow product over very many pixels uses one core only; parts of it use
  # more. Parts of examples, so that a batch spread over devices stays there.
  parts = b * count_parts(b, h) if c + o <= 64 else 1
  product = jnp.einsum(
    "znp,znq->pq" if parts == 1 else "znp,znq->zpq",
    columns.reshape(parts, -1, 3 * c),
    rows.reshape(parts, -1, 3 * o),
    preferred_element_type=jnp.float32,
  )
  if parts > 1:
    product = product.sum(0)
  return product.reshape(3, c, 3, o).transpose(2, 0, 1, 3).astype(x.dtype)


def count_parts(num_examples: int, height: int) -> int:
  """Returns how many bands of rows make at least four parts of a batch."""
  bands = max(4 // num_examples, 1)
  return bands if height % bands == 0 else 1


def convolve_by_windows(
  x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "b h w o"]:
  """Returns the correlation with the kernel; zeros outside the image."""
  return multiply_windows(x, transform_kernel(kernel))


def transform_kernel(kernel: Any) -> Grid:
  """Returns what each place of a window is multiplied with, f[c o] each.

  NumPy and JAX give the same, to the bit.

  Args:
    kernel: f[3 3 c o], of NumPy or JAX.
  """
  return _transform(_KERNEL, [list(row) for row in kernel])


def multiply_windows(
  x: Float[Array, "b h w c"], weights: Grid
) -> Float[Array, "b h w o"]:
  """Returns the correlation with a kernel that was transformed before."""
  windows = _transform(_WINDOW, _cut(x))
  products = [
    [
      jnp.einsum("bhwc,co->bhwo", window, weight)
      for window, weight in zip(*rows, strict=True)
    ]
    for rows in zip(windows, weights, strict=True)
  ]
  return _join(_transform(_RESULT, products), x.shape)


def _cut(x: Float[Array, "b h w c"]) -> Grid:
  """Returns the pixels of all windows, f[b ceil(h/2) ceil(w/2) c] each.

  A window is 2 x 2 pixels and those around them; zeros outside the image.
  """
  _, h, w, _ = x.shape
  x = jnp.pad(x, ((0, 0), (1, 1 + h % 2), (1, 1 + w % 2), (0, 0)))
  last_y, last_x = h + h % 2 - 1, w + w % 2 - 1
  return [
    [x[:, i : i + last_y : 2, j : j + last_x : 2] for j in range(4)]
    for i in range(4)
  ]


def _join(grid: Grid, shape: tuple[int, ...]) -> Float[Array, "b h w o"]:
  """Returns the image of 2 x 2 results in each window."""
  rows = jnp.stack([jnp.stack(row, 3) for row in grid], 2)
  b, windows_y, _, windows_x, _, o = rows.shape
  image = rows.reshape(b, 2 * windows_y, 2 * windows_x, o)
  return image[:, : shape[1], : shape[2]]


def _transform(matrix: Matrix, grid: Grid) -> Grid:
  """Returns matrix @ grid @ matrix^T."""
  by_row = _transpose([_combine(matrix, column) for column in _transpose(grid)])
  return [_combine(matrix, row) for row in by_row]


def _combine(matrix: Matrix, arrays: Sequence[Any]) -> list[Any]:
  """Returns matrix @ arrays, leaving out what is multiplied by zero.

  And by one: XLA would drop it, but each operation costs time to trace.
  """
  return [_add_weighted(row, arrays) for row in matrix]


def _add_weighted(weights: Sequence[float], arrays: Sequence[Any]) -> Any:
  total = None
  for weight, array in zip(weights, arrays, strict=True):
    if weight == 0:
      continue
    if total is not None and weight == -1:
      total = total - array
      continue
    term = array if weight == 1 else weight * array
    total = term if total is None else total + term
  return total


def _transpose(rows):
  return [list(column) for column in zip(*rows, strict=True)]
