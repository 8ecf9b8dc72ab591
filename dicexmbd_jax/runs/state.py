"""Which images are finished: `state/STEM.json` says from what they were made.

It is written last of an image's files, and removed before they are replaced:
an image whose state fits the run and whose files are there is finished.
"""

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dicexmbd_jax.io import listing, write

Path = pathlib.Path
# Any of these marks an output folder of this program, one of shares too.
_MARKS = (*listing.OUTPUT_MARKS, "shards", "state")


def check_output(output: Path, names: Iterable[str]) -> None:
  """Refuses a folder with results of another program, lest they be lost.

  Args:
    output: the output folder; need not be there.
    names: of the files and folders that this run would write.

  Raises:
    ValueError: there is one of them, and no mark of this program.
  """
  if any((output / mark).exists() for mark in _MARKS):
    return
  paths = {name: output / name for name in names}
  found = [
    name
    for name, path in paths.items()
    if path.is_file() or (path.is_dir() and any(path.iterdir()))
  ]
  if found:
    raise ValueError(
      f"--output: {output}: found {', '.join(found)} of another program, "
      "expected a folder without; --overwrite replaces them"
    )


def locate(output: Path, stem: str) -> Path:
  """Returns the path of an image's state."""
  return output / "state" / f"{stem}.json"


def read(output: Path, stem: str) -> dict[str, Any]:
  """Returns an image's state.

  Raises:
    OSError, ValueError: there is none, or it is broken.
  """
  return json.loads(locate(output, stem).read_text())


def forget(output: Path, stem: str) -> None:
  """Removes an image's state, so that none speaks for half replaced files.

  Raises:
    OSError: it cannot be removed.
  """
  locate(output, stem).unlink(missing_ok=True)


def save(
  output: Path,
  stem: str,
  key: Mapping[str, str],
  kinds: Iterable[str],
  **values: Any,
) -> None:
  """Writes an image's state.

  Args:
    output: the output folder.
    stem: the image's.
    key: hashes of all that the image's files depend on.
    kinds: of the files that it has got.
    **values: what else is to be kept.

  Raises:
    OSError: the file cannot be written; names it.
  """
  state = {"key": dict(key), "files": list(kinds), **values}
  write.write_json(locate(output, stem), state)


def is_finished(
  output: Path,
  stem: str,
  key: Mapping[str, str],
  locate_file: Callable[[str], Path],
) -> bool:
  """Whether all files of an image are there, made from what `key` names.

  Args:
    output: the output folder.
    stem: the image's.
    key: hashes of all that the image's files depend on.
    locate_file: returns where the image's file of a kind is.
  """
  try:
    state = read(output, stem)
  except (OSError, ValueError):
    return False
  return state.get("key") == dict(key) and all(
    locate_file(kind).is_file() for kind in state["files"]
  )


def discard(output: Path, stem: str, files: Iterable[Path]) -> None:
  """Removes an image's files of an earlier run, the state first.

  So that no result lies beside the failure that tells of it. Files that cannot
  be removed stay: without their state, nothing takes them as finished.
  """
  for path in (locate(output, stem), *files):
    with contextlib.suppress(OSError):
      path.unlink(missing_ok=True)
