"""What became of a damaged file: told in a line, read as it is, or a fault."""

import collections
import contextlib
import dataclasses
import logging
import pathlib
import re
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

MAX_LINE = 1200


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of one damaged file.

  Attributes:
    sample: its name.
    number: of the damage; with the seed and the sample it is the same again.
    kind: of the damage.
    result: "line", "equal", "different" or "else".
    detail: the line, what differs, or what went wrong.
  """

  sample: str
  number: int
  kind: str
  result: str
  detail: str


class RefusedError(Exception):
  """Lines of the images that could not be read, and what could."""

  def __init__(self, lines: list[str], found: dict):
    super().__init__(lines)
    self.lines, self.found = lines, found


def read(sample, path: pathlib.Path) -> dict:
  """Returns what a sample's reader finds, and what was told in the log.

  Raises:
    Exception: as the reader.
  """
  with _listen() as told:
    found = sample.read(path)
  return found | {"log: warnings": _hide(told, path)}


@contextlib.contextmanager
def _listen() -> Iterator[list[str]]:
  """Collects the lines of the program's log."""
  told: list[str] = []
  handler = logging.Handler(logging.INFO)
  handler.emit = lambda record: told.append(record.getMessage())
  logger = logging.getLogger("absl")
  logger.setLevel(logging.INFO)
  logger.addHandler(handler)
  try:
    yield told
  finally:
    logger.removeHandler(handler)


def _hide(lines: Iterable[str], path: pathlib.Path) -> tuple[str, ...]:
  return tuple(line.replace(str(path.parent), "") for line in lines)


def judge(sample, path: pathlib.Path, whole: dict) -> tuple[str, str]:
  """Reads a damaged file; returns the result and its detail.

  Args:
    sample: of which the file is a damaged copy.
    path: the file.
    whole: what `read` returns of the whole one.
  """
  lines: list[str] = []
  try:
    found = read(sample, path)
  except RefusedError as refused:
    found, lines = refused.found, refused.lines
  except (ValueError, OSError) as error:
    found, lines = {}, [f"{error}"]
  except MemoryError as error:
    return "else", f"MemoryError: {error}"
  except Exception:
    return "else", traceback.format_exc(limit=-3)
  for line in lines:
    if fault := find_fault(line, path):
      return "else", f"{fault}: {line[:MAX_LINE]}"
  if differing := compare(found, whole, is_part=bool(lines)):
    return "different", ", ".join(sorted(differing))
  return ("line", lines[0]) if lines else ("equal", "")


def find_fault(line: str, path: pathlib.Path) -> str | None:
  """Says what is wrong with a message; None if it is one clear line."""
  if "\n" in line or "\r" in line:
    return "several lines"
  if len(line) > MAX_LINE:
    return "a long line"
  if str(path) not in line and str(path.parent) not in line:
    return "a line without the file"
  # HDF5 does not touch what it reserves for a block before it reads that.
  rest = line.replace("memory allocation failed for on disk image buffer", "")
  if re.search("nable to allocate|memory allocation|too little memory", rest):
    return "too much memory"
  if "found an unexpected" in line:
    return "an unexpected error"
  return None


def compare(found: dict, whole: dict, is_part: bool) -> set[str]:
  """Returns what differs: "pixels", "shape of pixels", "names" and so on."""
  names = found.keys() if is_part else found.keys() | whole.keys()
  differing = {
    compare_values(found[name], whole[name], name)
    if name in found and name in whole
    else "images"
    for name in names
  }
  return {one for one in differing if one is not None}


def compare_values(first: Any, second: Any, name: str) -> str | None:
  """Returns what differs; None if nothing, down to the bytes."""
  kind = name.rpartition(": ")[2]
  if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
    if (first.shape, first.dtype) != (second.shape, second.dtype):
      return f"shape of {kind}"
    return kind if first.tobytes() != second.tobytes() else None
  return kind if repr(first) != repr(second) else None


