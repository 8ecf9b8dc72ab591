"""Reads a compiled program's text: what each of its operations costs.

The text is XLA's optimised HLO of one device. Counted is what runs by itself:
a fusion is one operation, and what lies inside it is not looked at.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

_SIZES = {
  "pred": 1, "s2": 0.25, "s4": 0.5, "s8": 1, "s16": 2, "s32": 4, "s64": 8,
  "u2": 0.25, "u4": 0.5, "u8": 1, "u16": 2, "u32": 4, "u64": 8,
  "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8,
  "c64": 8, "c128": 16,
}  # fmt: skip
COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# These move nothing.
_FREE = {
  *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
  *("while", "conditional", "after-all", "partition-id", "iota"),
}
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*)$")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_SHAPE = re.compile(r"\b([a-z]+[0-9]*\w*)\[([0-9,]*)\](\{[^}]*\})?")


@dataclasses.dataclass(frozen=True)
class Operation:
  """One operation of the compiled program.

  Attributes:
    name: in the program's text.
    kind: the opcode: fusion, convolution, copy, all-reduce, ...
    label: what it was in our code, as "conv_general_dilated", with "backward"
      where it is of a gradient; the kind where nothing is said.
    num_bytes: read and written, as far as it lies in the device's memory, and
      not in a cache of the chip; all its runs of a step together.
    payload: of a collective: bytes that it brings together; else 0.
    cycles: estimated by the compiler (TPUs only); else 0.
  """

  name: str
  kind: str
  label: str
  num_bytes: float
  payload: float
  cycles: float


def read_operations(text: str) -> list[Operation]:
  """Returns all operations that run by themselves, in the text's order."""
  blocks = dict(_split(text))
  times = _count_runs(blocks)
  sizes = {
    name: _measure(shape)
    for block in blocks.values()
    for name, shape, _, _ in block
  }
  return [
    _describe(name, shape, kind, rest, sizes, times[computation])
    for computation, block in blocks.items()
    if times.get(computation)
    for name, shape, kind, rest in block
    if kind not in _FREE and not kind.endswith("-done")
  ]


Line = tuple[str, str, str, str]  # name, shape, opcode, operands and the rest


def _split(text: str) -> Iterator[tuple[str, list[Line]]]:
  """Yields the computations with their lines; the entry's name is ENTRY."""
  lines: list[Line] = []
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header and " = " not in line.partition("(")[0]:
      lines = []
      yield ("ENTRY" if header[1] else header[2]), lines
    elif found := _LINE.match(line):
      shape, rest = _cut_shape(found[2])
      kind, _, rest = rest.partition("(")
      lines.append((found[1], shape, kind.strip(), rest))


def _cut_shape(text: str) -> tuple[str, str]:
  """Splits "SHAPE opcode(...)"; a tuple's shape has brackets and spaces."""
  if not text.startswith("("):
    shape, _, rest = text.partition(" ")
    return shape, rest
  depth = 0
  for index, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if depth == 0:
      return text[: index + 1], text[index + 1 :]
  return text, ""


def _measure(shape: str) -> tuple[float, float]:
  """Returns bytes of a shape, all and those in the device's main memory."""
  total = outside = 0.0
  for dtype, dims, layout in _SHAPE.findall(shape):
    if dtype not in _SIZES:
      continue
    size = _SIZES[dtype] * math.prod(int(n) for n in dims.split(",") if n)
    total += size
    outside += 0 if "S(1)" in layout else size  # S(1): inside of the chip.
  return total, outside


def _count_runs(blocks: dict[str, list[Line]]) -> dict[str, int]:
  """Returns how often a step runs each computation that is no fusion's."""
  times = {"ENTRY": 1}
  waiting = ["ENTRY"]
  while waiting:
    caller = waiting.pop()
    for _, _, kind, rest in blocks.get(caller, ()):
      if kind not in ("while", "conditional"):
        continue
      trips = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
      number = int(trips[1]) if trips else 1
      called = re.findall(r"(?:body|_computation)=%?([\w.-]+)", rest)
      for names in re.findall(r"branch_computations=\{([^}]*)\}", rest):
        called += [name.strip().lstrip("%") for name in names.split(",")]
      for name in called:
        times[name] = times.get(name, 0) + number * times[caller]
        waiting.append(name)
  return times


def _describe(
  name: str,
  shape: str,
  kind: str,
  rest: str,
  sizes: dict[str, tuple[float, float]],
  times: int,
) -> Operation:
  operands = re.findall(r"%([\w.-]+)", rest.partition(")")[0])
  known = [sizes[operand] for operand in operands if operand in sizes]
  result, result_outside = _measure(shape)
  taken = sum(total for total, _ in known)
  plain = kind.removesuffix("-start")
  payload = 0.0
  if plain in COLLECTIVES:
    # The result of a start may hold the operands, too.
    is_both = kind != plain and plain != "all-reduce"
    payload = max(taken, result - taken if is_both else result)
  cycles = re.search(r'estimated_cycles":"(\d+)"', rest)
  return Operation(
    name=name,
    kind=plain,
    label=_label(rest) or plain,
    num_bytes=times * (result_outside + sum(outside for _, outside in known)),
    payload=times * payload,
    cycles=times * float(cycles[1] if cycles else 0),
  )


def _label(rest: str) -> str:
  found = re.search(r'op_name="([^"]*)"', rest)
  if not found:
    return ""
  last = re.sub(r"[\[{].*", "", found[1].rpartition("/")[2])
  return f"{last} backward" if "transpose(jvp" in found[1] else last


def sum_collectives(
  operations: Sequence[Operation],
) -> dict[str, tuple[int, float]]:
  """Returns number and bytes of each kind of collective that there is."""
  found: dict[str, tuple[int, float]] = {}
  for operation in operations:
    if operation.kind in COLLECTIVES:
      number, total = found.get(operation.kind, (0, 0.0))
      found[operation.kind] = number + 1, total + operation.payload
  return found


def rank(operations: Sequence[Operation]) -> list[tuple[str, float, float]]:
  """Returns (label, cycles, bytes) of alike operations, costliest first.

  By cycles where the compiler estimates them, else by bytes.
  """
  found: dict[str, tuple[float, float]] = {}
  for operation in operations:
    cycles, size = found.get(operation.label, (0.0, 0.0))
    found[operation.label] = (
      cycles + operation.cycles,
      size + operation.num_bytes,
    )
  ranked = sorted(found.items(), key=lambda item: item[1], reverse=True)
  return [(label, *costs) for label, costs in ranked]
