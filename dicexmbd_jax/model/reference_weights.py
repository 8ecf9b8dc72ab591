"""The published network's PyTorch weights, on our U-Net."""

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from dicexmbd_jax.model import unet

DEPTH = 4  # conv1 .. conv5 down, up6 .. conv9 up, conv10 the head.
Tensors = Mapping[str, np.ndarray]


def describe_network(tensors: Tensors) -> ConfigDict:
  """Returns `config.model` of the network that a state dict is of.

  Raises:
    ValueError: it is of another network.
  """
  first = tensors.get("conv1.conv.0.weight")
  if first is None or first.ndim != 4:
    raise ValueError(
      "found no conv1.conv.0.weight of a 3x3 convolution, expected the names "
      "of the published U-Net (conv1 .. conv10, up6 .. up9)"
    )
  if first.shape[1] < 2:
    raise ValueError(
      f"conv1.conv.0.weight: found {first.shape[1]} input channel, expected 2 "
      "or more: nuclear, membrane/cytoplasm"
    )
  return ConfigDict(
    {
      "width": int(first.shape[0]),
      "depth": DEPTH,
      "in_channels": int(first.shape[1]),
      "dtype": "float32",
    }
  )


def build_model(tensors: Tensors) -> unet.UNet:
  """Returns our network with these weights, in evaluation mode.

  Our convolutions before a BatchNorm have no bias: it moves into the running
  mean, which leaves the answer as it is.

  Raises:
    ValueError: a tensor is missing, left over or has another shape.
  """
  return unet.fill_model(
    describe_network(tensors), map_tensors(tensors), "state dict"
  )


def map_tensors(tensors: Tensors) -> dict[str, np.ndarray]:
  """Returns our arrays by their path in the network.

  Raises:
    ValueError: a tensor is missing, left over, of another number of axes, or
      of numbers that no network can answer with.
  """
  left = {
    name: values
    for name, values in tensors.items()
    if not name.endswith("num_batches_tracked")
  }

  def take(name: str, num_axes: int = 1) -> np.ndarray:
    if name not in left:
      raise ValueError(f"found no {name}, expected the published U-Net's")
    values = left.pop(name)
    if values.ndim != num_axes:
      raise ValueError(
        f"{name}: found the shape {values.shape}, expected {num_axes} axes"
      )
    # Else each image, and no file of weights, would be blamed later.
    if not np.isfinite(values).all():
      raise ValueError(
        f"{name}: found NaN or infinity, expected finite numbers"
      )
    if name.endswith("running_var") and values.min(initial=0) < 0:
      raise ValueError(f"{name}: found {values.min()}, expected 0 or more")
    return values

  arrays: dict[str, np.ndarray] = {}
  for level in range(DEPTH + 1):
    arrays |= _map_block(f"encoders/{level}", f"conv{level + 1}", take)
  for level in range(DEPTH):
    number = 9 - level  # Theirs count upwards from the deepest: conv6.
    arrays |= _map_block(f"decoders/{level}", f"conv{number}", take)
    kernel = take(f"up{number}.weight", 4)  # (in, out, 2, 2)
    arrays[f"ups/{level}/kernel"] = kernel.transpose(0, 2, 3, 1)
    arrays[f"ups/{level}/bias"] = take(f"up{number}.bias")
  arrays["head/kernel"] = take("conv10.weight", 4).transpose(2, 3, 1, 0)
  arrays["head/bias"] = take("conv10.bias")
  if left:
    raise ValueError(f"found {next(iter(left))}, expected no such tensor")
  return arrays


def _map_block(ours: str, theirs: str, take) -> dict[str, np.ndarray]:
  arrays: dict[str, np.ndarray] = {}
  for number, (conv, norm) in enumerate(((0, 1), (3, 4)), start=1):
    name = f"{theirs}.conv.{norm}"
    kernel = take(f"{theirs}.conv.{conv}.weight", 4)  # (out, in, 3, 3)
    mean, bias = (
      take(f"{name}.running_mean"),
      take(f"{theirs}.conv.{conv}.bias"),
    )
    if mean.shape != bias.shape:
      raise ValueError(
        f"{theirs}.conv.{conv}.bias: found {bias.shape}, expected {mean.shape}"
      )
    arrays |= {
      f"{ours}/conv{number}/kernel": kernel.transpose(2, 3, 1, 0),
      f"{ours}/norm{number}/scale": take(f"{name}.weight"),
      f"{ours}/norm{number}/bias": take(f"{name}.bias"),
      f"{ours}/norm{number}/mean": mean - bias,
      f"{ours}/norm{number}/var": take(f"{name}.running_var"),
    }
  return arrays