_NO_SUM = "the format has no checksum"
_PLAIN = {"pixels": _NO_SUM, "names": _NO_SUM, "size": _NO_SUM}
_VALUES = {"settings": "a text without checksum"}
_LOST_PAGE = "the chain leaves a page out; the panel counts them"
# Sample -> what may differ -> why. Formats with checksums are not here.
EXPLAINED: dict[str, dict[str, str]] = {
  "mcd": _PLAIN,
  "mcd with a copy": _PLAIN,
  "txt": {
    **_PLAIN,
    "shape of pixels": "cut behind a row; nothing says how many there are",
  },
  "ome": {**dict.fromkeys(("names", "size"), "OME-XML has no checksum")},
  **dict.fromkeys(
    ("tiff", "tiff in pages", "bigtiff", "imagej"),
    {**_PLAIN, "shape of pixels": _LOST_PAGE},
  ),
  "tiff lzw": {
    "pixels": "LZW has no checksum",
    "shape of pixels": _LOST_PAGE,
  },
  # zlib sums the pixels, and nothing the tags: their type, or bits of each.
  **dict.fromkeys(
    ("tiff zlib", "tiff in tiles", "mask tiff", "map tiff"),
    {
      "pixels": "tags have no checksum",
      "names": "tags have no checksum",
      "shape of pixels": _LOST_PAGE,
    },
  ),
  **dict.fromkeys(
    ("zarr attributes", "zarr 3 group"),
    dict.fromkeys(("names", "size"), "JSON has no checksum"),
  ),
  "map h5": {"pixels": "HDF5 has no checksum, unless it is asked for"},
  "ilp": {
    **dict.fromkeys(
      ("pixels", "shape of pixels", "arrays", "settings"),
      "HDF5 has no checksum",
    )
  },
  **dict.fromkeys(
    (
      *("panel", "panel utf-16", "panel tabs", "panel deepcell"),
      *("regions", "history", "config.json", "teacher.json"),
    ),
    _VALUES,
  ),
}


def explain(outcome: Outcome) -> str | None:
  """Returns why a difference is no fault; None if nobody knows."""
  parts = outcome.detail.split(", ")
  if "warnings" in parts:
    return "told by a warning"
  is_anew = outcome.kind.startswith(("member's", "chunk's"))
  if is_anew and not ("images" in parts and "zip" in outcome.sample):
    return "its checksum was made anew"
  reasons = EXPLAINED.get(outcome.sample, {})
  if not all(part in reasons for part in parts):
    return None
  return "; ".join(dict.fromkeys(reasons[part] for part in parts))


def list_faults(outcomes: Iterable[Outcome]) -> list[Outcome]:
  """Returns what must not be."""
  return [
    one
    for one in outcomes
    if one.result == "else"
    or (one.result == "different" and explain(one) is None)
  ]


def describe_outcomes(outcomes: list[Outcome]) -> str:
  """Returns the table of outcomes, and the differences with their reasons."""
  results = ("line", "equal", "different", "else")
  counts = collections.Counter((one.sample, one.result) for one in outcomes)
  lines = [f"{'sample':<18}" + "".join(f"{name:>11}" for name in results)]
  names = list(dict.fromkeys(one.sample for one in outcomes))
  for name in names:
    row = [counts[name, result] for result in results]
    lines.append(f"{name:<18}" + "".join(f"{count:>11}" for count in row))
  sums = [sum(counts[name, result] for name in names) for result in results]
  lines.append(f"{'all':<18}" + "".join(f"{count:>11}" for count in sums))
  different = [one for one in outcomes if one.result == "different"]
  groups = collections.Counter(
    (one.sample, one.detail, explain(one)) for one in different
  )
  lines += ["", "accepted and different:"]
  for (sample, detail, reason), count in sorted(groups.items(), key=str):
    lines.append(f"{count:>6}  {sample}: {detail}: {reason or 'NOT EXPLAINED'}")
  return "\n".join(lines)
