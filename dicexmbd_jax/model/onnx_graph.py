"""The network as an ONNX graph, for programs that do not know JAX.

The graph answers as `predict` does at magnification 1: images of any size are
filled up to the pooling grid, what lies outside is kept at zero, and the mean
over the mirrored views is taken. Axes are (batch, channel, y, x).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.onnx_pb import ModelProto

# Both of 2020: the operators used here have not changed since.
OPSET, IR_VERSION = 13, 7
IMAGE, PROBABILITIES = "image", "probabilities"
NUM_CHANNELS, NUM_CLASSES = 2, 3
EPSILON = 1e-5  # BatchNorm's, as in unet.ConvBlock.
_TO_START = np.iinfo(np.int64).min  # Where a slice of steps -1 ends.

View = Sequence[bool]  # Of three.


def build_graph(
  arrays: Mapping[str, np.ndarray], config: Any, views: Sequence[View]
) -> ModelProto:
  """Returns a U-Net and all around it that makes probabilities of an image.

  Args:
    arrays: of the network, by their path in it, as in "head/kernel".
    config: `config.model`: depth, in_channels.
    views: whether each is mirrored up-down, left-right, at the diagonal.

  Returns:
    A checked model from float32 (b, 2, y, x) in 0..255 to float32 (b, 3, y, x)
    in 0..1, for any b, y and x of at least 1.
  """
  graph = _Graph(arrays, config.depth)
  size = graph.add("Slice", graph.add("Shape", IMAGE), [2], [4])
  stride = [2**config.depth] * 2
  fill = graph.add("Mod", graph.add("Neg", size), stride)
  more_channels = config.in_channels - NUM_CHANNELS
  image = graph.add(
    "Pad", IMAGE, graph.join([0, 0, 0, 0, 0, more_channels], fill)
  )
  ones = graph.add(
    "ConstantOfShape",
    graph.join([1, 1], size),
    value=numpy_helper.from_array(np.ones(1, np.float32)),
  )
  valid = graph.add("Pad", ones, graph.join([0] * 6, fill))
  answers = [graph.add_view(image, valid, view) for view in views]
  answer = graph.add("Mean", *answers) if len(answers) > 1 else answers[0]
  graph.add("Slice", answer, [0, 0], size, [2, 3], output=PROBABILITIES)
  return graph.make_model()


class _Graph:
  """Nodes and constants, by names that count up."""

  def __init__(self, arrays: Mapping[str, np.ndarray], depth: int):
    self._arrays, self._depth = arrays, depth
    self._nodes: list[Any] = []
    self._constants: dict[str, Any] = {}

  def add(self, kind: str, *inputs: Any, output: str = "", **attributes) -> str:
    """Adds a node.

    Args:
      kind: of operator.
      inputs: names of values, or lists of whole numbers.
      output: name of the value that it makes; made up if left out.
      attributes: of the operator.

    Returns:
      The name of what it makes.
    """
    output = output or f"{kind}_{len(self._nodes)}"
    names = [
      one if isinstance(one, str) else self._add_numbers(one) for one in inputs
    ]
    self._nodes.append(
      helper.make_node(kind, names, [output], name=output, **attributes)
    )
    return output

  def join(self, numbers: Sequence[int], name: str) -> str:
    """Returns the name of a list of numbers that begins with these."""
    return self.add("Concat", numbers, name, axis=0)

  def add_view(self, image: str, valid: str, view: View) -> str:
    """Adds the network on a mirrored image; returns the answer, turned back."""
    answer = self._add_network(self._turn(image, view), self._turn(valid, view))
    return self._turn(answer, view, is_back=True)

  def make_model(self) -> ModelProto:
    """Returns all that was added as a model."""
    graph = helper.make_graph(
      self._nodes,
      "dicexmbd",
      [_describe_value(IMAGE, NUM_CHANNELS)],
      [_describe_value(PROBABILITIES, NUM_CLASSES)],
      list(self._constants.values()),
    )
    model = helper.make_model(
      graph,
      producer_name="dicexmbd_jax",
      ir_version=IR_VERSION,
      opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model

  def _add_numbers(self, numbers: Sequence[int]) -> str:
    return self._add_constant(
      "numbers_" + "_".join(map(str, numbers)), np.array(numbers, np.int64)
    )

  def _add_constant(self, name: str, values: np.ndarray) -> str:
    """Adds a constant once, however many views use it."""
    if name not in self._constants:
      self._constants[name] = numpy_helper.from_array(
        np.ascontiguousarray(values), name
      )
    return name

  def _turn(self, x: str, view: View, is_back: bool = False) -> str:
    """Mirrors: at the diagonal last, but first on the way back."""
    axes = [2 + i for i in (0, 1) if view[i]]
    steps = [("Transpose", view[2]), ("Slice", bool(axes))]
    for kind, is_wanted in steps if is_back else reversed(steps):
      if not is_wanted:
        continue
      if kind == "Transpose":
        x = self.add(kind, x, perm=[0, 1, 3, 2])
      else:
        minus = [-1] * len(axes)
        x = self.add(kind, x, minus, [_TO_START] * len(axes), axes, minus)
    return x

  def _add_network(self, x: str, valid: str) -> str:
    """Adds unet.UNet, with the sigmoid that follows it."""
    skips = []
    for level in range(self._depth + 1):
      if level:
        x, valid = self._pool(x), self._pool(valid)
      x = self._add_block(f"encoders/{level}", x, valid)
      skips.append((x, valid))
    for level in reversed(range(self._depth)):
      skip, valid = skips[level]
      up = self._add_up(f"ups/{level}", x, valid)
      x = self.add("Concat", up, skip, axis=1)
      x = self._add_block(f"decoders/{level}", x, valid)
    return self.add("Sigmoid", self._convolve("head", x, bias="head/bias"))

  def _add_block(self, path: str, x: str, valid: str) -> str:
    for number in (1, 2):
      x = self._convolve(f"{path}/conv{number}", x)
      norm = f"{path}/norm{number}"
      names = [f"{norm}/{part}" for part in ("scale", "bias", "mean", "var")]
      values = [self._add_constant(one, self._arrays[one]) for one in names]
      x = self.add("BatchNormalization", x, *values, epsilon=EPSILON)
      x = self.add("Mul", self.add("Relu", x), valid)
    return x

  def _convolve(self, path: str, x: str, bias: str = "") -> str:
    kernel = self._arrays[f"{path}/kernel"]  # (y, x, in, out)
    edge = kernel.shape[0] // 2
    inputs = [x, self._add_constant(path, kernel.transpose(3, 2, 0, 1))]
    if bias:
      inputs.append(self._add_constant(bias, self._arrays[bias]))
    return self.add("Conv", *inputs, pads=[edge] * 4)

  def _add_up(self, path: str, x: str, valid: str) -> str:
    kernel = self._arrays[f"{path}/kernel"]  # (in, y, x, out)
    weight = self._add_constant(path, kernel.transpose(0, 3, 1, 2))
    bias = self._add_constant(f"{path}/bias", self._arrays[f"{path}/bias"])
    up = self.add("ConvTranspose", x, weight, bias, strides=[2, 2])
    return self.add("Mul", up, valid)

  def _pool(self, x: str) -> str:
    return self.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])


def _describe_value(name: str, num_channels: int) -> Any:
  shape: list[str | int | None] = ["batch", num_channels, "y", "x"]
  return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
