"""Reads Fluidigm's .txt files: one line per pixel, one column per channel."""

import codecs
import collections
import csv
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TextIO

import numpy as np
import pandas as pd

from dicexmbd_jax import storage
from dicexmbd_jax.io import pixels
from dicexmbd_jax.io.selection import ChannelSelection
from dicexmbd_jax.types import LoadedImage

Select = Callable[[Sequence[str], int], ChannelSelection]

_FIRST = ("Start_push", "End_push", "Pushes_duration", "X", "Y", "Z")
_NUM_FIRST, _X, _Y = 6, 3, 4
_CHANNEL = re.compile(r"(?P<label>.*)\((?P<metal>[a-zA-Z]+[0-9]+)[^0-9]*\)")
_MAX_HEADER = 1 << 20  # Bytes; a hundred channels have some thousand.
# What text editors and spreadsheets put in front of a text.
_MARKS = {
  codecs.BOM_UTF8: "utf-8-sig",
  codecs.BOM_UTF16_LE: "utf-16",
  codecs.BOM_UTF16_BE: "utf-16",
}


def read_txt(
  path: pathlib.Path, select: Select, shown: pathlib.Path
) -> LoadedImage:
  """Reads the selected channels of a .txt file; its pixels are 1 um.

  Lines may come in any order; each place of the image must have one. They are
  read some at a time: in memory are the selected channels alone, and these in a
  file where they are large.

  Args:
    path: the file to open.
    select: from channel names and their number to the channels to read; a
      channel's name is its label, then its metal.
    shown: the file's name in messages.

  Raises:
    ValueError: lines that are cut or no numbers, places without a pixel or
      with two, or channels that `select` does not take.
  """
  text = _Text(path, _find_encoding(path), shown)
  columns = _read_header(text)
  names = [_parse_channel(column, shown) for column in columns[_NUM_FIRST:]]
  selection = select(names, len(names))
  used = [channel + _NUM_FIRST for channel in selection.channels]
  table = _read_table(text, len(columns), used)
  lines = _check_end(text)
  places = pixels.find_places(table.x, table.y, shown)
  if places.gap is not None:
    (height, width), (row, column) = places.shape, places.gap
    raise ValueError(
      f"{shown}: found no pixel at x {column}, y {row} ({places.num_missing} "
      f"of {width} x {height} are missing), expected all"
    )
  stack = places.fill([table.counts], len(used))
  return selection.load(stack, 1.0, lines)


def join_name(label: str, metal: str) -> str:
  """Writes a channel's label and metal as one name, as in DNA1_Ir191."""
  return f"{label}_{metal}" if label and label != metal else metal


@dataclasses.dataclass(frozen=True)
class _Text:
  """A text file, its encoding, and its name in messages."""

  path: pathlib.Path
  encoding: str
  shown: pathlib.Path

  def open(self) -> TextIO:
    return self.path.open(encoding=self.encoding, errors="replace")


def _choose_encoding(start: bytes) -> str:
  marks = (name for mark, name in _MARKS.items() if start.startswith(mark))
  return next(marks, "utf-8")


def _find_encoding(path: pathlib.Path) -> str:
  """Finds the encoding; labels of older files are in Windows' own."""
  with path.open("rb") as file:
    start = file.readline(_MAX_HEADER)
  encoding = _choose_encoding(start)
  try:
    if encoding != "utf-16":
      start.decode(encoding)
  except UnicodeDecodeError:
    return "cp1252"
  return encoding


def _read_header(text: _Text) -> list[str]:
  with text.open() as file:
    columns = file.readline(_MAX_HEADER).rstrip("\n\t").split("\t")
  columns = [column.strip('"') for column in columns]
  if tuple(columns[:_NUM_FIRST]) != _FIRST or len(columns) == _NUM_FIRST:
    raise ValueError(
      f"{text.shown}: found columns {' '.join(columns)[:80]!r}, expected "
      f"{' '.join(_FIRST)} and channels, tabs between them"
    )
  return columns


def _parse_channel(column: str, shown: pathlib.Path) -> str:
  match = _CHANNEL.fullmatch(column)
  if match is None:
    raise ValueError(
      f"{shown}: found the column {column[:80]!r}, expected a channel as "
      "CD45(Pr141Di)"
    )
  return join_name(match["label"], match["metal"])


@dataclasses.dataclass(frozen=True)
class _Table:
  """The pixels in the order of their lines.

  Attributes:
    x: float64.
    y: float64.
    counts: float32 (channel, pixel), of the used channels.
  """

  x: np.ndarray
  y: np.ndarray
  counts: np.ndarray

  def cut(self, num_lines: int) -> "_Table":
    """Leaves out what lies behind the last line."""
    return _Table(
      self.x[:num_lines], self.y[:num_lines], self.counts[:, :num_lines]
    )


