"""Fetches files over HTTP: resumes, tries again, checks the sums.

A file is NAME.part until it is whole and its sum is right; then it gets its
name. Beside it, NAME.part.tag holds what the server called this version of the
file: a transfer is only continued if the server still has the same.
"""

import hashlib
import http.client
import json
import os
import pathlib
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import tqdm

from data_builders.published import RemoteFile

# Some services refuse the standard library's own name.
USER_AGENT = "dicexmbd-jax-download/1.0"
TIMEOUT_S = 30.0
NUM_TRIES = 5
# Doubled after each try: about 15 s in all.
FIRST_WAIT_S = 1.0
CHUNK_BYTES = 1 << 20
# What reading from a connection raises when it breaks.
BREAKS = (
  http.client.HTTPException,
  ConnectionError,
  TimeoutError,
  ssl.SSLError,
)
# Answers that may be better in a moment.
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(OSError):
  """A file could not be fetched; the message is one line."""


class UnreachableError(DownloadError):
  """The service does not answer at all."""


class BrokenTransferError(DownloadError):
  """A transfer that may go on if tried again."""


def fetch_file(file: RemoteFile, folder: pathlib.Path) -> str:
  """Fetches one file into a folder, going on where an earlier call stopped.

  A file that is there already is checked, not fetched again.

  Returns:
    One line: its size and sum, and whether the sum is a published one.

  Raises:
    UnreachableError: there is no network.
    DownloadError: an answer without the file, or a wrong sum; what
      has a wrong sum is kept as NAME.wrong.
  """
  target = folder / file.name
  if target.exists():
    return check_sum(file, target, target)
  part = target.with_name(f"{target.name}.part")
  part.parent.mkdir(parents=True, exist_ok=True)
  _fetch_part(file, part)
  line = check_sum(file, part, target)
  os.replace(part, target)
  _tag_path(part).unlink(missing_ok=True)
  return line


def check_sum(
  file: RemoteFile, path: pathlib.Path, target: pathlib.Path
) -> str:
  """Compares a fetched file with its published sum, if there is one.

  Args:
    file: what it should be.
    path: where it is now.
    target: its final place; a wrong file is moved to TARGET.wrong.

  Raises:
    DownloadError: the sums differ.
  """
  algorithm = "md5" if file.md5 and not file.sha256 else "sha256"
  wanted = file.sha256 or file.md5
  with path.open("rb") as stream:
    found = hashlib.file_digest(stream, algorithm).hexdigest()
  if wanted and found != wanted.lower():
    aside = target.with_name(f"{target.name}.wrong")
    os.replace(path, aside)
    _tag_path(path).unlink(missing_ok=True)
    raise DownloadError(
      f"{file.name}: {algorithm} is {found}, expected {wanted}; kept as {aside}"
    )
  source = "as published" if wanted else "no published sum to compare with"
  return (
    f"{file.name}: {path.stat().st_size} bytes, {algorithm} {found}, {source}"
  )


def read_json(address: str) -> Any:
  """Returns what a service answers, as Python values.

  Raises:
    DownloadError: no answer.
    ValueError: no JSON.
  """
  with _open(urllib.request.Request(address)) as response:
    return json.load(response)


def _fetch_part(file: RemoteFile, part: pathlib.Path) -> None:
  reasons: list[DownloadError] = []
  for address in file.addresses:
    try:
      _try_often(address, part)
      return
    except DownloadError as error:
      reasons.append(error)
  nobody = all(isinstance(error, UnreachableError) for error in reasons)
  kind = UnreachableError if nobody else DownloadError
  raise kind(f"{file.name}: {'; '.join(str(error) for error in reasons)}")


def _try_often(address: str, part: pathlib.Path) -> None:
  failures = 0
  while failures < NUM_TRIES:
    size = _size(part)
    try:
      _receive(address, part)
      return
    except BrokenTransferError:
      # Whatever comes further deserves as many tries again.
      failures = 1 if _size(part) > size else failures + 1
      if failures == NUM_TRIES:
        raise
      time.sleep(FIRST_WAIT_S * 2 ** (failures - 1))


def _receive(address: str, part: pathlib.Path) -> None:
  """Goes on with a transfer, or begins it, until the file is whole."""
  tag_path = _tag_path(part)
  request = urllib.request.Request(address)
  offset = 0
  if part.exists() and tag_path.exists():
    offset = part.stat().st_size
    request.add_header("Range", f"bytes={offset}-")
    # Another version of the file comes whole instead.
    request.add_header("If-Range", tag_path.read_text())
  with _open(request) as response:
    if response.status == 416:
      if response.headers.get("Content-Range") == f"bytes */{offset}":
        return  # Whole already; an earlier call stopped right after.
      part.unlink()
      raise BrokenTransferError(f"{address}: has no bytes after {offset}")
    if response.status == 206 and not _begins_at(response, offset):
      part.unlink()
      raise BrokenTransferError(f"{address}: sent another part than asked for")
    if response.status not in (200, 206):
      raise DownloadError(
        f"{address}: answered {response.status} {response.reason}, "
        "expected the file"
      )
    if response.status == 200:
      offset = 0
      _write_tag(tag_path, response)
    _write_rest(response, part, offset)


def _write_rest(response, part: pathlib.Path, offset: int) -> None:
  length = response.headers.get("Content-Length")
  total = offset + int(length) if length else None
  bar = tqdm.tqdm(
    total=total,
    initial=offset,
    desc=part.name.removesuffix(".part"),
    unit="B",
    unit_scale=True,
    disable=None,  # Where nobody watches.
  )
  with bar, part.open("ab" if offset else "wb") as stream:
    try:
      while chunk := response.read(CHUNK_BYTES):
        stream.write(chunk)
        bar.update(len(chunk))
    except BREAKS as error:
      raise BrokenTransferError(
        f"{response.url}: broke off after {stream.tell()} bytes ({error!r})"
      ) from error
    size = stream.tell()
  if total is not None and size != total:
    raise BrokenTransferError(
      f"{response.url}: broke off after {size} of {total} bytes; call again to "
      "go on"
    )


def _open(request: urllib.request.Request):
  """Opens an address; turns every refusal into one line."""
  request.add_header("User-Agent", USER_AGENT)
  address = request.full_url
  try:
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)
  except urllib.error.HTTPError as error:
    if error.code == 416 and request.has_header("Range"):
      return error  # An answer like any other.
    passing = error.code in PASSING_STATUS
    raise (BrokenTransferError if passing else DownloadError)(
      f"{address}: answered {error.code} {error.reason}, expected the file"
    ) from error
  except BREAKS as error:
    raise BrokenTransferError(f"{address}: no answer ({error!r})") from error
  except urllib.error.URLError as error:
    host = urllib.parse.urlsplit(address).netloc
    raise UnreachableError(
      f"cannot reach {host} ({error.reason}); is there a network?"
    ) from error


def _begins_at(response, offset: int) -> bool:
  # "bytes 100-199/200"
  sent = response.headers.get("Content-Range", "")
  return sent.startswith(f"bytes {offset}-")


def _write_tag(path: pathlib.Path, response) -> None:
  tag = response.headers.get("ETag", "")
  if not tag or tag.startswith("W/"):  # A weak tag does not promise the bytes.
    tag = response.headers.get("Last-Modified", "")
  if tag:
    path.write_text(tag)
  else:
    path.unlink(missing_ok=True)


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0


def _tag_path(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f"{part.name}.tag")
