"""A run's folder: on this machine, or in a bucket."""

import os
import pathlib
import re
import shutil
import tempfile
import time

import jax

from dicexmbd_jax import storage
from dicexmbd_jax.train import buckets, processes

Path = pathlib.Path
# Orbax writes there itself, each process its part; elsewhere only to folders.
DIRECT = "gs://"
CHECKPOINTS = "checkpoints"
# What a run that goes on needs of what is there.
_NEEDED = re.compile(r"metrics\.csv|(best|last)/[^/]+")
_NEEDED_COPIED = re.compile(_NEEDED.pattern + f"|{CHECKPOINTS}/.+")
_PUSH_S = 60.0  # Between two copies of what is reported.


class Workdir:
  """A run's folder on this machine.

  Attributes:
    name: as the call has it.
    folder: where this process writes; its own where `name` is an address.
    checkpoints: where these lie, a folder or an address.
    copies_checkpoints: whether they are in a bucket only after a `push`.
  """

  copies_checkpoints = False

  def __init__(self, name: str):
    """Makes nothing yet."""
    self.name = name
    self.folder = Path(name)
    self.checkpoints = str(self.folder / CHECKPOINTS)

  def has_checkpoints(self) -> bool:
    """Returns whether a run was here before."""
    return (self.folder / CHECKPOINTS).is_dir()

  def push(self) -> None:
    """Copies what has changed to where it is kept; nothing here."""

  def push_sometimes(self) -> None:
    """Does so at most once a minute, for what is written often."""

  def close(self) -> None:
    """Copies the rest, and removes what is of no use any more."""


class BucketWorkdir(Workdir):
  """A run's folder in a bucket, and that of this machine it is copied from."""

  def __init__(self, name: str):
    """Copies what a run goes on from, to a new folder.

    Raises:
      ValueError: several processes and a bucket that they cannot share.
      OSError: the bucket cannot be written to, or a package for it is missing.
    """
    self.name = name.rstrip("/")
    self.copies_checkpoints = not name.startswith(DIRECT)
    if self.copies_checkpoints and jax.process_count() > 1:
      raise ValueError(
        f"--workdir={name}: found {jax.process_count()} processes, expected "
        f"one; several write their checkpoints to {DIRECT} or to a file system "
        "that all of them see"
      )
    bucket = buckets.Folder(self.name)
    if processes.is_main():
      bucket.check_writable()
    self._has_checkpoints = any(
      file.startswith(f"{CHECKPOINTS}/") for file in bucket.list_files()
    )
    parent = os.environ.get(storage.SCRATCH)
    self.folder = Path(tempfile.mkdtemp(prefix="dicexmbd-run-", dir=parent))
    self.checkpoints = f"{self.name}/{CHECKPOINTS}"
    if self.copies_checkpoints:
      self.checkpoints = str(self.folder / CHECKPOINTS)
    self._mirror = buckets.Mirror(bucket, self.folder)
    self._mirror.pull(_NEEDED_COPIED if self.copies_checkpoints else _NEEDED)
    self._pushed_s = time.monotonic()

  def has_checkpoints(self) -> bool:
    """Returns whether a run was here before."""
    return self._has_checkpoints

  def push(self) -> None:
    """Copies what has changed to the bucket.

    Raises:
      OSError: it cannot be written to.
    """
    self._mirror.push()
    self._pushed_s = time.monotonic()

  def push_sometimes(self) -> None:
    """Does so at most once a minute, for what is written often.

    Raises:
      OSError: as push.
    """
    if time.monotonic() - self._pushed_s > _PUSH_S:
      self.push()

  def close(self) -> None:
    """Copies the rest to the bucket, and removes the folder of this machine.

    Raises:
      OSError: as push.
    """
    try:
      self.push()
    finally:
      shutil.rmtree(self.folder, ignore_errors=True)


def open_workdir(name: str) -> Workdir:
  """Returns a run's folder, from a path or an address.

  Args:
    name: what --workdir says.

  Raises:
    ValueError, OSError: as BucketWorkdir.
  """
  return BucketWorkdir(name) if buckets.is_address(name) else Workdir(name)
