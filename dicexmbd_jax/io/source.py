"""Opens the file behind an image source, inside a zip archive or not."""

import contextlib
import functools
import hashlib
import os
import pathlib
import shutil
import tempfile
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

from dicexmbd_jax.types import ImageSource

_HASH_LENGTH = 1 << 20  # Bytes read at a time.
_ESCAPE = "surrogateescape"  # File names need not be UTF-8.


@contextlib.contextmanager
def open_source(
  path: pathlib.Path, member: str | None = None
) -> Iterator[pathlib.Path]:
  """Gives a plain file to read: the file itself, or a zip member's copy.

  The copy lies in the system's temporary folder and goes when the reader is
  done; the last two copies are kept while the process lives, as an .mcd file
  is opened once per acquisition.

  Args:
    path: the file, or the archive that holds it.
    member: the file's name inside the archive, else None.

  Raises:
    ValueError: no such file, no such member, or a broken archive.
    OSError: no place for the copy.
  """
  if not path.is_file():
    raise ValueError(f"{path}: found no such file, expected one")
  if member is None:
    yield path
    return
  status = path.stat()
  copy = _extract(path, member, status.st_size, status.st_mtime_ns)
  yield copy.path


def find_siblings(
  path: pathlib.Path, member: str | None
) -> Callable[[str], pathlib.Path | None] | None:
  """Gives a function that finds the files beside a zip member by their names.

  It gives copies, which live as long as the function does, and None where there
  is no such member. It raises as `open_source` does.

  Returns:
    None for a file outside of an archive.
  """
  if member is None:
    return None
  copies: dict[str, _Copy] = {}

  def find(name: str) -> pathlib.Path | None:
    sibling = pathlib.PurePosixPath(member).with_name(name).as_posix()
    if name not in copies and not _has_member(path, sibling):
      return None
    copies[name] = copies.get(name) or _Copy(path, sibling)
    return copies[name].path

  return find


def spell_name(name: str) -> str:
  """Writes a file's name as text; one that is no UTF-8 is taken for Latin-1."""
  data = name.encode("utf-8", _ESCAPE)
  try:
    return data.decode("utf-8")
  except UnicodeDecodeError:
    return data.decode("latin-1")


def is_store(path: pathlib.Path) -> bool:
  """Whether a path is read as OME-Zarr: a folder, a zip file or a URL."""
  is_plain = path.suffix.lower() not in (".zarr", ".zip")
  if is_plain and not path.parts[0].endswith(":"):
    return False
  # Only here, so that a run on other files never loads zarr.
  from dicexmbd_jax.io import ome_zarr

  return ome_zarr.is_store(path)


def split_member(path: pathlib.Path) -> tuple[pathlib.Path, str | None]:
  """Splits archive.zip/folder/file.txt into the archive and its member."""
  for parent in path.parents:
    if parent.suffix.lower() == ".zip" and parent.is_file():
      return parent, path.relative_to(parent).as_posix()
  return path, None


def hash_source(source: ImageSource) -> str:
  """Hashes what an image is made from: bytes, member, acquisition.

  Returns:
    The SHA-256 as hexadecimal digits. Fallbacks count by name and size,
    in an archive by its own sum of them.

  Raises:
    ValueError: the file cannot be read.
  """
  if source.member is None and is_store(source.path):
    from dicexmbd_jax.io import ome_zarr

    return ome_zarr.hash_store(source.path)
  status = _get_status(source.path)
  digest = hashlib.sha256()
  digest.update(_hash_file(source.path, source.member, *status).encode())
  digest.update(
    f"|{source.member}|{source.acquisition}".encode("utf-8", _ESCAPE)
  )
  for fallback in source.fallbacks:
    archive, member = split_member(fallback)
    size = _read_sum(archive, member) if member else _get_status(archive)[0]
    digest.update(f"|{fallback.name}|{size}".encode("utf-8", _ESCAPE))
  parts = [*source.planes, *(("", path) for path in source.parts)]
  for name, part in parts:
    archive, member = split_member(part)
    digest.update(name.encode("utf-8", _ESCAPE))
    digest.update(_hash_file(archive, member, *_get_status(archive)).encode())
  return digest.hexdigest()


def find_last_change(source: ImageSource) -> int:
  """Returns when what an image is made from was last written or replaced.

  Returns:
    Nanoseconds since the epoch, of the newest file; now for a folder of
    OME-Zarr, whose many files would have to be asked one by one.
    Fallbacks, which stand in for a damaged file, do not count.

  Raises:
    ValueError: a file cannot be found.
  """
  if source.member is None and is_store(source.path):
    return time.time_ns()
  paths = [source.path, *(path for _, path in source.planes), *source.parts]
  files = dict.fromkeys(split_member(path)[0] for path in paths)
  return max(_get_last_change(path) for path in files)


