"""Matches a panel's rows with a file's channels; never by a silent shift."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dicexmbd_jax.io.agreement import check_agreement, find_marker
from dicexmbd_jax.io.names import (
  Name,
  make_unique,
  parse_name,
  parse_row,
  squeeze,
)
from dicexmbd_jax.markers import is_membrane_stain, is_nuclear_stain
from dicexmbd_jax.types import LoadedImage, Panel, PanelRow, Stack

_NUCLEAR_NAMES = {"nuclear", "nucleus", "nuclei"}
_MEMBRANE_NAMES = {
  *("membrane", "cytoplasm", "membranecytoplasm", "cytoplasmmembrane", "cell"),
}
# Nuclei_sum, nuclear stain; no nucleolin.
_NUCLEAR_WORD = re.compile("(?<![a-z])nucle(us|i|ar)(?![a-z])", re.IGNORECASE)
_NUM_SHOWN = 12  # Names on either side of a message.


@dataclasses.dataclass(frozen=True)
class ChannelSelection:
  """Which channels of a file are read, and what they are.

  Attributes:
    channels: indices into the file's channels, in the order of `names`.
    names: unique names of the markers; column names in the tables.
    nuclear: indices into `channels` of the nuclear markers.
    membrane: indices into `channels` of the membrane/cytoplasm markers.
    warnings: one line each, where panel and file call a marker otherwise.
    has_panel: whether a panel told them.
  """

  channels: tuple[int, ...]
  names: tuple[str, ...]
  nuclear: tuple[int, ...]
  membrane: tuple[int, ...]
  warnings: tuple[str, ...] = ()
  has_panel: bool = False

  def load(
    self, stack: Stack, pixel_size_um: float | None, lines: Iterable[str] = ()
  ) -> LoadedImage:
    """Returns the image that a reader hands on.

    Args:
      stack: counts of the selected channels, float32 (y, x, m).
      pixel_size_um: from the file's metadata, None where it has none.
      lines: the reader's warnings, without the file's name.
    """
    return LoadedImage(
      stack=stack,
      names=self.names,
      nuclear=self.nuclear,
      membrane=self.membrane,
      pixel_size_um=pixel_size_um,
      warnings=(*lines, *self.warnings),
    )


def resolve_panel(
  panel: Panel | None,
  file_channel_names: Sequence[str | None],
  file_num_channels: int,
  path: str | pathlib.Path,
) -> ChannelSelection:
  """Finds the file's channel of every row that the panel asks for.

  Rows that are kept, nuclear or membrane/cytoplasm are asked for. Where the
  file names its channels, rows are found by name, in any order: equal metals
  (Ir191, 191Ir, DNA1_Ir191, Ir191Di) match, different metals or masses do
  not, and without a metal on either side the marker's name decides, compared
  without case and punctuation. Where metals are equal the markers are compared
  too (check_agreement). Where it names none ("Channel 1", "", "0" are no
  names), or where names repeat, position decides: then the file must have as
  many channels as the panel has rows, or kept rows, and no name may disagree.

  Without a panel only a file of one or two channels will do: nuclear, then
  membrane/cytoplasm, or the other way round where its names say so (membrane,
  nuclei; CD45, DAPI). With a panel, such a file is taken where its names are
  these words and no markers'.

  Args:
    panel: the panel, or None where none was given.
    file_channel_names: the file's names, empty or None where it has none.
    file_num_channels: how many channels the file has.
    path: the file, for messages.

  Raises:
    ValueError: a row without its channel, an ambiguous one, one whose marker
      the file has elsewhere, or a count that does not fit; the message names
      both sides.
  """
  names = [name or "" for name in file_channel_names]
  names += [""] * (file_num_channels - len(names))
  two = _select_two(names)
  if panel is None:
    if file_num_channels not in (1, 2):
      raise ValueError(
        f"{path}: found {file_num_channels} channel(s) and no panel, expected "
        "a panel, or one or two channels: nuclear, membrane/cytoplasm"
      )
    return two or _select_alone(names)
  if two is not None:
    return two
  rows, file_names, matches = _match_rows(panel, tuple(names))
  if matches is None:
    raise ValueError(_describe_mismatch(panel, rows, names, path))
  lines = check_agreement(panel, rows, file_names, matches, path)
  return dataclasses.replace(_select(panel, matches), warnings=lines)


@functools.lru_cache(maxsize=4)  # A run's files mostly have the same names.
def _match_rows(
  panel: Panel, names: tuple[str, ...]
) -> tuple[Sequence[Name], Sequence[Name], Mapping[int, int] | None]:
  """Returns parsed rows and names, and the asked rows' channels if all have."""
  rows = tuple(parse_row(row.channel, row.name) for row in panel.rows)
  channels = tuple(map(parse_name, names))
  matches = _match_names(panel, rows, channels)
  if matches is None:
    matches = _match_positions(panel, rows, channels)
  return rows, channels, matches


