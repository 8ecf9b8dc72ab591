"""Where large arrays lie, and how they are worked on, for all rooms.

What is as large as a whole image and must be there at once lies in temporary
files that are mapped into memory: the system keeps of them what it has room
for. They have no names, so that nothing is left of them when a process dies.
What need not be there at once is computed strip by strip.
"""

import contextlib
import functools
import mmap
import os
import pathlib
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

import numpy as np

from dicexmbd_jax import memory

# The variable with the folder of temporary files: the processes that this one
# starts find it, too.
SCRATCH = "DICEXMBD_SCRATCH"
LARGE_BYTES = 2**24  # From here on, an array lies in a file.
STACK_BYTES = 2**28  # The same of counts, which many channels make large.
STRIP_BYTES = 2**24  # What is computed at a time, where it is not kept.
MAX_RATIO = 1100  # Of pixels' to stored bytes: deflate reaches 1032.
# How often, and of how many bytes on, the pages of files are handed back.
# A process that hardly runs touches few pages, which it would fetch again.
_TRIM_S = 0.05
_TRIM_BUSY_S = 0.025
_TRIM_IDLE_S = 1.0
_TRIM_BYTES = 2**25


@contextlib.contextmanager
def use_scratch(folder: pathlib.Path) -> Iterator[None]:
  """Lets the large arrays of this process, and its children, lie in a folder.

  Without it they lie in the system's folder for temporary files.
  """
  before = os.environ.get(SCRATCH)
  os.environ[SCRATCH] = os.fspath(folder)
  try:
    yield
  finally:
    if before is None:
      del os.environ[SCRATCH]
    else:
      os.environ[SCRATCH] = before


def allocate(
  shape: Sequence[int], dtype: np.typing.DTypeLike, large_bytes: int = 0
) -> np.ndarray:
  """Returns an array of zeros; a large one lies in a temporary file.

  It lies in memory, too, where there is no place for such a file, or no system
  that sets its bytes aside: a full disk would end the process later on. All
  such arrays together stay below the limit of memory.

  Args:
    shape: of the array.
    dtype: of the array.
    large_bytes: what counts as large; 0: LARGE_BYTES.

  Raises:
    MemoryError: there is no room for a file, and too little memory.
  """
  num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
  if num_bytes < max(large_bytes or LARGE_BYTES, 1):
    return np.zeros(shape, dtype)
  try:
    with tempfile.TemporaryFile(dir=os.environ.get(SCRATCH)) as file:
      os.posix_fallocate(file.fileno(), 0, num_bytes)
      mapped = mmap.mmap(file.fileno(), num_bytes)
  except AttributeError:  # Not on this system.
    return np.zeros(shape, dtype)
  except OSError as error:
    return _allocate_in_memory(shape, dtype, num_bytes, error)
  _keep_small(mapped)
  return np.frombuffer(mapped, dtype).reshape(shape)


def _allocate_in_memory(
  shape: Sequence[int],
  dtype: np.typing.DTypeLike,
  num_bytes: int,
  error: OSError,
) -> np.ndarray:
  """Returns an array of zeros that was to lie in a file.

  Args:
    shape: of the array.
    dtype: of the array.
    num_bytes: that it has.
    error: why there is no file.

  Raises:
    MemoryError: it is too much, with others of this kind.
  """
  taken = num_bytes + sum(_in_memory.values())
  if taken > 1e9 * memory.get_limit_gb():
    folder = os.environ.get(SCRATCH) or tempfile.gettempdir()
    raise MemoryError(
      f"{taken / 1e9:.3g} GB for a large image, and no room for files of them "
      f"in {folder}: {error.strerror or error}"
    ) from error
  array = np.zeros(num_bytes, np.uint8)
  key = id(array)
  _in_memory[key] = num_bytes
  weakref.finalize(array, _in_memory.pop, key)
  return array.view(dtype).reshape(shape)


_in_memory: dict[int, int] = {}  # Bytes of arrays for which there is no file.


