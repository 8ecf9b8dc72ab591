"""What a run keeps of its images until its end, on disk."""

import contextlib
import os
import pickle
import tempfile
from typing import Any

from dicexmbd_jax import storage


class Shelf:
  """Values by name, in a temporary file, so that they take no memory.

  A file without a name: nothing is left of it when the process dies. Where
  there is no room for it, what is put there is forgotten.
  """

  def __init__(self):
    folder = os.environ.get(storage.SCRATCH)
    # As long as the shelf is.
    self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
    self._places: dict[str, tuple[int, int]] = {}
    self._end = 0

  def put(self, name: str, value: Any) -> None:
    """Keeps a value, unless there is no room."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    with contextlib.suppress(OSError):
      if os.pwrite(self._file.fileno(), data, self._end) == len(data):
        self._places[name] = self._end, len(data)
        self._end += len(data)

  def take(self, name: str) -> Any:
    """Returns a value; None if there is none of that name."""
    start, size = self._places.get(name, (0, 0))
    if not size:
      return None
    return pickle.loads(os.pread(self._file.fileno(), size, start))

  def close(self) -> None:
    """Gives the room back."""
    self._file.close()