def count_found(panel: Panel, names: Sequence[str]) -> tuple[int, bool]:
  """Counts the rows that have a channel of their name.

  Returns:
    How many, and whether all that are asked for are among them.
  """
  channels = [parse_name(name) for name in names]
  rows = [parse_row(row.channel, row.name) for row in panel.rows]
  is_found = [bool(_find_matches(row, channels)) for row in rows]
  pairs = zip(panel.rows, is_found, strict=True)
  return sum(is_found), all(found for row, found in pairs if row.is_asked)


def _select_alone(names: Sequence[str]) -> ChannelSelection:
  """Takes one or two channels without a panel, by name or else by order.

  They are called nuclear and membrane: their own names may differ from image to
  image (ROI1_DAPI), and the tables of a run have the same columns.
  """
  if len(names) == 1:
    return ChannelSelection((0,), ("nuclear",), (0,), ())
  first, second = map(_rank_membrane, names)
  if first > second:
    # In one order, or tables of two files would have other columns.
    return ChannelSelection((1, 0), ("nuclear", "membrane"), (0,), (1,))
  return ChannelSelection((0, 1), ("nuclear", "membrane"), (0,), (1,))


def _select_two(names: Sequence[str]) -> ChannelSelection | None:
  """Takes a file whose two channels say they are the image's own."""
  plain = {squeeze(name) for name in names}
  if len(names) != 2 or not plain <= _NUCLEAR_NAMES | _MEMBRANE_NAMES:
    return None
  if set(map(_rank_membrane, names)) != {-2, 2}:
    return None
  found = _select_alone(names)
  own = make_unique([names[channel] for channel in found.channels])
  return dataclasses.replace(found, names=own)


def _rank_membrane(name: str) -> int:
  """Ranks how surely a name means membrane/cytoplasm: 2; -2 is nuclear."""
  if squeeze(name) in _NUCLEAR_NAMES or is_nuclear_stain(name):
    return -2
  if _NUCLEAR_WORD.search(name):  # "cell without nuclei" beside "nuclei".
    return -1
  return 2 if squeeze(name) in _MEMBRANE_NAMES else is_membrane_stain(name)


def _is_match(row: Name, channel: Name) -> bool:
  if row.metal and channel.metal:
    return row.metal == channel.metal
  return _may_be_one(row, channel) and bool(row.markers & channel.markers)


def _is_loose_match(row: Name, channel: Name) -> bool:
  """Whether the names are one but for a mass in brackets: CD3, CD3 (140)."""
  if row.metal and channel.metal:
    return False
  return _may_be_one(row, channel) and bool(row.loose & channel.loose)


def _may_be_one(row: Name, channel: Name) -> bool:
  return None in (row.mass, channel.mass) or row.mass == channel.mass


def _find_matches(row: Name, channels: Sequence[Name]) -> list[int]:
  """Finds the channels a row may mean; an equal metal settles it."""
  found = [i for i, channel in enumerate(channels) if _is_match(row, channel)]
  if not found:
    return [i for i, one in enumerate(channels) if _is_loose_match(row, one)]
  same = [i for i in found if row.metal and channels[i].metal == row.metal]
  return same or found


