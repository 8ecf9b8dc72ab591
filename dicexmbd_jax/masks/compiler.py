"""How the loops over pixels become machine code.

Kernels have no shape annotations, because numba compiles plain functions only.
They are small, and arrays are made by who calls them: in a kernel, np.zeros
takes as long to compile as a small loop does, and `a[:] = b` as long as ten.
"""

import atexit
import contextlib
import inspect
import os
import time
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

try:
  import fcntl
except ImportError:  # Not on this system: every process compiles by itself.
  fcntl = None  # type: ignore[assignment]

_PROCESS = uuid.uuid4().hex[:8]
# What another process compiles is waited for no longer than this.
_PATIENCE_S = 60.0
_PAUSE_S = 0.02
# Divisors are never 0, and no kernel is called from C.
_OPTIONS: dict[str, Any] = {
  "nogil": True,
  "error_model": "numpy",
  "no_cfunc_wrapper": True,
}

# A thread that compiles while the process ends would crash in LLVM: wait for
# the kernel that it is at, and let it begin no other.
atexit.register(global_compiler_lock.acquire)


def compile_kernel(function: Callable) -> Callable:
  """Compiles a function with numba on its first call and caches the result.

  The cache lies beside the module, else in the user's cache folder, else
  (nothing is writable) there is none and every process compiles anew. With a
  cache, a kernel that is called from Python is compiled by one process, and
  the others read it. No fast-math, so that results do not depend on vector
  width or block.

  Args:
    function: plain Python function over arrays and scalars.

  Returns:
    The compiled function; it releases the GIL.
  """
  # What a type checker's import hook has wrapped cannot be compiled.
  function = inspect.unwrap(function)
  try:
    kernel = numba.njit(cache=True, **_OPTIONS)(function)
  except RuntimeError:  # numba's word for "no place to put the cache".
    return numba.njit(**_OPTIONS)(function)
  _name_files_apart(kernel)
  _compile_in_turn(kernel)
  return kernel


def _name_files_apart(kernel: Any) -> None:
  """Gives what this process compiles file names of its own.

  numba numbers the files by an index that it has read before it compiles: two
  processes with two dtypes at the same time would write one file, and the index
  would give the code of one dtype for the other ever after.
  """
  file = kernel._cache._cache_file
  file._data_name_pattern = file._data_name_pattern.replace(
    "{number", _PROCESS + ".{number"
  )


def _compile_in_turn(kernel: Any) -> None:
  """Lets one process compile a kernel, and others wait for what it makes."""
  cache = kernel._cache
  compile_now, load_now = kernel.compile, cache.load_overload

  def compile_signature(signature: Any) -> Any:
    with global_compiler_lock, _turn.enter():
      return compile_now(signature)

  def load_overload(signature: Any, target: Any) -> Any:
    found = load_now(signature, target)
    if found is None and _turn.take(cache.cache_path, kernel.__qualname__):
      found = load_now(signature, target)
    return found

  kernel.compile, cache.load_overload = compile_signature, load_overload


class _Turn:
  """The kernel that is this process' turn; numba's lock guards the fields.

  A process holds one lock, also for the kernels that this one calls, so that
  two processes never wait for each other.
  """

  def __init__(self):
    self._depth = 0  # Kernels within kernels.
    self._file: int | None = None

  @contextlib.contextmanager
  def enter(self):
    """Hands the turn on, if it was taken, after the outermost kernel."""
    self._depth += 1
    try:
      yield
    finally:
      self._depth -= 1
      if self._depth == 0 and self._file is not None:
        os.close(self._file)  # The system lets go of the lock.
        self._file = None

  def take(self, folder: str, name: str) -> bool:
    """Waits for the turn; returns whether others may have compiled meanwhile.

    Where there are no locks, nobody is waited for.

    Args:
      folder: of the cache.
      name: of the kernel, which stands for a byte of the file that is locked.
    """
    if fcntl is None or self._file is not None:
      return False
    try:
      os.makedirs(folder, exist_ok=True)
      path = os.path.join(folder, "compiling.lock")
      self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
      place = zlib.crc32(name.encode())
      until = time.monotonic() + _PATIENCE_S
      while time.monotonic() < until:
        with contextlib.suppress(BlockingIOError):
          fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
          return True
        time.sleep(_PAUSE_S)
    except OSError:
      pass
    return True


_turn = _Turn()
