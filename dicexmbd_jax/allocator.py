"""Keeps freed memory for the next array, in place of giving it back."""

import ctypes
import importlib.util
import os
import sys

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
  """Makes large arrays reuse memory; to be called before threads start.

  By default the C library takes each large array from the system and gives it
  back when it is freed; the system then clears its pages anew, which is a
  quarter of a training step. Elsewhere than on glibc, and where JAX computes on
  an accelerator, which has its own memory, nothing happens.
  """
  if not sys.platform.startswith("linux") or not computes_on_cpu():
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:  # musl has none.
    return
  mallopt(_M_MMAP_MAX, 0)
  mallopt(_M_TRIM_THRESHOLD, -1)  # Never.
  mallopt(_M_TOP_PAD, 256 * 2**20)
  # One heap for all threads: what one has freed, another may take.
  mallopt(_M_ARENA_MAX, 1)


def computes_on_cpu() -> bool:
  """Returns whether JAX will compute on the processor, without loading it.

  That it finds none of the accelerators that it is installed for, it tells too
  late: its threads have started by then.
  """
  platforms = os.environ.get("JAX_PLATFORMS")
  if platforms:
    return platforms == "cpu"
  plugins = ("jax_plugins", "libtpu")
  return not any(importlib.util.find_spec(name) for name in plugins)