def _match_names(
  panel: Panel, rows: Sequence[Name], channels: Sequence[Name]
) -> dict[int, int] | None:
  """Maps every asked row to the one channel of its name, else gives None."""
  matches: dict[int, int] = {}
  for index, row in enumerate(rows):
    if not panel.rows[index].is_asked:
      continue
    found = _find_matches(row, channels)
    if len(found) != 1 or found[0] in matches.values():
      return None
    matches[index] = found[0]
  return matches


def _match_positions(
  panel: Panel, rows: Sequence[Name], channels: Sequence[Name]
) -> dict[int, int] | None:
  """Maps rows to channels in order, where the count fits and no name objects.

  Where both have a name, it must be the same one; rows that repeat a name are
  told apart by nothing but their place.
  """
  for order in _list_orders(panel):
    if len(order) != len(channels):
      continue
    pairs = list(zip(order, channels, strict=True))
    agree = all(
      not channel.markers
      or not rows[index].markers
      or _is_match(rows[index], channel)
      or _is_loose_match(rows[index], channel)
      for index, channel in pairs
    )
    covered = all(
      index in order for index, row in enumerate(panel.rows) if row.is_asked
    )
    if agree and covered:
      return {
        index: at
        for at, index in enumerate(order)
        if panel.rows[index].is_asked
      }
  return None


def _list_orders(panel: Panel) -> Iterator[list[int]]:
  yield list(range(len(panel.rows)))
  yield [index for index, row in enumerate(panel.rows) if row.is_kept]


def _select(panel: Panel, matches: Mapping[int, int]) -> ChannelSelection:
  rows = [panel.rows[index] for index in matches]
  return ChannelSelection(
    channels=tuple(matches.values()),
    names=make_unique([row.name for row in rows]),
    nuclear=tuple(i for i, row in enumerate(rows) if row.is_nuclear),
    membrane=tuple(i for i, row in enumerate(rows) if row.is_membrane),
    has_panel=True,
  )


def _describe_mismatch(
  panel: Panel,
  rows: Sequence[Name],
  names: Sequence[str],
  path: str | pathlib.Path,
) -> str:
  """Writes the one line that names both sides."""
  channels = [parse_name(name) for name in names]
  kept = sum(row.is_kept for row in panel.rows)
  count = f"{len(panel.rows)} rows" + (
    f" ({kept} kept)" if kept != len(panel.rows) else ""
  )
  if not any(channel.markers for channel in channels):
    return (
      f"{path}: found {len(names)} channel(s) without names, expected the "
      f"{count} of {panel.path}"
    )
  missing: list[str] = []
  ambiguous: list[str] = []
  for row, parsed in zip(panel.rows, rows, strict=True):
    found = len(_find_matches(parsed, channels))
    if not row.is_asked or found == 1:
      continue
    if found:
      ambiguous.append(_format_row(row))
      continue
    place = find_marker(parsed, channels)
    missing.append(_format_row(row) + (f" but on {place}" if place else ""))
  wrong = [f"{_join(missing)} not among them"] if missing else []
  if ambiguous or not wrong:
    wrong.append(f"{_join(ambiguous) or 'rows'} ambiguous")
  return (
    f"{path}: found {len(names)} channels {_join(names)}; expected the "
    f"{count} of {panel.path}: {', '.join(wrong)}"
  )


def _format_row(row: PanelRow) -> str:
  channel = row.channel if row.channel != row.name else None
  line = f"line {row.line}" if row.line else None
  told = ", ".join(filter(None, (channel, line)))
  return f"{row.name} ({told})" if told else row.name


def _join(names: Sequence[str]) -> str:
  shown = ", ".join(name or "(no name)" for name in names[:_NUM_SHOWN])
  more = len(names) - _NUM_SHOWN
  return shown + (f" and {more} more" if more > 0 else "")
