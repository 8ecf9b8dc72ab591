"""Reads panel files: which markers a stack holds and what they are for."""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Sequence

from dicexmbd_jax.io import names
from dicexmbd_jax.types import Panel, PanelRow

# Header cells are compared in lower case without spaces, "_", "-" and ".".
_NAME_COLUMNS = ("name", "marker", "target", "clean_target")
_METAL_COLUMNS = ("metal", "metal tag")
_WANTED = (
  "a name column (name or marker) and either nuclear and membrane_cytoplasm "
  "(0/1) or steinbock's deepcell (1 = nuclear, 2 = membrane/cytoplasm)"
)
_MAX_LENGTH = 500  # Of a cell, and of what messages repeat of a file.
_TRUE = {"1", "true", "yes"}
_FALSE = {"0", "false", "no", "", "na", "nan"}


def read_panel(path: str | pathlib.Path) -> Panel:
  """Reads a panel in any of the supported column layouts.

  The layouts are steinbock's (channel, name, keep, deepcell), the published
  Dice-XMBD's (marker, nuclear, membrane_cytoplasm, one row per channel) and
  this project's (channel, name, keep, nuclear, membrane_cytoplasm). Headers
  are compared without case, spaces and underscores; other columns are ignored.
  Separators may be comma, semicolon or tab, or what a first line `sep=;` says;
  the text UTF-8 (with or without byte order mark), UTF-16 with one, or Latin-1.
  A blank flag is a zero. Where there is no `keep` column, every row is kept. A
  `channel` column of numbers (2, Channel 2) names nothing unless these are
  masses; where it counts the rows, from 0 or 1 on and in any order, it tells
  which channel of the file is meant. Beside it a `metal` column may stand.

  Args:
    path: the panel file.

  Returns:
    All rows, kept or not, in the file's order or in that of the channels'
    numbers. None need be membrane/cytoplasm.

  Raises:
    ValueError: missing or unreadable file, missing columns, a flag that is no
      flag, a row of another length than the header or of two metals, a metal
      that two rows ask for, no nuclear row.
  """
  path = pathlib.Path(path)
  table = _split_rows(path, _read_text(path))
  header = [_simplify(cell) for cell in table[0][1]] if table else []
  column = _find_columns(path, table[0][1] if table else [], header)
  texts = [
    _name_cells(_pad(path, line, cells, len(header)), column)
    for line, cells in table[1:]
  ]
  lines = [line for line, _ in table[1:]]
  rows = [
    _make_row(path, line, text) for line, text in zip(lines, texts, strict=True)
  ]
  _check_nuclear(path, rows)
  channels = [text.get("channel", "") for text in texts]
  rows = _sort_numbered_channels(path, rows, channels)
  _check_metals(path, rows)
  return Panel(path, tuple(rows))


def _read_text(path: pathlib.Path) -> str:
  try:
    data = path.read_bytes()
  except OSError as error:
    raise ValueError(
      f"{path}: found {error.strerror or error}, expected a readable panel file"
    ) from error
  if data.startswith((b"\xff\xfe", b"\xfe\xff")):
    return data.decode("utf-16", errors="replace")
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError:
    return data.decode("latin-1")


def _split_rows(path: pathlib.Path, text: str) -> list[tuple[int, list[str]]]:
  """Splits into (line number, cells), without blank lines."""
  if "\0" in text:
    raise ValueError(f"{path}: found binary data, expected a panel as CSV")
  lines = text.splitlines()
  separator = _pop_separator(lines)
  reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
  rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
  try:
    found = [(line, cells) for line, cells in rows if any(cells)]
  except csv.Error as error:  # A cell without an end.
    raise ValueError(
      f"{path}: found {error} in line {reader.line_num}, expected CSV"
    ) from error
  for line, cells in found:
    if (length := max(map(len, cells))) > _MAX_LENGTH:
      raise ValueError(
        f"{path}: found a cell of {length} characters in line {line}, expected "
        f"up to {_MAX_LENGTH}"
      )
  return found


def _pop_separator(lines: list[str]) -> str:
  """Finds what separates cells; a line that only says so (sep=;) is emptied."""
  at = next((i for i, line in enumerate(lines) if line.strip()), None)
  if at is None:
    return ","
  told = re.fullmatch(r'"?sep=(.)"?[,;\t ]*', lines[at], re.IGNORECASE)
  if told:
    lines[at] = ""
    return told[1]
  return max(",;\t", key=lines[at].count)


def _simplify(header: str) -> str:
  return re.sub(r"[\s_.\-]", "", header).lower()


