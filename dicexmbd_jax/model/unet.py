"""The paper's U-Net (section 2.4.2) in Flax NNX.

Width 64 with three inputs is the published architecture. Convolutions that
feed a BatchNorm carry no bias: its true gradient is zero, and BatchNorm's own
shift takes its place.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from dicexmbd_jax.model import convolution, fold
from dicexmbd_jax.model.batch_norm import NormRelu, mask_outside

NUM_CLASSES = 3  # nucleus, membrane/cytoplasm, background
# Tracing JAX's random initialisers takes longer than reading all weights.
_ZEROS = nnx.initializers.zeros_init()


class ConvBlock(nnx.Module):
  """Twice: 3x3 convolution, BatchNorm, ReLU."""

  def __init__(self, num_in: int, num_out: int, *, dtype, rngs: nnx.Rngs):
    conv: dict[str, Any] = {
      "padding": 1,
      "use_bias": False,
      "kernel_init": _ZEROS,
      "dtype": dtype,
      "rngs": rngs,
    }
    norm: dict[str, Any] = {
      "momentum": 0.9,
      "epsilon": 1e-5,
      "dtype": dtype,
      "rngs": rngs,
    }
    self.conv1 = nnx.Conv(num_in, num_out, (3, 3), **conv)
    self.norm1 = NormRelu(num_out, **norm)
    self.conv2 = nnx.Conv(num_out, num_out, (3, 3), **conv)
    self.norm2 = NormRelu(num_out, **norm)

  def __call__(self, parts, valid=None, num_folded: int = 1):
    """Returns f[b h w num_out]; zero where `valid` is zero.

    Args:
      parts: images whose channels follow one another; they are convolved by
        their own part of the kernel each, and need not be copied together.
      valid: 1 inside the image.
      num_folded: columns folded into one, of all images here; see fold.py.
    """
    x = self.norm1(_convolve(self.conv1, parts, num_folded), valid)
    return self.norm2(_convolve(self.conv2, [x], num_folded), valid)


class UpConv(nnx.Module):
  """Transposed convolution, 2x2 with stride 2, as einsum and reshape.

  The same function as `nnx.ConvTranspose`, whose gradient XLA runs slowly.
  """

  def __init__(self, num_in: int, num_out: int, *, dtype, rngs: nnx.Rngs):
    del rngs
    self.kernel = nnx.Param(jnp.zeros((num_in, 2, 2, num_out), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((num_out,), jnp.float32))
    self.dtype = dtype

  def __call__(self, x, valid=None, num_folded: int = 1):
    """Returns f[b 2h 2w num_out]; zero where `valid` is zero.

    Args:
      x: half of the columns are folded into one, where any are.
      valid: 1 inside the image.
      num_folded: columns of the result that are folded into one.
    """
    kernel = self.kernel[...].astype(self.dtype)
    kernel = fold.fold_pixel(kernel, max(num_folded // 2, 1))
    bias = self.bias[...].astype(self.dtype)
    bias = jnp.tile(bias, num_folded) if num_folded > 1 else bias
    if num_folded > 1:  # Columns of the result are channels of one pixel.
      kernel = kernel.reshape(*kernel.shape[:2], 1, bias.size)
    # Chosen when compiling, by the device that it is compiled for.
    x = jax.lax.platform_dependent(
      x, kernel, tpu=upsample_dilated, default=upsample_placed
    )
    return mask_outside(x + bias, valid)


class UNet(nnx.Module):
  """U-Net of `depth` poolings whose first level has `width` channels.

  At the border the convolutions see zeros. A whole image whose edges are no
  multiples of 2**depth, or a tile that reaches beyond its image, is filled up
  to them; `valid` then says what is image, and every activation outside is
  set to zero, so that the filling acts as the zero padding does: the answer
  does not depend on how the image was cut.

  All kernels are zero: build_model and fill_model give them values.

  Attributes:
    lanes: channels that the device computes at once, wanted or not: 128 for
      TPUs, where levels with fewer are computed with columns folded into one
      (fold.py); 1: nothing is folded. The answers agree up to rounding.
  """

  lanes = 1

  def __init__(
    self,
    width: int,
    depth: int,
    in_channels: int,
    dtype: jnp.dtype | str = jnp.float32,
    *,
    rngs: nnx.Rngs,
  ):
    widths = [width * 2**level for level in range(depth + 1)]
    options: dict[str, Any] = {"dtype": jnp.dtype(dtype), "rngs": rngs}
    self.depth, self.in_channels = depth, in_channels
    self.encoders = nnx.List(
      ConvBlock(num_in, num_out, **options)
      for num_in, num_out in zip([in_channels, *widths], widths, strict=False)
    )
    self.ups = nnx.List(
      UpConv(2 * num_out, num_out, **options) for num_out in widths[:-1]
    )
    self.decoders = nnx.List(
      ConvBlock(2 * num_out, num_out, **options) for num_out in widths[:-1]
    )
    self.head = nnx.Conv(
      width, NUM_CLASSES, (1, 1), kernel_init=_ZEROS, **options
    )

  def __call__(
    self,
    images: Float[Array, "b h w c"],
    valid: Float[Array, "b h w 1"] | None = None,
  ) -> Float[Array, "b h w 3"]:
    """Returns the logits, float32.

    Args:
      images: values 0..255; h and w multiples of 2**depth. Channels of zeros
        are added up to `in_channels` (published: 3).
      valid: 1 inside the image, 0 outside; None: everything is inside.

    Raises:
      ValueError: h or w is not a multiple of 2**depth.
    """
    stride = 2**self.depth
    if images.shape[1] % stride or images.shape[2] % stride:
      raise ValueError(
        f"images: found {images.shape[1]} x {images.shape[2]} px, "
        f"expected multiples of {stride} (depth {self.depth})"
      )
    num_missing = self.in_channels - images.shape[-1]
    images = jnp.pad(images, [(0, 0), (0, 0), (0, 0), (0, num_missing)])
    nums = self.count_folded()
    x = fold.fold(mask_outside(images, valid), nums[0])
    valid = valid if valid is None else fold.fold(valid, nums[0])
    skips = []
    for level, encode in enumerate(self.encoders):
      if level:
        x = pool(x, nums[level - 1])
        valid = valid if valid is None else pool(valid, nums[level - 1])
      x = encode([x], valid, nums[level])
      skips.append((x, valid))
    for level in reversed(range(self.depth)):
      skip, valid = skips[level]
      # Upsampled first, then the skip: the published order.
      parts = [self.ups[level](x, valid, nums[level]), skip]
      if self.lanes == 1:  # One convolution, for the memory is near.
        parts = [jnp.concatenate(parts, -1)]
      x = self.decoders[level](parts, valid, nums[level])
    return self._end(x, nums[0]).astype(jnp.float32)

  def count_folded(self) -> list[int]:
    """Returns how many columns of each level are folded into one."""
    width = self.head.in_features
    num = self.lanes // width if self.lanes % width == 0 else 1
    num = min(num, 2**self.depth)  # Which divides the image.
    return [max(num >> level, 1) for level in range(self.depth + 1)]

  def _end(self, x, num_folded: int):
    """Returns the logits, f[b h w 3]."""
    if num_folded == 1:
      return self.head(x)
    kernel = self.head.kernel[...].astype(x.dtype).transpose(2, 0, 1, 3)
    x = jnp.einsum("bhwi,ijko->bhjwko", x, fold.fold_pixel(kernel, num_folded))
    bias = cast(nnx.Param, self.head.bias)[...].astype(x.dtype)
    b, h = x.shape[:2]
    return x.reshape(b, h, -1, NUM_CLASSES) + bias


def build_model(config: ConfigDict, seed: int = 0) -> UNet:
  """Returns a U-Net with random kernels, for ReLUs (He et al. 2015).

  Drawn by NumPy: compiling JAX's initialisers for all the shapes takes longer
  than a first training step.

  Args:
    config: `config.model`.
    seed: decides the kernels.
  """
  rng = np.random.default_rng(seed)
  return _make_model(
    config, lambda name, shape: _draw_initial(name, shape, rng)
  )


def fill_model(
  config: ConfigDict, arrays: Mapping[str, np.ndarray], source: Any
) -> UNet:
  """Returns a U-Net of these arrays, in evaluation mode.

  Args:
    config: `config.model`.
    arrays: by their path in the network, as in "head/kernel".
    source: of the arrays, for the message.

  Raises:
    ValueError: an array is missing or has another shape.
  """

  def take(name: str, shape: tuple[int, ...]) -> np.ndarray:
    found = arrays[name].shape if name in arrays else "nothing"
    if found != shape:
      raise ValueError(
        f"{source}: {name}: found {found}, expected {shape} by the "
        "configuration"
      )
    return arrays[name]

  model = _make_model(config, take)
  model.eval()
  return model


class _NoKeys:
  """Takes the place of nnx.Rngs where nothing is random."""

  def params(self) -> None:
    """Returns no key."""


def _make_model(
  config: ConfigDict, make: Callable[[str, tuple[int, ...]], Any]
) -> UNet:
  """Returns a U-Net whose arrays `make` gives, by their names and shapes."""
  keys = cast(nnx.Rngs, _NoKeys())
  model = nnx.eval_shape(lambda: UNet(**config, rngs=keys))
  graph, state = nnx.split(model)
  flat = dict(nnx.to_flat_state(state))
  for path, leaf in flat.items():
    wanted = leaf.get_value()
    values = make("/".join(map(str, path)), wanted.shape)
    # Not jnp.asarray, which compiles a conversion for each shape.
    array = jax.device_put(np.asarray(values, wanted.dtype))
    flat[path] = leaf.replace(array)
  return nnx.merge(graph, nnx.from_flat_state(flat))


def _draw_initial(path: str, shape: tuple[int, ...], rng: np.random.Generator):
  name = path.rpartition("/")[2]
  if name in ("scale", "var"):
    return np.ones(shape, np.float32)
  if name in ("bias", "mean"):
    return np.zeros(shape, np.float32)
  # UpConv's kernel has its inputs first, a convolution's all but last.
  fan_in = shape[0] if shape[1:3] == (2, 2) else math.prod(shape[:-1])
  return rng.standard_normal(shape, np.float32) * math.sqrt(2 / fan_in)


def keep_kernels_whole(model: UNet) -> UNet:
  """Returns the network without convolutions by windows.

  On a CPU it is compiled in less than half the time. In tiles of 256 px it
  runs within 2 % as fast, in larger ones slower; the answers are the same up to
  rounding.

  Args:
    model: a network without folded columns; it stays as it is.
  """
  model = nnx.clone(model)
  for conv in _list_convolutions(model):
    conv.is_whole = True
  return model


def transform_kernels(model: UNet) -> UNet:
  """Returns the network with its wide kernels made ready for a CPU.

  The answers are the same to the bit. What turns kernels into the weights of
  windows is a third of what XLA would have to compile of these convolutions,
  and would be done for each tile.

  Args:
    model: a network without folded columns; it stays as it is.
  """
  model = nnx.clone(model)
  for conv in _list_convolutions(model):
    kernel = conv.kernel[...]
    is_ready = conv.dtype == jnp.float32 and convolution.is_cut(kernel)
    if is_ready and not hasattr(conv, "is_whole"):
      weights = convolution.transform_kernel(np.asarray(kernel))
      conv.windows = nnx.List(
        nnx.Param(jax.device_put(one)) for row in weights for one in row
      )
  return model


def _list_convolutions(model: UNet) -> list[Any]:
  """Returns the 3x3 convolutions, to mark them: nnx.Conv knows no such mark."""
  blocks = (*model.encoders, *model.decoders)
  return [conv for block in blocks for conv in (block.conv1, block.conv2)]


def _convolve(conv: nnx.Conv, parts, num_folded: int):
  """Convolves images whose channels follow one another, one by one."""
  if windows := getattr(conv, "windows", None):
    weights = [one[...] for one in windows]
    grid = [weights[i : i + 4] for i in range(0, 16, 4)]
    return convolution.multiply_windows(parts[0].astype(conv.dtype), grid)
  kernel = conv.kernel[...].astype(conv.dtype)
  if hasattr(conv, "is_whole"):
    (part,) = parts
    return convolution.convolve_plainly(part.astype(conv.dtype), kernel)
  sizes = [part.shape[-1] // num_folded for part in parts]
  kernels = jnp.split(kernel, np.cumsum(sizes[:-1]), 2)
  results = [
    convolution.convolve_3x3(
      part.astype(conv.dtype), fold.fold_window(own, num_folded)
    )
    for part, own in zip(parts, kernels, strict=True)
  ]
  return functools.reduce(jnp.add, results)


def upsample_placed(
  x: Float[Array, "b h w c"], kernel: Float[Array, "c j k o"]
) -> Float[Array, "b j*h k*w o"]:
  """Makes j x k pixels of each: one matrix product, then copied into place."""
  b, h, w, _ = x.shape
  _, rows, columns, channels = kernel.shape
  x = jnp.einsum("bhwi,ijko->bhjwko", x, kernel)
  return x.reshape(b, rows * h, columns * w, channels)


@jax.custom_vjp
def upsample_dilated(
  x: Float[Array, "b h w c"], kernel: Float[Array, "c j k o"]
) -> Float[Array, "b j*h k*w o"]:
  """Makes j x k pixels of each, as a convolution of pixels with gaps between.

  For TPUs, whose convolutions skip the gaps and leave nothing to be copied.
  """
  size = kernel.shape[1:3]
  return jax.lax.conv_general_dilated(
    x,
    kernel[:, ::-1, ::-1].transpose(1, 2, 0, 3),
    window_strides=(1, 1),
    padding=[(num - 1, num - 1) for num in size],
    lhs_dilation=size,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _upsample_forward(x, kernel):
  return upsample_dilated(x, kernel), (x, kernel)


def _upsample_backward(saved, grad):
  """Returns the gradients; the kernel's as that of the way back.

  As JAX derives it, the compiler writes `grad` once more, reversed.
  """
  x, kernel = saved
  size = kernel.shape[1:3]
  grad_x = jax.lax.conv_general_dilated(
    grad,
    kernel,
    window_strides=size,
    padding="VALID",
    dimension_numbers=("NHWC", "OHWI", "NHWC"),
  )
  # The image, with gaps, is the window, and slides over what was made of it.
  grad_kernel = jax.lax.conv_general_dilated(
    grad,
    x,
    window_strides=(1, 1),
    padding="VALID",
    rhs_dilation=size,
    dimension_numbers=("CHWN", "IHWO", "CHWN"),
  )
  return grad_x, grad_kernel


upsample_dilated.defvjp(_upsample_forward, _upsample_backward)


def pool(
  x: Float[Array, "b h w c"], num_folded: int = 1
) -> Float[Array, "b h/2 w/2 c"]:
  """2x2 maximum with stride 2, as the maximum of four slices.

  The same function as a max-pooling window, whose gradient XLA runs slowly. Of
  the columns of the result half as many are folded as of x, if any are.
  """
  rows = jnp.maximum(x[:, ::2], x[:, 1::2])
  if num_folded == 1:
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
  # Slices of channels: a reshape would be copied, to another layout and back.
  columns = jnp.split(rows, num_folded, -1)
  pairs = zip(columns[::2], columns[1::2], strict=True)
  return jnp.concatenate([jnp.maximum(*pair) for pair in pairs], -1)


def count_parameters(model: nnx.Module) -> int:
  """Returns the number of trained numbers."""
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  return sum(leaf.size for leaf in leaves)
