"""Keeps freed memory for the next array, in place of giving it back."""

import ctypes
import sys

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
  """Makes large arrays reuse memory; to be called before threads start.

  By default the C library takes each large array from the system and gives it
  back when it is freed; the system then clears its pages anew, which is a
  quarter of a training step. Elsewhere than on glibc, nothing happens.
  """
  if not sys.platform.startswith("linux"):
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:  # musl has none.
    return
  mallopt(_M_MMAP_MAX, 0)
  mallopt(_M_TRIM_THRESHOLD, -1)  # Never.
  mallopt(_M_TOP_PAD, 256 * 2**20)
  # One heap for all threads: what one has freed, another may take.
  mallopt(_M_ARENA_MAX, 1)