def _read_table(text: _Text, num_columns: int, used: Sequence[int]) -> _Table:
  """Reads coordinates and the used columns; every line must be complete."""
  last = num_columns - 1  # Where it is missing, a line was cut.
  dtypes: dict[int, type] = dict.fromkeys((*used, last), np.float32)
  dtypes |= {_X: np.float64, _Y: np.float64}
  num_tabs = _count_tabs(text.path)
  most = num_tabs // last  # Lines, if none is short.
  table = _Table(
    storage.allocate((most,), np.float64),
    storage.allocate((most,), np.float64),
    storage.allocate((len(used), most), np.float32, storage.STACK_BYTES),
  )
  num_lines, is_full = 0, True
  try:
    for part in _parse(text, num_columns, dtypes):
      here = slice(num_lines, num_lines + len(part))
      num_lines = here.stop
      is_full = is_full and not part.isna().to_numpy().any()
      if num_lines > most:
        raise ValueError(f"more than {most} lines")
      table.x[here], table.y[here] = part[_X], part[_Y]
      for counts, column in zip(table.counts, used, strict=True):
        counts[here] = part[column]
  except pd.errors.EmptyDataError as error:
    raise ValueError(
      f"{text.shown}: found no pixels, expected at least one"
    ) from error
  except (ValueError, OverflowError) as error:
    _check_lines(text, num_columns, dtypes)
    reason = " ".join(str(error).split())
    raise ValueError(
      f"{text.shown}: found unreadable data ({reason}), expected numbers"
    ) from error
  # The parser fills short lines and cuts long ones.
  if num_tabs != (num_lines + 1) * last or not is_full:
    _check_lines(text, num_columns, dtypes)
  return table.cut(num_lines)


def _parse(
  text: _Text, num_columns: int, dtypes: Mapping[int, type]
) -> Iterator[pd.DataFrame]:
  """Yields the columns of some lines at a time."""
  with pd.read_csv(
    text.path,
    sep="\t",
    header=None,
    skiprows=1,
    usecols=sorted(dtypes),
    dtype=dtypes,
    quoting=csv.QUOTE_NONE,
    encoding=text.encoding,
    encoding_errors="replace",
    # The parser needs about as much for each value that it meets.
    chunksize=max(storage.STRIP_BYTES // (16 * num_columns), 1),
  ) as parts:
    yield from parts


def _count_tabs(path: pathlib.Path) -> int:
  with path.open("rb") as file:
    return sum(
      block.count(b"\t") for block in iter(lambda: file.read(1 << 20), b"")
    )


def _check_lines(text: _Text, num_columns: int, used: Iterable[int]) -> None:
  """Refuses the first line that is short or long, or has no number."""
  with text.open() as file:
    for number, line in enumerate(file, 1):
      values = line.rstrip("\n").split("\t")
      if number > 1 and values != [""]:
        _check_line(values, number, num_columns, used, text.shown)


def _check_line(
  values: list[str],
  number: int,
  num_columns: int,
  used: Iterable[int],
  shown: pathlib.Path,
) -> None:
  count = len(values) - (len(values) == num_columns and not values[-1])
  if count < num_columns:
    raise ValueError(
      f"{shown}: found {count} values (truncated in line {number}), expected "
      f"{num_columns}"
    )
  if any(values[num_columns:]):  # Empty ones do no harm.
    raise ValueError(
      f"{shown}: found {count} values in line {number}, expected {num_columns}"
    )
  for value in (values[at] for at in used):
    if not _is_number(value):
      raise ValueError(
        f"{shown}: found {value[:40]!r} in line {number}, expected a number"
      )


def _is_number(text: str) -> bool:
  try:
    return math.isfinite(float(text))
  except ValueError:
    return False


def _check_end(text: _Text) -> list[str]:
  """Looks for a cut in the last number, where the last line has no end.

  Returns:
    A warning, where there is no end: lines may be missing, too.

  Raises:
    ValueError: it has fewer decimals than others of its line and the one above.
  """
  with text.path.open("rb") as file:
    file.seek(-2, os.SEEK_END)
    if file.read().rstrip(b"\0")[-1:] in (b"\n", b"\r"):
      return []
  with text.open() as file:
    lines = collections.deque(enumerate(file, 1), maxlen=2)
  number = lines[-1][0]
  *others, last = "\t".join(line for k, line in lines if k > 1).split("\t")
  expected = max(map(_count_decimals, others))
  if _count_decimals(last) < expected:
    raise ValueError(
      f"{text.shown}: found {last!r} (truncated in line {number}), expected "
      f"{expected} decimals"
    )
  return ["the last line has no end; the file may be cut there"]


def _count_decimals(value: str) -> int:
  return len(value.rstrip().partition(".")[2])
