"""How much memory what one file declares may take.

A few damaged bytes can declare any size, so that it is compared with a limit
before anything is allocated. The limit lies in the environment, where processes
that this one starts find it.
"""

import contextlib
import functools
import os
import pathlib

VARIABLE = "DICEXMBD_MAX_MEMORY_GB"
_GB = 10**9
_SHARE = 0.5  # Of the machine's memory.
# What a container may use, of version 2 and 1 of Linux's control groups.
_GROUPS = (
  "/sys/fs/cgroup/memory.max",
  "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


class TooLargeError(ValueError):
  """A file declares more than the limit; the line says so."""


def set_limit(limit_gb: float) -> None:
  """Sets the limit of this process and those that it starts.

  Raises:
    ValueError: it is no number above 0.
  """
  if not 0 < limit_gb < float("inf"):
    raise ValueError(f"max_memory_gb: found {limit_gb}, expected more than 0")
  os.environ[VARIABLE] = repr(limit_gb)


def get_limit_gb() -> float:
  """Returns the limit; by default half of the machine's or container's memory.

  Raises:
    ValueError: the environment's is no number above 0.
  """
  text = os.environ.get(VARIABLE, "")
  if not text:
    return _SHARE * _measure_machine() / _GB
  try:
    limit_gb = float(text)
  except ValueError:
    limit_gb = 0.0
  if not 0 < limit_gb < float("inf"):
    raise ValueError(f"{VARIABLE}: found {text!r}, expected more than 0")
  return limit_gb


def check_size(shown: str | os.PathLike, what: str, num_bytes: int) -> None:
  """Refuses what would take more memory than the limit.

  Args:
    shown: the file's name in the message.
    what: is to be read, as "3 channels of 900 x 800 pixels".
    num_bytes: it would take.

  Raises:
    TooLargeError: it is too much.
  """
  limit_gb = get_limit_gb()
  if num_bytes > limit_gb * _GB:
    raise TooLargeError(
      f"{shown}: found {what}, {num_bytes / _GB:.1f} GB in memory, expected at "
      f"most {limit_gb:.3g} GB (--max_memory_gb)"
    )


@functools.cache
def _measure_machine() -> int:
  """Returns bytes; no limit where the system does not tell."""
  sizes = [_read_group(path) for path in _GROUPS]
  with contextlib.suppress(ValueError, OSError, AttributeError):
    # Not on Windows.
    sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
  known = [size for size in sizes if size]
  return min(known) if known else 2**62


def _read_group(path: str) -> int | None:
  try:
    return int(pathlib.Path(path).read_text())
  except (OSError, ValueError):  # "max": no limit.
    return None
