"""Images that have one file per channel, all of them in one folder."""

import collections
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from dicexmbd_jax import memory
from dicexmbd_jax.io import tiff
from dicexmbd_jax.io.names import parse_name
from dicexmbd_jax.io.selection import ChannelSelection, count_found
from dicexmbd_jax.io.source import open_source, split_member
from dicexmbd_jax.markers import is_nuclear_stain
from dicexmbd_jax.types import LoadedImage, Panel

# Converters number channels: ROI1_C0, ROI1_ch01.
_NUMBERED = re.compile(
  r"(?P<image>.{0,400}?)[_\-. ]*(?:channel|ch|c)[_\-. ]?(?P<number>\d{1,4})",
  re.IGNORECASE,
)
_SEPARATORS = "_-. "
# Folders that are named after what is in them; the one above names the image.
_PLAIN = re.compile(
  r"(ome[-_ ]?)?tiff?s?|channels?|images?|img|planes?|markers?", re.IGNORECASE
)
_NUM_SHOWN = 4

Plane = tuple[str, pathlib.Path]  # The channel's name, its file.


@dataclasses.dataclass(frozen=True)
class Group:
  """The files of one image, one for each channel, in natural order."""

  folder: pathlib.Path
  name: str  # Of the image, where the files tell one; else "".
  planes: tuple[Plane, ...]


def find_groups(
  files: Sequence[tuple[str, pathlib.Path]], panel: Panel | None
) -> list[Group]:
  """Finds the folders whose TIFFs are the channels of one image.

  That is: files of one channel, two or more in a folder, named after markers or
  metals of the panel (two of them, or all that are asked for), or numbered as
  channels, as many as the panel has rows or kept rows. Files named after metals
  and stains are channels whatever the panel says. One folder may hold several
  images: ROI1_CD45, ROI1_DNA1, ROI2_CD45, ROI2_DNA1.

  Args:
    files: stem and path of TIFFs, in natural order; a member of an archive has
      the archive in its path.
    panel: what the channels are; None where none was given.
  """
  folders = collections.defaultdict(list)
  for stem, path in files:
    folders[path.parent].append((stem, path))
  return [
    group
    for folder, members in folders.items()
    if len(members) > 1
    for group in _split_folder(folder, members, panel)
  ]


def name_image(group: Group) -> str:
  """Returns the stem of a group: the files' own, or else the folder's name."""
  if group.name:
    return group.name
  folder = pathlib.Path(os.path.abspath(group.folder))
  while _PLAIN.fullmatch(folder.name) and folder.parent.name:
    folder = folder.parent
  is_archive = folder.suffix.lower() == ".zip"
  return folder.stem if is_archive else folder.name


def describe_refusal(planes: Sequence[Plane]) -> str:
  """Says in one line that channels in files need a panel."""
  names = [name for name, _ in planes]
  more = ", ..." if len(names) > _NUM_SHOWN else ""
  return (
    f"{planes[0][1].parent}: found {len(names)} files of one channel each "
    f"({', '.join(names[:_NUM_SHOWN])}{more}), expected a panel that tells "
    "what they are"
  )


def read_planes(
  planes: Sequence[Plane], select: tiff.Select, shown: pathlib.Path
) -> LoadedImage:
  """Reads the selected channels of an image that has one file for each.

  Args:
    planes: names and files of the channels.
    select: from channel names and their number to the channels to read.
    shown: the folder, for messages.

  Raises:
    ValueError: files that cannot be read, of several channels, or of another
      size than the first; channels that `select` does not take.
  """
  selection = select([name for name, _ in planes], len(planes))
  chosen = [planes[channel][1] for channel in selection.channels]
  read = [_read_plane(chosen[0])]
  first = read[0].stack.shape[:2]
  memory.check_size(
    shown,
    f"{len(chosen)} channels of {first[1]} x {first[0]} pixels",
    len(chosen) * read[0].stack.nbytes,
  )
  read += [_read_plane(path) for path in chosen[1:]]
  for path, one in zip(chosen, read, strict=True):
    if one.stack.shape[:2] != first:
      raise ValueError(
        f"{path}: found {one.stack.shape[:2]} pixels, expected {first} as in "
        f"{chosen[0].name}"
      )
  lines = dict.fromkeys(itertools.chain(*(one.warnings for one in read)))
  sizes = {one.pixel_size_um for one in read}
  if len(sizes) > 1:
    lines["channels tell different pixel sizes; these are ignored"] = None
  stack = np.concatenate([one.stack for one in read], axis=-1)
  size_um = sizes.pop() if len(sizes) == 1 else None
  return selection.load(stack, size_um, lines)


def _split_folder(
  folder: pathlib.Path,
  members: Sequence[tuple[str, pathlib.Path]],
  panel: Panel | None,
) -> list[Group]:
  images = max(
    (_split_stems(members, panel, is_turned) for is_turned in (False, True)),
    key=len,
  )
  if len(images) > 1:
    groups = (_make_group(folder, *image) for image in images.items())
    return list(itertools.chain(*groups))
  names = _choose_names([stem for stem, _ in members], panel)
  paths = [path for _, path in members]
  if _are_markers(names, panel):
    return _make_group(folder, "", zip(names, paths, strict=True))
  numbered = collections.defaultdict(list)
  for stem, path in members:
    if match := _NUMBERED.fullmatch(stem):
      plane = (int(match["number"]), path)
      numbered[match["image"]].append(plane)
  counts = (
    {len(panel.rows), sum(r.is_kept for r in panel.rows)} if panel else ()
  )
  return [
    group
    for name, planes in numbered.items()
    if len(planes) in counts and _is_count(number for number, _ in planes)
    for group in _make_group(
      folder, name, ((f"channel {k}", path) for k, path in sorted(planes))
    )
  ]


