"""One run at a time in an output folder."""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
from collections.abc import Iterator

# Some network file systems have no locks; there nobody is kept out.
_UNKNOWN_TO_SYSTEM = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock for as long as the block runs, or the process lives.

  The system lets go of it with the process, however that ends: no lock is ever
  left to be removed. The empty file stays. Where the file system has no locks,
  nothing is held.

  Args:
    path: the lock's file; its folder is made where it is missing.

  Raises:
    ValueError: another process holds it; one line that names it.
    OSError: the file cannot be written.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      holder = file.read().strip() or "another process"
      raise ValueError(
        f"{path.parent}: found a run at work in it ({holder}), expected one "
        "at a time"
      ) from None
    except OSError as error:
      if error.errno not in _UNKNOWN_TO_SYSTEM:
        raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    try:
      yield
    finally:
      file.truncate(0)
