"""Compares what a panel and a file say of one channel: metals and markers."""

import pathlib
import re
from collections.abc import Mapping, Sequence

from dicexmbd_jax.io.names import Name, squeeze
from dicexmbd_jax.types import Panel

_NUM_SHOWN = 4  # Channels in one warning.
_MIN_STEM = 5  # Letters; CyTOF software cuts names off (Cytoker_651).


def check_agreement(
  panel: Panel,
  rows: Sequence[Name],
  channels: Sequence[Name],
  matches: Mapping[int, int],
  path: str | pathlib.Path,
) -> tuple[str, ...]:
  """Compares the markers of rows and channels that are of one metal.

  A metal alone may belong to another study's panel: then the file has the
  row's marker somewhere else.

  Args:
    panel: the panel, for messages.
    rows: its rows' names, taken apart.
    channels: the file's names, taken apart.
    matches: from rows to channels.
    path: the file, for messages.

  Returns:
    One line that names the markers which the file does not have by any name
    like the panel's; none where there are none.

  Raises:
    ValueError: a row's marker sits on another channel; names both sides.
  """
  unlike = []
  for index, at in matches.items():
    row, channel = rows[index], channels[at]
    if not row.label or row.metal is None or row.metal != channel.metal:
      continue
    elsewhere = _find_elsewhere(rows, channels, matches, index)
    if elsewhere is not None:
      raise ValueError(
        f"{path}: found {row.label} on {_name_place(channels[elsewhere])} and "
        f"{channel.label or 'no marker'} on {row.metal}, expected {row.label} "
        f"on {row.metal} as {_name_row(panel, index)} has it"
      )
    if channel.label and not _is_akin(row.label, channel.label):
      unlike.append(f"{row.metal} is {row.label} there, {channel.label} here")
  return (_describe_unlike(panel, unlike),) if unlike else ()


def find_marker(row: Name, channels: Sequence[Name]) -> str | None:
  """Names the metal on which a file has a row's marker; None if on none."""
  found = (
    channel.metal
    for channel in channels
    if row.label and channel.metal and _is_same(row.label, channel.label)
  )
  return next(found, None)


def _find_elsewhere(
  rows: Sequence[Name],
  channels: Sequence[Name],
  matches: Mapping[int, int],
  index: int,
) -> int | None:
  """Finds another channel with the row's marker, unless its own has it.

  A marker may be on several metals (DNA, on both of iridium): where the row's
  channel tells no marker, one that another row rightly has is no other's.
  """
  row, own = rows[index], channels[matches[index]]
  if _is_same(row.label, own.label):
    return None
  taken = {
    at
    for other, at in matches.items()
    if other != index and _is_same(rows[other].label, channels[at].label)
  }
  found = [
    at
    for at, channel in enumerate(channels)
    if at != matches[index]
    and _is_same(row.label, channel.label)
    and (own.label or at not in taken)
  ]
  return found[0] if found else None


def _is_same(first: str, second: str) -> bool:
  return squeeze(first) == squeeze(second)


def _is_akin(first: str, second: str) -> bool:
  """Whether two ways to write a marker may be one: CD8 and CD8a, not CD80.

  That is: one begins or ends with all words and numbers of the other, or is the
  other cut off.
  """
  short, long = sorted((_split_words(first), _split_words(second)), key=len)
  if short in (long[: len(short)], long[-len(short) :]):
    return True
  stem, whole = sorted((squeeze(first), squeeze(second)), key=len)
  return len(stem) >= _MIN_STEM and stem.isalpha() and whole.startswith(stem)


def _split_words(label: str) -> list[str]:
  return re.findall(r"[^\W\d_]+|\d+", label.lower())


def _name_place(channel: Name) -> str:
  return channel.metal or "a channel without a metal"


def _name_row(panel: Panel, index: int) -> str:
  line = panel.rows[index].line
  return f"{panel.path}" + (f", line {line}," if line else "")


def _describe_unlike(panel: Panel, unlike: Sequence[str]) -> str:
  more = len(unlike) - _NUM_SHOWN
  shown = "; ".join(unlike[:_NUM_SHOWN])
  return f"markers are called otherwise than in {panel.path.name}: {shown}" + (
    f"; and {more} more" if more > 0 else ""
  )