def _split_stems(
  members: Sequence[tuple[str, pathlib.Path]],
  panel: Panel | None,
  is_turned: bool,
) -> dict[str, list[Plane]]:
  """Splits stems as ROI1_CD45 into image and channel, by what channels are.

  Channels that the panel does not have go with the image of their name.

  Args:
    members: stems and paths of a folder's files.
    panel: what the channels are; without it only metals and stains are known.
    is_turned: whether channels come first, as in CD45_ROI1.

  Returns:
    Two channels or more by image.
  """
  splits = {path: _list_splits(stem, is_turned) for stem, path in members}
  known: set[str] = set()
  for choices in splits.values():
    found = (image for image, name in choices if _is_known(name, panel))
    known.update(itertools.islice(found, 1))
  images = collections.defaultdict(list)
  for path, choices in splits.items():
    for image, name in choices:
      if image in known and parse_name(name).markers:
        images[image].append((name, path))
        break
  least = 2 if panel else 1
  return {
    image: planes
    for image, planes in images.items()
    if len(planes) > 1
    and len({name for name, _ in planes if _is_known(name, panel)}) >= least
  }


def _list_splits(stem: str, is_turned: bool) -> list[tuple[str, str]]:
  """Lists image and channel for each separator, the longest channel first."""
  places = [i for i, sign in enumerate(stem) if sign in _SEPARATORS]
  pairs = [(stem[:i], stem[i + 1 :]) for i in places if 0 < i < len(stem) - 1]
  return [pair[::-1] for pair in reversed(pairs)] if is_turned else pairs


def _is_known(name: str, panel: Panel | None) -> bool:
  if panel is not None:
    return count_found(panel, [name])[0] > 0
  return _is_stain(name) or parse_name(name).metal is not None


def _make_group(
  folder: pathlib.Path, name: str, planes: Iterable[Plane]
) -> list[Group]:
  """Makes a group of those files that have one channel; [] if less than two."""
  alone = tuple(plane for plane in planes if _is_alone(plane[1]))
  return [Group(folder, name, alone)] if len(alone) > 1 else []


def _is_count(numbers: Iterable[int]) -> bool:
  """Whether numbers count from 0 or 1 on."""
  ordered = sorted(numbers)
  return ordered[0] < 2 and ordered == list(
    range(ordered[0], ordered[0] + len(ordered))
  )


def _are_markers(names: Sequence[str], panel: Panel | None) -> bool:
  if panel is not None:
    num_found, is_complete = count_found(panel, names)
    if is_complete or num_found > 1:
      return True
  metals = {parse_name(name).metal for name in names} - {None}
  stains = [name for name in names if _is_stain(name)]
  return len(metals) > 1 or 0 < len(stains) < len(set(names))


def _is_stain(name: str) -> bool:
  """Whether a name is a stain's and no more than that: DAPI, DNA1."""
  word = re.fullmatch(r"[a-zA-Z]+\d{0,2}", name)
  return word is not None and len(name) < 12 and is_nuclear_stain(name)


def _choose_names(stems: Sequence[str], panel: Panel | None) -> list[str]:
  """Takes off what all names begin or end with, if this makes markers."""
  front = _cut_whole(os.path.commonprefix(stems))
  turned = [stem[::-1] for stem in stems]
  back = _cut_whole(os.path.commonprefix(turned))
  choices = [
    list(stems),
    [stem[len(front) :] for stem in stems],
    [stem[: len(stem) - len(back)] for stem in stems],
    [stem[len(front) : len(stem) - len(back)] for stem in stems],
  ]
  return max(filter(all, choices), key=lambda names: _rate(names, panel))


def _cut_whole(prefix: str) -> str:
  """Cuts a common beginning back to its last separator."""
  return prefix[: max(prefix.rfind(sign) for sign in _SEPARATORS) + 1]


def _rate(names: Sequence[str], panel: Panel | None) -> int:
  known = sum(
    parse_name(name).metal is not None or _is_stain(name) for name in names
  )
  return known + (count_found(panel, names)[0] if panel else 0)


def _is_alone(path: pathlib.Path) -> bool:
  """Whether a TIFF has one channel, or cannot be read."""
  file, member = split_member(path)
  try:
    with open_source(file, member) as opened:
      return tiff.count_channels(opened, path) == 1
  except (ValueError, OSError):
    return True  # Reading it will say what is wrong.


def _read_plane(path: pathlib.Path) -> LoadedImage:
  def select(names: Sequence[str], num_channels: int) -> ChannelSelection:
    if num_channels != 1:
      raise ValueError(f"{path}: found {num_channels} channels, expected one")
    return ChannelSelection((0,), ("",), (), ())

  file, member = split_member(path)
  with open_source(file, member) as opened:
    return tiff.read_tiff(opened, select, path)
