"""Folders in buckets (gs://bucket/folder, s3://bucket/folder), by fsspec.

They are copied: to a folder of this machine to be read, from one to be kept.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from dicexmbd_jax import compiled, extras

Path = pathlib.Path
# What file systems tell of a file that changes with its content.
_MARKS = ("size", "ETag", "etag", "md5Hash", "mtime", "created")
_SMALL_BYTES = 1 << 20  # Compared by content, others by size and time.


def is_address(path: Any) -> bool:
  """Returns whether a path is an address, as gs://bucket/folder."""
  return re.match(r"[A-Za-z][\w+.-]*://", str(path)) is not None


@contextlib.contextmanager
def name_address(address: str, wanted: str) -> Iterator[None]:
  """Turns whatever a file system raises into an OSError, one line.

  Args:
    address: what is read or written.
    wanted: ends the line, as in "a bucket that can be read".
  """
  try:
    yield
  except Exception as error:  # Each file system has its own.
    line = extras.describe_missing(error)
    if line is None:
      text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
      line = f"found {text}, expected {wanted}"
    raise OSError(f"{address}: {line}") from error


class Folder:
  """A folder in a bucket.

  Attributes:
    address: of the folder, without a slash at its end.
  """

  def __init__(self, address: str):
    """Asks for nothing yet.

    Raises:
      OSError: no such kind of address, or no package for it; one line.
    """
    self.address = address.rstrip("/")
    with name_address(self.address, "an address that fsspec knows"):
      import fsspec

      self._system, self._place = fsspec.core.url_to_fs(self.address)

  def list_files(self) -> dict[str, dict[str, Any]]:
    """Returns what is told of all files, by name below the folder.

    Raises:
      OSError: the folder cannot be read. One that is not there is empty.
    """
    with name_address(self.address, "a bucket that can be read"):
      self._system.invalidate_cache()  # Of listings.
      found = self._system.find(self._place, detail=True)
    start = len(self._place) + 1
    return {name[start:]: told for name, told in found.items() if name[start:]}

  def download(self, names: Mapping[str, Path]) -> None:
    """Copies files, from names below the folder to paths.

    Raises:
      OSError: they cannot be read or written.
    """
    if not names:
      return
    for path in names.values():
      path.parent.mkdir(parents=True, exist_ok=True)
    with name_address(self.address, "files that can be read"):
      self._system.get(
        [f"{self._place}/{name}" for name in names],
        list(map(str, names.values())),
      )

  def upload(self, names: Mapping[str, Path]) -> None:
    """Copies files, from paths to names below the folder, each as a whole.

    Raises:
      OSError: they cannot be written.
    """
    with name_address(self.address, "a bucket that can be written to"):
      for name, path in names.items():
        self._system.put_file(str(path), f"{self._place}/{name}")

  def remove(self, names: list[str]) -> None:
    """Removes files, by names below the folder; those not there are left out.

    Raises:
      OSError: they cannot be removed.
    """
    with name_address(self.address, "a bucket that can be written to"):
      for name in names:
        with contextlib.suppress(FileNotFoundError):
          self._system.rm_file(f"{self._place}/{name}")

  def check_writable(self) -> None:
    """Writes a file and removes it.

    Raises:
      OSError: that is refused.
    """
    name = ".can_be_written_to"
    with name_address(self.address, "a bucket that can be written to"):
      self._system.pipe_file(f"{self._place}/{name}", b"1")
    self.remove([name])


@functools.cache
def fetch_dataset(address: str, info_file: str) -> Path:
  """Returns a copy on this machine of a dataset in a bucket.

  It stays in records/ of the cache ($DICEXMBD_CACHE), by its content's marks:
  who calls again finds it there, and what was built anew is copied anew.

  Args:
    address: of its folder, or of one above it that holds no other dataset.
    info_file: the file that a dataset's folder has.

  Raises:
    ValueError: none or several are there, or the disk has no room.
    OSError: the address cannot be read, or the cache not be written.
  """
  bucket = Folder(address)
  files = bucket.list_files()
  found = [name for name in files if name.rpartition("/")[2] == info_file]
  if len(found) != 1:
    names = ", ".join(sorted(found)) or f"no {info_file}"
    raise ValueError(f"{address}: found {names}; expected one dataset")
  start = found[0].removesuffix(info_file)
  files = {name: files[name] for name in files if name.startswith(start)}
  target = compiled.find_folder() / "records" / _hash_listing(address, files)
  if not target.is_dir():
    _copy_dataset(bucket, start, files, target)
  return target


def _copy_dataset(
  bucket: Folder, start: str, files: Mapping[str, Any], target: Path
) -> None:
  num_bytes = sum(told["size"] for told in files.values())
  target.parent.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(target.parent).free
  if free < num_bytes:
    raise ValueError(
      f"{bucket.address}: found {num_bytes / 1e9:.1f} GB of records, expected "
      f"at most the {free / 1e9:.1f} GB that are free in {target.parent}; "
      f"${compiled.VARIABLE} names another folder"
    )
  logging.info(
    "%s: copying %.2f GB to %s", bucket.address, num_bytes / 1e9, target
  )
  folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
  try:
    bucket.download({name: folder / name.removeprefix(start) for name in files})
    # Not over one that is there, from which another process reads already.
    folder.rename(target)
  except OSError:
    if not target.is_dir():
      raise
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _hash_listing(address: str, files: Mapping[str, Any]) -> str:
  told = [
    (name, [str(files[name].get(mark)) for mark in _MARKS])
    for name in sorted(files)
  ]
  return hashlib.sha256(repr((address, told)).encode()).hexdigest()[:16]


class Mirror:
  """Keeps a folder of this machine in a bucket as well."""

  def __init__(self, bucket: Folder, folder: Path):
    """Copies nothing yet; all files of `folder` count as new."""
    self._bucket, self._folder = bucket, folder
    self._known: dict[str, tuple] = {}

  def pull(self, wanted: re.Pattern[str]) -> None:
    """Copies files whose whole name matches from the bucket into the folder.

    Raises:
      OSError: they cannot be read or written.
    """
    names = filter(wanted.fullmatch, self._bucket.list_files())
    self._bucket.download({name: self._folder / name for name in names})
    self._known = self._list_files()

  def push(self) -> None:
    """Copies what has changed to the bucket; removes what is gone.

    Files come in the order they were written in, so that what makes a
    checkpoint whole comes last. Whoever reads a model folder there meanwhile
    finds the model before, the new one, or none: its JSON files, without which
    it is none, are removed first.

    Raises:
      OSError: the bucket cannot be written to.
    """
    now = self._list_files()
    changed = [name for name in now if now[name] != self._known.get(name)]
    gone = sorted(self._known.keys() - now.keys())
    self._bucket.remove(
      [name for name in (*changed, *gone) if name.endswith(".json")]
    )
    self._bucket.upload({name: self._folder / name for name in changed})
    self._bucket.remove(gone)
    self._known = now

  def _list_files(self) -> dict[str, tuple]:
    """Returns what tells whether a file has changed, by name, oldest first."""
    paths = [
      path
      for path in self._folder.rglob("*")
      if path.is_file() and not path.name.endswith(".tmp")
    ]
    paths.sort(key=lambda path: path.stat().st_mtime_ns)
    return {
      path.relative_to(self._folder).as_posix(): _describe_file(path)
      for path in paths
    }


def _describe_file(path: Path) -> tuple:
  told = os.stat(path)
  if told.st_size > _SMALL_BYTES:
    return told.st_size, told.st_mtime_ns
  return told.st_size, hashlib.sha256(path.read_bytes()).hexdigest()
