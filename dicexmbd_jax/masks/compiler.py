"""How the loops over pixels become machine code.

Kernels have no shape annotations, because numba compiles plain functions only.
"""

import atexit
import inspect
import uuid
from collections.abc import Callable
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

_PROCESS = uuid.uuid4().hex[:8]

# A thread that compiles while the process ends would crash in LLVM: wait for
# the kernel that it is at, and let it begin no other.
atexit.register(global_compiler_lock.acquire)


def compile_kernel(function: Callable) -> Callable:
  """Compiles a function with numba on its first call and caches the result.

  The cache lies beside the module, else in the user's cache folder, else
  (nothing is writable) there is none and every process compiles anew. No
  fast-math, so that results do not depend on vector width or block.

  Args:
    function: plain Python function over arrays and scalars.

  Returns:
    The compiled function; it releases the GIL.
  """
  # What a type checker's import hook has wrapped cannot be compiled.
  function = inspect.unwrap(function)
  try:
    kernel = numba.njit(cache=True, nogil=True)(function)
  except RuntimeError:  # numba's word for "no place to put the cache".
    return numba.njit(nogil=True)(function)
  _name_files_apart(kernel)
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