def _find_columns(
  path: pathlib.Path, cells: Sequence[str], header: Sequence[str]
) -> dict[str, int]:
  """Finds the position of every column that is used, by its role."""

  def find(names: Sequence[str]) -> int | None:
    simple = [_simplify(name) for name in names]
    return next((header.index(name) for name in simple if name in header), None)

  roles = {
    "name": _NAME_COLUMNS,
    "channel": ("channel",),
    "metal": _METAL_COLUMNS,
    "nuclear": ("nuclear",),
    "membrane": ("membrane_cytoplasm",),
    "deepcell": ("deepcell",),
    "keep": ("keep",),
  }
  found = {role: find(names) for role, names in roles.items()}
  has_flags = found["nuclear"] is not None and found["membrane"] is not None
  if has_flags:
    found["deepcell"] = None
  elif found["keep"] is None:
    found["keep"] = find(("full",))  # IMC panels before steinbock.
  has_name = any(
    found[role] is not None for role in ("name", "channel", "metal")
  )
  if not has_name or not (has_flags or found["deepcell"] is not None):
    columns = ", ".join(filter(None, cells))[:_MAX_LENGTH] or "no columns"
    raise ValueError(f"{path}: found {columns}; expected {_WANTED}")
  return {role: at for role, at in found.items() if at is not None}


def _pad(
  path: pathlib.Path, line: int, cells: list[str], width: int
) -> list[str]:
  """Fills a row up to the header's width; blank cells beyond it are dropped."""
  if any(cells[width:]):
    raise ValueError(
      f"{path}: found {len(cells)} cells in line {line}, expected {width}"
    )
  return cells[:width] + [""] * (width - len(cells))


def _name_cells(cells: list[str], column: dict[str, int]) -> dict[str, str]:
  return {role: cells[at] for role, at in column.items()}


def _make_row(path: pathlib.Path, line: int, text: dict[str, str]) -> PanelRow:
  metal, channel = text.get("metal", ""), text.get("channel", "")
  name = text.get("name") or metal or channel
  if not name:
    raise ValueError(f"{path}: found no name in line {line}, expected one")
  if "deepcell" in text:
    group = _parse_group(path, line, text["deepcell"])
    is_nuclear, is_membrane = group == 1, group == 2
  else:
    is_nuclear = _parse_flag(path, line, "nuclear", text["nuclear"])
    is_membrane = _parse_flag(
      path, line, "membrane_cytoplasm", text["membrane"]
    )
  is_kept = "keep" not in text or _parse_flag(path, line, "keep", text["keep"])
  own = metal or channel or None
  return PanelRow(own, name, is_kept, is_nuclear, is_membrane, line)


def _parse_flag(path: pathlib.Path, line: int, column: str, text: str) -> bool:
  value = re.sub(r"\.0*$", "", text.lower())
  if value not in _TRUE | _FALSE:
    raise ValueError(
      f"{path}: found {text!r} in column {column}, line {line}; expected 0 or 1"
    )
  return value in _TRUE


def _parse_group(path: pathlib.Path, line: int, text: str) -> int:
  value = re.sub(r"\.0*$", "", text.lower())
  if value in _FALSE:
    return 0
  if value not in ("1", "2"):
    raise ValueError(
      f"{path}: found {text!r} in column deepcell, line {line}; "
      "expected 1 (nuclear), 2 (membrane/cytoplasm) or nothing"
    )
  return int(value)


def _check_nuclear(path: pathlib.Path, rows: Sequence[PanelRow]) -> None:
  if not any(row.is_nuclear for row in rows):
    raise ValueError(
      f"{path}: found no nuclear channel among {len(rows)} rows, "
      "expected at least one"
    )


def _sort_numbered_channels(
  path: pathlib.Path, rows: list[PanelRow], channels: list[str]
) -> list[PanelRow]:
  """Takes a channel column of numbers for the rows' order, and forgets it.

  Numbers need not count: a file may have some of an instrument's channels.
  Masses stay.

  Args:
    path: the panel, for messages.
    rows: in the file's order.
    channels: the rows' cells in the channel column.

  Raises:
    ValueError: numbers of another order, some of which repeat or are missing.
  """
  parsed = [names.parse_number(channel) for channel in channels if channel]
  numbers = [number for number in parsed if number is not None]
  if not numbers or len(numbers) < len(parsed):
    return rows
  if all(number in names.MASSES for number in numbers):
    return rows
  plain = [
    dataclasses.replace(row, channel=None) if row.channel == channel else row
    for row, channel in zip(rows, channels, strict=True)
  ]
  if numbers == sorted(numbers):
    return plain
  if len(set(numbers)) < len(rows):
    shown = ", ".join(channel or "nothing" for channel in channels)
    raise ValueError(
      f"{path}: found {shown[:_MAX_LENGTH]} in column channel, expected each "
      "row's own number, or rows in their order"
    )
  places = dict(zip(numbers, plain, strict=True))
  return [places[number] for number in sorted(places)]


def _check_metals(path: pathlib.Path, rows: Sequence[PanelRow]) -> None:
  """Refuses a row of two metals, and a metal that two rows ask for."""
  taken: dict[str, PanelRow] = {}
  for row in rows:
    try:
      metal = names.parse_row(row.channel, row.name).metal
    except ValueError as error:
      raise ValueError(
        f"{path}: found {error} in line {row.line} ({row.name}), expected one "
        "metal"
      ) from error
    if metal is None or not row.is_asked:
      continue
    first = taken.setdefault(metal, row)
    if first is not row:
      raise ValueError(
        f"{path}: found {metal} in lines {first.line} ({first.name}) and "
        f"{row.line} ({row.name}), expected one row for each metal"
      )
