"""Reads .npz files: plain arrays by name, nothing pickled."""

import math
import os
import zipfile

import numpy as np
from numpy.lib import format as npy_format

from dicexmbd_jax import memory

_MAX_SHRINK = 1032  # Deflate makes nothing smaller.


def read_arrays(path: str | os.PathLike, wanted: str) -> dict[str, np.ndarray]:
  """Reads all arrays of a file.

  Args:
    path: the file.
    wanted: what should be in it, for the message.

  Raises:
    ValueError: the file is missing or damaged; one line that names it.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
      total = sum(member.file_size for member in members)
      memory.check_size(path, f"{len(members)} arrays", total)
      for member in members:
        _check_member(archive, member)
    with np.load(path, allow_pickle=False) as file:
      return dict(file)
  except memory.TooLargeError:
    raise
  # One damaged byte or another makes NumPy and zipfile raise anything.
  except Exception as error:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    raise ValueError(
      f"{path}: found {reason[:200] or type(error).__name__}, expected {wanted}"
    ) from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
  """Refuses an array that is not as long as its header says.

  Else memory is taken for what was declared before anything is read.
  """
  if member.file_size > _MAX_SHRINK * member.compress_size:
    raise ValueError(f"{member.filename} of {member.file_size} bytes")
  with archive.open(member) as file:
    version = npy_format.read_magic(file)
    read = (
      npy_format.read_array_header_1_0
      if version == (1, 0)
      else npy_format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    declared = file.tell() + math.prod(shape) * dtype.itemsize
  if declared != member.file_size:
    raise ValueError(
      f"{member.filename} of {member.file_size} bytes instead of {declared}"
    )
