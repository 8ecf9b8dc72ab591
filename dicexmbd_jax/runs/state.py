"""Which images are finished: `state/STEM.json` says from what they were made.

It is written last of an image's files, and removed before they are replaced.
It keeps their size and hash, and its own: an image whose state fits the run and
whose files are as they were written is finished; anything else is done again.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging

from dicexmbd_jax.io import folders, json_file, write

Path = pathlib.Path
# Any of these marks an output folder of this program, one of shares too.
_MARKS = (*folders.OUTPUT_MARKS, "shards", "state")


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
    OSError, ValueError: there is none, or it is damaged.
  """
  return read_sealed(locate(output, stem))


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
  """Writes JSON with a hash of itself.

  Raises:
    OSError: the file cannot be written; names it.
  """
  seal = _hash_text(write.dump_json(values))
  write.write_text(path, write.dump_json({**values, "sha256": seal}) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
  """Reads what write_sealed wrote.

  Raises:
    OSError, ValueError: there is no such file, or it is not as it was written.
  """
  values = json_file.read_json(path)
  seal = values.pop("sha256", None)
  if seal is None or seal != _hash_text(write.dump_json(values)):
    raise ValueError(f"{path}: found a damaged file, expected it as written")
  return values


def _hash_text(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
  """Returns a file's size and hash.

  Raises:
    OSError: it cannot be read.
  """
  data = path.read_bytes()
  return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


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
  paths: Mapping[str, Path],
  **values: Any,
) -> None:
  """Writes an image's state.

  Args:
    output: the output folder.
    stem: the image's.
    key: hashes of all that the image's files depend on.
    paths: of the files that were written, by kind.
    **values: what else is to be kept.

  Raises:
    OSError: a file cannot be read or written; names it.
  """
  files = {kind: describe_file(path) for kind, path in paths.items()}
  state = {"key": dict(key), "files": files, **values}
  write_sealed(locate(output, stem), state)


def find_fault(
  output: Path,
  stem: str,
  key: Mapping[str, str],
  locate_file: Callable[[str], Path],
) -> str | None:
  """Says why an image is not finished: "found no result"; None if it is.

  Args:
    output: the output folder.
    stem: the image's.
    key: hashes of all, or of some, that the image's files depend on.
    locate_file: returns where the image's file of a kind is.
  """
  try:
    state = read(output, stem)
  except FileNotFoundError:
    return "found no result"
  except (OSError, ValueError):
    return "found a damaged result"
  known = state["key"]
  other = [name for name, value in key.items() if known.get(name) != value]
  if other:
    return f"found a result of another {' and '.join(other)}"
  for kind, written in state["files"].items():
    try:
      if describe_file(locate_file(kind)) != written:
        return f"found a result with damaged {kind}"
    except OSError:
      return f"found a result without {kind}"
  return None


def discard(output: Path, stem: str, files: Iterable[Path]) -> None:
  """Removes an image's files of an earlier run, the state first.

  So that no result lies beside the failure that tells of it. Files that cannot
  be removed stay: without their state, nothing takes them as finished.
  """
  for path in (locate(output, stem), *files):
    with contextlib.suppress(OSError):
      path.unlink(missing_ok=True)


def retire_files(
  output: Path,
  suffixes: Mapping[str, str],
  stems: Iterable[str],
  unlisted: Iterable[Path],
) -> None:
  """Moves files of images that left the input to `stale/NUMBER/`, and tells.

  Every file of the kinds counts, whether a state tells of it or not. Nothing is
  deleted: each run that finds some takes a new number.

  Args:
    output: the output folder.
    suffixes: kind -> suffix of the files.
    stems: the images of the input.
    unlisted: files of the input whose images are not known; what may be theirs,
      by its name, stays. An archive may hold images of any name.
  """
  unlisted = list(unlisted)
  if any(path.suffix.lower() == ".zip" for path in unlisted):
    return
  kept = set(stems)
  doubtful = tuple(path.name.partition(".")[0] for path in unlisted)
  left: dict[str, list[Path]] = {}
  for kind, suffix in {**suffixes, "state": ".json"}.items():
    for path in sorted((output / kind).glob(f"[!.]*{suffix}")):
      stem = path.name.removesuffix(suffix)
      if stem not in kept and not (doubtful and stem.startswith(doubtful)):
        left.setdefault(stem, []).append(path)
  if not left:
    return
  number = 1
  while (folder := output / "stale" / f"{number:03d}").exists():
    number += 1
  for path in [path for paths in left.values() for path in paths]:
    target = folder / path.relative_to(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
  shown = ", ".join([*left][:10]) + (", ..." if len(left) > 10 else "")
  logging.warning(
    "%s: found files of %d images that left the input, moved to %s: %s",
    output, len(left), folder, shown,
  )  # fmt: skip