def measure_source(source: ImageSource) -> int:
  """Returns the bytes that an image is made from.

  Of a member of an archive those that it has unpacked, of an acquisition those
  of its pixels. Files that cannot be read count as empty: reading them will say
  what is wrong.
  """
  if source.num_bytes is not None:
    return source.num_bytes
  planes = [path for _, path in source.planes]
  files = [split_member(path) for path in (*planes, *source.parts)]
  if not planes:
    files.append((source.path, source.member))
  return sum(_measure_file(path, member) for path, member in files)


def _measure_file(path: pathlib.Path, member: str | None) -> int:
  try:
    status = _get_status(path)
    if member is None:
      return status[0]
    return _measure_members(path, *status).get(member, 0)
  except Exception:  # Damage makes zipfile fail in any way.
    return 0


@functools.lru_cache(maxsize=16)
def _measure_members(
  path: pathlib.Path, size: int, time: int
) -> dict[str, int]:
  with zipfile.ZipFile(path) as archive:
    return {info.filename: info.file_size for info in archive.infolist()}


class _Copy:
  """A temporary copy of a zip member; removed with its last reference."""

  def __init__(self, path: pathlib.Path, member: str):
    folder = tempfile.mkdtemp(prefix="dicexmbd_")
    weakref.finalize(self, shutil.rmtree, folder, True)
    # Only the suffix of the member's name is kept: names are not to be trusted.
    self.path = pathlib.Path(folder) / f"member{pathlib.Path(member).suffix}"
    with _open_member(path, member) as source, self.path.open("wb") as target:
      _copy_bytes(path, member, source, target)


# Size and time are arguments so that a file that changed is read again.
@functools.lru_cache(maxsize=2)
def _extract(path: pathlib.Path, member: str, size: int, time: int) -> _Copy:
  return _Copy(path, member)


@functools.lru_cache(maxsize=64)
def _hash_file(
  path: pathlib.Path, member: str | None, size: int, time: int
) -> str:
  digest = hashlib.sha256()
  with _open_member(path, member) as source:
    while block := _read_block(path, member, source):
      digest.update(block)
  return digest.hexdigest()


def _get_status(path: pathlib.Path) -> tuple[int, int]:
  status = _ask_status(path)
  return status.st_size, status.st_mtime_ns


def _get_last_change(path: pathlib.Path) -> int:
  # An old file that is moved here keeps its time of writing.
  status = _ask_status(path)
  return max(status.st_mtime_ns, status.st_ctime_ns)


def _ask_status(path: pathlib.Path) -> os.stat_result:
  try:
    return path.stat()
  except OSError as error:
    raise ValueError(
      f"{path}: found {error.strerror or error}, expected a readable file"
    ) from error


@contextlib.contextmanager
def _open_member(path: pathlib.Path, member: str | None) -> Iterator[IO[bytes]]:
  with contextlib.ExitStack() as stack:
    if member is None:
      yield stack.enter_context(path.open("rb"))
    else:
      yield _enter_member(stack, path, member)


def _enter_member(
  stack: contextlib.ExitStack, path: pathlib.Path, member: str
) -> IO[bytes]:
  try:
    archive = stack.enter_context(zipfile.ZipFile(path))
    return stack.enter_context(archive.open(member))
  except MemoryError:
    raise
  except (KeyError, RuntimeError) as error:
    # Missing, encrypted, or packed by a method that Python lacks.
    raise ValueError(
      f"{path}: found {str(error)[:200]}, expected the readable member {member}"
    ) from error
  except Exception as error:  # Damage makes zipfile fail in any way.
    raise ValueError(
      f"{path}: found a broken archive ({str(error)[:200]}), expected a "
      "complete zip"
    ) from error


def _read_sum(path: pathlib.Path, member: str) -> int | None:
  """Returns the checksum that an archive keeps of a member, if it has it."""
  with zipfile.ZipFile(path) as archive:
    sums = {info.filename: info.CRC for info in archive.infolist()}
  return sums.get(member)


def _has_member(path: pathlib.Path, member: str) -> bool:
  with zipfile.ZipFile(path) as archive:
    return member in archive.namelist()


def _read_block(path: pathlib.Path, member: str | None, source) -> bytes:
  try:
    return source.read(_HASH_LENGTH)
  except MemoryError:
    raise
  except Exception as error:  # zlib.error, LZMAError, IndexError, ...
    name = f"{path}/{member}" if member else path
    raise ValueError(
      f"{name}: found unreadable data ({error}), expected a complete file"
    ) from error


def _copy_bytes(path: pathlib.Path, member: str, source, target) -> None:
  while block := _read_block(path, member, source):
    try:
      target.write(block)
    except OSError as error:
      reason = f"{error.strerror}, copying {member} of {path} to"
      raise OSError(error.errno, reason, target.name) from error