def is_large_stack(num_pixels: int) -> bool:
  """Tells whether counts of as many pixels, of all channels, lie in a file."""
  return 4 * num_pixels >= STACK_BYTES


def can_outgrow_memory(
  num_pixels: int, declared_bytes: int, stored_bytes: int
) -> bool:
  """Tells whether large counts may lie in a file, whatever memory there is.

  Args:
    num_pixels: of all channels that are read.
    declared_bytes: that the source says to have.
    stored_bytes: that are there; too few of them cannot be so many pixels.
  """
  is_there = declared_bytes <= MAX_RATIO * stored_bytes
  return is_there and has_room(4 * num_pixels)


def has_room(num_bytes: int) -> bool:
  """Tells whether there is room for an array in a temporary file."""
  if not hasattr(os, "posix_fallocate"):  # Then `allocate` makes none.
    return False
  with contextlib.suppress(OSError):
    folder = os.environ.get(SCRATCH) or tempfile.gettempdir()
    return num_bytes < shutil.disk_usage(folder).free
  return False


def is_mapped(array: np.ndarray) -> bool:
  """Tells whether an array lies in a file."""
  return _find_mapped(array) is not None


def _find_mapped(array: np.ndarray) -> mmap.mmap | None:
  base: object = array
  while isinstance(base, np.ndarray):
    base = base.base
  if isinstance(base, memoryview):
    base = base.obj
  return base if isinstance(base, mmap.mmap) else None


def cut_strips(shape: Sequence[int], pixel_bytes: int) -> Iterator[slice]:
  """Cuts the rows of an image into strips of about STRIP_BYTES.

  Args:
    shape: rows, columns and any further axes.
    pixel_bytes: what a pixel takes while a strip is computed.
  """
  row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * pixel_bytes
  step = max(STRIP_BYTES // max(row_bytes, 1), 1)
  for top in range(0, shape[0], step):
    yield slice(top, min(top + step, shape[0]))


def hand_back(array: np.ndarray) -> None:
  """Hands back the pages of a mapped file that are in memory.

  Their content stays, in the file; who looks at it again reads it again.
  """
  mapped = _find_mapped(array)
  if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
    mapped.madvise(mmap.MADV_DONTNEED)


_mapped: "weakref.WeakSet[mmap.mmap]" = weakref.WeakSet()
_lock = threading.Lock()  # Of changes of it.


def _keep_small(mapped: mmap.mmap) -> None:
  """Starts handing back the pages of a mapped file that are in memory.

  The system would drop them when it needs room; but who watches a process
  counts them as its own.
  """
  if not hasattr(mmap, "MADV_DONTNEED"):
    return
  with _lock:
    _mapped.add(mapped)
  if not any(one.name == _trim.__name__ for one in threading.enumerate()):
    start = functools.partial(_trim, _measure_shared() + _TRIM_BYTES)
    threading.Thread(target=start, name=_trim.__name__, daemon=True).start()


def _trim(most: int) -> None:
  """Hands back pages until no file is mapped any more.

  Their content stays, in the system's cache or on disk: the mapping is shared.

  Args:
    most: bytes of files, the program's own among them, that may stay.
  """
  busy_s, last_s = time.process_time(), time.monotonic()
  while _mapped:
    is_due = (
      time.process_time() - busy_s > _TRIM_BUSY_S
      or time.monotonic() - last_s > _TRIM_IDLE_S
    )
    if is_due and _measure_shared() > most:
      busy_s, last_s = time.process_time(), time.monotonic()
      with _lock:
        mapped = list(_mapped)
      for one in mapped:
        one.madvise(mmap.MADV_DONTNEED)
    mapped = []  # Keeps none of them open.
    time.sleep(_TRIM_S)


def _measure_shared() -> int:
  """Returns the bytes of files that are in this process's memory."""
  try:
    text = pathlib.Path("/proc/self/statm").read_text()
  except OSError:  # Not Linux.
    return 0
  return int(text.split()[2]) * mmap.PAGESIZE
