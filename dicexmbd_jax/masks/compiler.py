"""How the loops over pixels become machine code.

Kernels have no shape annotations, because numba compiles plain functions only.
"""

import inspect
from collections.abc import Callable

import numba


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
    return numba.njit(cache=True, nogil=True)(function)
  except RuntimeError:  # numba's word for "no place to put the cache".
    return numba.njit(nogil=True)(function)
