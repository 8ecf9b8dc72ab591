"""Reads a PyTorch state dict without PyTorch, and without running its pickle.

The file (`torch.save`, 1.6 and newer) is a zip archive: `data.pkl` names the
tensors, `data/KEY` holds their bytes. A pickle can call anything; here it can
make ordered dictionaries and tensors, and every other name is refused. It is
looked through before it runs: one wrong byte can ask for gigabytes. Nothing is
held beside the bytes of the file itself: tensors are views of them.
"""

import collections
import io
import math
import pathlib
import pickle
import pickletools
import zipfile
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]

# Storage type -> dtype of its bytes. bfloat16 is the upper half of a float32.
STORAGES: dict[str, np.dtype[Any]] = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype("<u2"),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}


# What torch.save writes, of any protocol.
_OPCODES = frozenset(
  (
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("SHORT_BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
  )
)


def read_state_dict(path: str | pathlib.Path) -> Tensors:
  """Reads the tensors of a state dict.

  A dictionary that holds it under "state_dict" will do, and so will names that
  begin with "module.".

  Returns:
    Name -> array, read-only; bfloat16 as float32.

  Raises:
    ValueError: missing, truncated or other file, a pickle that asks for
      anything but tensors, or no tensors in it. One line.
  """
  path = pathlib.Path(path)
  try:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
      _check_members(archive, size)
      tensors = _pick_tensors(_load(archive))
  except FileNotFoundError:
    raise ValueError(f"{path}: found no such file") from None
  except Exception as error:  # Damage makes zipfile and pickle raise anything.
    text = " ".join(str(error).split())[:200] or type(error).__name__
    raise ValueError(
      f"{path}: found {text}, expected a state dict as torch.save writes it "
      "(a zip file, PyTorch 1.6 or newer)"
    ) from error
  if not tensors:
    raise ValueError(f"{path}: found no tensors, expected a state dict")
  return tensors


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
  """Refuses an archive that unpacks to more than there is."""
  members = archive.infolist()
  if any(one.compress_type != zipfile.ZIP_STORED for one in members):
    raise ValueError("compressed members")
  if sum(one.file_size for one in members) > size:
    raise ValueError(f"members of more than the file's {size} bytes")
  for one in members:
    is_order = one.filename.split("/")[1:] == ["byteorder"]
    if is_order and archive.read(one) != b"little":
      raise ValueError("another byte order than little")


def _pick_tensors(found: Any) -> Tensors:
  """Returns what is a tensor, by its name."""
  if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
    found = found["state_dict"]
  return {
    name.removeprefix("module."): values
    for name, values in (found.items() if isinstance(found, dict) else ())
    if isinstance(name, str) and isinstance(values, np.ndarray)
  }


def _load(archive: zipfile.ZipFile) -> Any:
  """Unpickles `data.pkl`, with its tensors as arrays."""
  names = [
    name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]
  ]
  if len(names) != 1:
    raise ValueError("no data.pkl")
  folder = names[0].removesuffix("data.pkl")
  data = archive.read(names[0])
  _check_pickle(data)
  return _TensorUnpickler(io.BytesIO(data), archive, folder).load()


def _check_pickle(data: bytes) -> None:
  """Refuses opcodes that torch.save does not write, and memos beyond the data.

  A memo is as long as its highest index, which one byte can make 4e9.
  """
  for opcode, argument, _ in pickletools.genops(data):
    if opcode.name not in _OPCODES:
      raise ValueError(f"a pickle with {opcode.name}")
    if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(data):
      raise ValueError(f"a pickle with the memo index {argument}")


class _TensorUnpickler(pickle.Unpickler):
  """Knows ordered dictionaries and tensors, and nothing else."""

  def __init__(self, file, archive: zipfile.ZipFile, folder: str):
    super().__init__(file)
    self._archive, self._folder = archive, folder
    self._storages: dict[tuple[str, str], np.ndarray] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      # A new function each time: BUILD can set the attributes of one.
      return lambda *arguments: _rebuild_tensor(*arguments)
    if module == "torch" and name in STORAGES:
      return name  # A mark for persistent_load, not something to call.
    raise pickle.UnpicklingError(f"a pickle that asks for {module}.{name}")

  def persistent_load(self, pid: Any) -> np.ndarray:
    _, kind, key, _, num_values = pid
    if not isinstance(kind, str) or not isinstance(key, str):
      raise ValueError("a storage without a name")
    if (kind, key) not in self._storages:  # Tensors may share one.
      self._storages[kind, key] = self._read_storage(kind, key)
    values = self._storages[kind, key]
    if len(values) != num_values:
      raise ValueError(f"{len(values)} of {num_values} numbers in data/{key}")
    return values

  def _read_storage(self, kind: str, key: str) -> np.ndarray:
    raw = self._archive.read(f"{self._folder}data/{key}")
    values = np.frombuffer(raw, STORAGES[kind])
    if kind == "BFloat16Storage":
      return (values.astype("<u4") << 16).view("<f4")
    return values


def _rebuild_tensor(storage, offset, shape, strides, *_) -> np.ndarray:
  """Returns a view of the part of a storage that is one tensor.

  Each number of the storage is in it once at most.
  """
  if not all(type(one) is int for one in (offset, *shape, *strides)):
    raise ValueError("a tensor whose shape is no whole numbers")
  end = offset + 1
  # From the axis whose steps are the smallest: each must step over all before.
  for stride, size in sorted(zip(strides, shape, strict=True)):
    if size > 1 and stride < end - offset:
      raise ValueError(f"a tensor of strides {strides}, which overlap")
    end += (size - 1) * stride
  if min((offset, *shape, *strides), default=0) < 0 or (
    math.prod(shape) and end > len(storage)
  ):
    raise ValueError(f"a tensor of shape {shape} outside its storage")
  return np.lib.stride_tricks.as_strided(
    storage[offset:],
    shape,
    [stride * storage.itemsize for stride in strides],
    writeable=False,
  )
