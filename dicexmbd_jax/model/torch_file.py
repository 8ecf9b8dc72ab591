"""Reads a PyTorch state dict without PyTorch, and without running its pickle.

The file (`torch.save`, 1.6 and newer) is a zip archive: `data.pkl` names the
tensors, `data/KEY` holds their bytes. A pickle can call anything; here it can
make ordered dictionaries and tensors, and every other name is refused.
"""

import collections
import pathlib
import pickle
import zipfile
import zlib
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


def read_state_dict(path: str | pathlib.Path) -> Tensors:
  """Reads the tensors of a state dict.

  A dictionary that holds it under "state_dict" will do, and so will names that
  begin with "module.".

  Returns:
    Name -> array; bfloat16 as float32.

  Raises:
    ValueError: missing, truncated or other file, a pickle that asks for
      anything but tensors, or no tensors in it. One line.
  """
  path = pathlib.Path(path)
  try:
    with zipfile.ZipFile(path) as archive:
      found = _load(archive)
  except FileNotFoundError:
    raise ValueError(f"{path}: found no such file") from None
  except (
    *(zipfile.BadZipFile, pickle.UnpicklingError, OSError, EOFError),
    *(KeyError, IndexError, TypeError, AttributeError, ValueError),
    # What damaged lengths, flags and streams make zipfile and pickle raise.
    *(RuntimeError, MemoryError, OverflowError, zlib.error),
  ) as error:
    text = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(
      f"{path}: found {text}, expected a state dict as torch.save writes it "
      "(a zip file, PyTorch 1.6 or newer)"
    ) from error
  if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
    found = found["state_dict"]
  tensors = {
    str(name).removeprefix("module."): values
    for name, values in (found.items() if isinstance(found, dict) else ())
    if isinstance(values, np.ndarray)
  }
  if not tensors:
    raise ValueError(f"{path}: found no tensors, expected a state dict")
  return tensors


def _load(archive: zipfile.ZipFile) -> Any:
  """Unpickles `data.pkl`, with its tensors as arrays."""
  names = [
    name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]
  ]
  if len(names) != 1:
    raise ValueError("no data.pkl")
  folder = names[0].removesuffix("data.pkl")
  with archive.open(names[0]) as file:
    return _TensorUnpickler(file, archive, folder).load()


class _TensorUnpickler(pickle.Unpickler):
  """Knows ordered dictionaries and tensors, and nothing else."""

  def __init__(self, file, archive: zipfile.ZipFile, folder: str):
    super().__init__(file)
    self._archive, self._folder = archive, folder

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _rebuild_tensor
    if module == "torch" and name in STORAGES:
      return name  # A mark for persistent_load, not something to call.
    raise pickle.UnpicklingError(f"a pickle that asks for {module}.{name}")

  def persistent_load(self, pid: Any) -> np.ndarray:
    _, kind, key, _, num_values = pid
    raw = self._archive.read(f"{self._folder}data/{key}")
    values = np.frombuffer(raw, STORAGES[kind])
    if len(values) != num_values:
      raise ValueError(f"{len(values)} of {num_values} numbers in data/{key}")
    if kind == "BFloat16Storage":
      return (values.astype("<u4") << 16).view("<f4")
    return values


def _rebuild_tensor(storage, offset, shape, strides, *_) -> np.ndarray:
  """Returns a copy of the part of a storage that is one tensor."""
  last = offset + sum(
    (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
  )
  if min((offset, *shape, *strides), default=0) < 0 or (
    0 not in shape and last >= len(storage)
  ):
    raise ValueError(f"a tensor of shape {tuple(shape)} outside its storage")
  view = np.lib.stride_tricks.as_strided(
    storage[offset:],
    shape,
    [stride * storage.itemsize for stride in strides],
    writeable=False,
  )
  return view.copy()
