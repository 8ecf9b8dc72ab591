"""Packed arrays of an HDF5 file that grow row by row.

HDF5's own deflate takes several times as long as ISA-L's, and one core. Pieces
are packed here, by threads, and handed to HDF5 as they are.
"""

import collections
import functools
from concurrent import futures
from typing import TYPE_CHECKING, Any

import numpy as np

from dicexmbd_jax.io import deflate

if TYPE_CHECKING:  # Slow to import.
  import h5py

_PIECE_BYTES = 2**18
_NUM_THREADS = 2
_MAX_PENDING = 2  # Pieces of an array that wait to be stored.
# Level 1: a 25th larger than the default, in two thirds of the time.
_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}


class GrowingArray:
  """An array on disk that gets rows at its end."""

  def __init__(
    self,
    group: "h5py.Group",
    name: str,
    dtype: np.typing.DTypeLike | None,
    width: tuple[int, ...] = (),
  ):
    """Makes an empty one.

    Args:
      group: to lie in.
      name: of the array.
      dtype: of the array; None: texts.
      width: shape of a row.
    """
    import h5py

    self._dtype = None if dtype is None else np.dtype(dtype)
    row_bytes = 2**6 if dtype is None else np.zeros(width, dtype).nbytes
    self._step = max(_PIECE_BYTES // max(row_bytes, 1), 1)
    self._num_rows = 0
    self._waiting: list[np.ndarray] = []
    self._packed: collections.deque[tuple[int, futures.Future]] = (
      collections.deque()
    )
    self._num_waiting = 0
    self.dataset: h5py.Dataset = group.create_dataset(
      name,
      (0, *width),
      h5py.string_dtype() if dtype is None else dtype,
      maxshape=(None,) * (1 + len(width)),
      chunks=(self._step, *(max(length, 1) for length in width)),
      **_PACKED,
    )

  def add(self, values: np.ndarray) -> None:
    """Takes the next rows.

    Raises:
      TypeError: they are of a type that the array's cannot stand for.
    """
    if self._dtype is not None:
      values = values.astype(self._dtype, casting="same_kind", copy=False)
    self._waiting.append(values)
    self._num_waiting += len(values)
    # Whole pieces: a part of one would be unpacked and packed again.
    self._write(self._num_waiting - self._num_waiting % self._step)

  def close(self) -> None:
    """Writes the rows that wait."""
    self._write(self._num_waiting)
    self._store(0)

  def _write(self, num_rows: int) -> None:
    """Writes as many of the rows that wait."""
    if not num_rows:
      return
    values = np.concatenate(self._waiting)
    self._waiting = [values[num_rows:]]
    self._num_waiting -= num_rows
    start = self._num_rows
    self._num_rows += num_rows
    self.dataset.resize(self._num_rows, axis=0)
    if self._dtype is None or not values.size:
      self.dataset[start:] = values[:num_rows]
      return
    for at in range(0, num_rows, self._step):
      rows = values[at : min(at + self._step, num_rows)]
      piece = np.zeros((self._step, *rows.shape[1:]), rows.dtype)
      piece[: len(rows)] = rows
      packed = _start_threads().submit(deflate.pack, piece)
      self._packed.append((start + at, packed))
    self._store(_MAX_PENDING)

  def _store(self, num_left: int) -> None:
    """Hands the oldest packed pieces to HDF5, but for some."""
    while len(self._packed) > num_left:
      place, packed = self._packed.popleft()
      others = (0,) * (len(self.dataset.shape) - 1)
      self.dataset.id.write_direct_chunk((place, *others), packed.result())


@functools.cache
def _start_threads() -> futures.ThreadPoolExecutor:
  """Returns the threads that pack, of all files."""
  return futures.ThreadPoolExecutor(_NUM_THREADS, "pack")


def write_packed(
  group: "h5py.Group", name: str, values: np.ndarray
) -> "h5py.Dataset":
  """Writes an array as a whole, of texts where it is one of objects.

  Args:
    group: to lie in.
    name: of the array.
    values: of one or more axes.

  Returns:
    Where it lies.
  """
  dtype = None if values.dtype.kind == "O" else values.dtype
  array = GrowingArray(group, name, dtype, values.shape[1:])
  array.add(values)
  array.close()
  return array.dataset
