"""Reads .npz files: plain arrays by name, nothing pickled."""

import os
import tokenize
import zipfile
import zlib

import numpy as np

# What NumPy and zipfile raise, for one damaged byte or another.
BROKEN = (
  OSError,
  EOFError,
  ValueError,
  MemoryError,
  RuntimeError,
  SyntaxError,
  tokenize.TokenError,
  zipfile.BadZipFile,
  zlib.error,
)


def read_arrays(path: str | os.PathLike, wanted: str) -> dict[str, np.ndarray]:
  """Reads all arrays of a file.

  Args:
    path: the file.
    wanted: what should be in it, for the message.

  Raises:
    ValueError: the file is missing or damaged; one line that names it.
  """
  try:
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
      raise ValueError("a single array")
    with file:
      return dict(file)
  except BROKEN as error:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    raise ValueError(
      f"{path}: found {reason or type(error).__name__}, expected {wanted}"
    ) from error
