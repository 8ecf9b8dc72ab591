"""Finds the images of a run: files, zip members, acquisitions of .mcd files."""

import collections
import dataclasses
import functools
import pathlib
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Sequence

from absl import logging

from dicexmbd_jax.io import folders, planes, tiff
from dicexmbd_jax.io import source as source_lib
from dicexmbd_jax.io.folders import Failure
from dicexmbd_jax.types import ImageSource, Panel

_TIFF = re.compile(r"(\.ome)?\.(tiff?|btf)$", re.IGNORECASE)
_ZARR = re.compile(r"(\.ome)?\.zarr(\.zip)?$", re.IGNORECASE)
_OME = re.compile(r"\.ome\.(tiff?|btf)$", re.IGNORECASE)

_FindGroups = Callable[
  [Sequence[tuple[str, pathlib.Path]]], Iterable[planes.Group]
]


@dataclasses.dataclass(frozen=True)
class _File:
  """A candidate: a file on disk or in an archive."""

  path: pathlib.Path
  member: str | None = None

  @property
  def full(self) -> pathlib.Path:
    return self.path / self.member if self.member else self.path

  @property
  def suffix(self) -> str:
    return self.full.suffix.lower()

  @property
  def stem(self) -> str:
    return get_stem(self.full)

  def find_beside(self, name: str) -> "_File":
    if self.member is None:
      return _File(self.path.with_name(name))
    member = pathlib.PurePosixPath(self.member).with_name(name)
    return _File(self.path, member.as_posix())


def list_stacks(
  pattern: str | pathlib.Path, panel: Panel | None
) -> tuple[list[ImageSource], list[Failure]]:
  """Lists images as list_images does, joining those of one file per channel.

  Such an image is named after its folder; without a panel it is a failure.

  Args:
    pattern: a file, a folder, or a pattern with *, ? or **.
    panel: what the channels are; None where none was given.

  Raises:
    ValueError: nothing is there.
  """
  find = functools.partial(planes.find_groups, panel=panel)
  sources, failures = _list_sources(pattern, (), find)
  if panel is not None:
    return sources, failures
  refused = [source for source in sources if source.planes]
  failures += [
    (source.planes[0][1].parent, planes.describe_refusal(source.planes))
    for source in refused
  ]
  return [source for source in sources if not source.planes], failures


def list_images(
  pattern: str | pathlib.Path,
  known: Collection[str] = (),
) -> tuple[list[ImageSource], list[Failure]]:
  """Lists the images that a file, a folder or a glob pattern stands for.

  A folder stands for the images in it or, if it has none, in its subfolders, as
  `folders.find_files` tells. Archives stand for their members.
  An OME-TIFF that spans several files is one image, named after its first file,
  whichever of them is asked for.
  Every acquisition of an .mcd is one image, named FILE_001 after its id. A
  .txt named after an acquisition of a listed .mcd (FILE_DESCRIPTION_ID.txt) is
  the instrument's copy of it: not an image of its own, but read where the
  .mcd's data are broken. The .txt copies beside an .mcd count even where the
  pattern does not name them.

  Args:
    pattern: a file, a folder, or a pattern with *, ? or **.
    known: suffixes of files that the caller lists itself; they are not told.

  Returns:
    The images in natural order of their stems, and (file, message) of what
    cannot be used: unreadable .mcd and zip files, and images that share a
    stem, of which none is listed.

  Raises:
    ValueError: nothing is there.
  """
  return _list_sources(pattern, known, lambda files: [])


def _list_sources(
  pattern: str | pathlib.Path,
  known: Collection[str],
  find_groups: _FindGroups,
) -> tuple[list[ImageSource], list[Failure]]:
  if "://" in str(pattern):
    from dicexmbd_jax.io import ome_zarr

    failures: list[Failure] = []
    found = ome_zarr.list_remote(str(pattern))
    remote = [ImageSource(get_stem(path), path) for path in found]
    return drop_duplicates(remote, failures), failures
  paths, failures = folders.find_files(pattern, known)
  files = _expand_archives(paths, failures)
  sources: list[ImageSource] = []
  claimed: set[pathlib.Path] = set()
  # Longest names first: S1_b_ROI_1.txt belongs to S1_b.mcd, not to S1.mcd.
  mcds = sorted((f for f in files if f.suffix == ".mcd"), key=_by_length)
  for file in mcds:
    sources += _list_mcd(file, files, claimed, failures)
  for first, *others in _join_parts(files, claimed):
    parts = tuple(file.full for file in others)
    claimed.update((first.full, *parts))
    sources.append(
      ImageSource(first.stem, first.path, first.member, parts=parts)
    )
  joined = _join_planes(files, claimed, find_groups)
  claimed.update(path for one in joined for _, path in one.planes)
  sources += joined
  for file in files:
    if file.suffix != ".mcd" and file.full not in claimed:
      sources.append(ImageSource(file.stem, file.path, file.member))
  sources = drop_duplicates(sources, failures)
  return sorted(sources, key=lambda s: natural_key(s.stem)), failures


def get_stem(path: str | pathlib.Path) -> str:
  """Strips the folder and .ome.tiff, .tiff, .mcd and their like."""
  name = source_lib.spell_name(pathlib.Path(path).name)
  if match := _TIFF.search(name) or _ZARR.search(name):
    return name[: match.start()]
  suffix = pathlib.Path(name).suffix
  return name[: -len(suffix)] if suffix.lower() in folders.SUFFIXES else name


def natural_key(text: str) -> list[tuple[bool, int, str, str]]:
  """Orders ROI2 before ROI10."""
  key = []
  for part in re.findall(r"[0-9]+|[^0-9]+", text):
    # By length and digits: Python makes no number of thousands of digits.
    digits = part.lstrip("0") if part[0] in "0123456789" else ""
    key.append((part[0] not in "0123456789", len(digits), digits, part))
  return key


def _by_length(file: _File) -> tuple[int, str]:
  return -len(file.stem), str(file.full)


def _expand_archives(
  paths: Iterable[pathlib.Path], failures: list[Failure]
) -> list[_File]:
  files: list[_File] = []
  for path in paths:
    if path.suffix.lower() != ".zip" or source_lib.is_store(path):
      files.append(_File(path))
      continue
    try:
      files += _list_members(path, failures)
    except Exception as error:  # Damage makes zipfile fail in any way.
      text = str(error)[:200]
      message = f"found an unreadable archive ({text}), expected a zip file"
      failures.append((path, f"{path}: {message}"))
  return files


def _list_members(path: pathlib.Path, failures: list[Failure]) -> list[_File]:
  files: list[_File] = []
  unread: list[pathlib.PurePosixPath] = []
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      if "\0" in info.orig_filename:  # What follows would be cut off.
        raise ValueError(f"the name {info.orig_filename[:80]!r}")
      member = pathlib.PurePosixPath(info.filename)
      if info.is_dir():
        continue
      if _has_two_names(archive, info):
        full = path / info.filename
        line = f"{full}: found another name in its header, expected one name"
        failures.append((full, line))
      elif _is_hidden(member):
        continue
      elif _is_image(archive, member):
        files.append(_File(path, info.filename))
      elif folders.looks_like_data(member):
        unread.append(member)
  if not files:
    raise ValueError(f"no image in it{folders.describe_unread(unread)}")
  folders.tell_unread(path, unread)
  return files


def _has_two_names(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
  """Whether the archive's table names a member otherwise than its header.

  A damaged name may be that of no image, which would be left out.
  """
  try:
    archive.open(info).close()
  except zipfile.BadZipFile as error:
    return "differ" in str(error)
  except Exception:  # Damage makes zipfile fail in any way.
    pass  # Reading it will say what is wrong, if it is an image.
  return False


def _is_hidden(member: pathlib.PurePosixPath) -> bool:
  return any(part.startswith((".", "__MACOSX")) for part in member.parts)


def _is_image(archive: zipfile.ZipFile, member: pathlib.PurePosixPath) -> bool:
  suffix = member.suffix.lower()
  if suffix == ".txt":
    try:
      with archive.open(str(member)) as file:
        start = file.read(folders.START_LENGTH)
    except Exception:  # Damage makes zipfile fail in any way.
      return True  # Reading it will say what is wrong.
    return folders.is_acquisition(member.name, start)
  return suffix in folders.SUFFIXES and suffix != ".zip"


def _list_mcd(
  file: _File,
  files: Iterable[_File],
  claimed: set[pathlib.Path],
  failures: list[Failure],
) -> list[ImageSource]:
  """Lists the acquisitions of one .mcd and claims their .txt copies."""
  # Only here, so that a run on TIFFs never loads readimc.
  from dicexmbd_jax.io import mcd

  try:
    with source_lib.open_source(file.path, file.member) as path:
      acquisitions, lost = mcd.list_acquisitions(path, file.full)
  except (ValueError, OSError) as error:
    failures.append((file.full, str(error)))
    return []
  failures += [(file.full, line) for line in lost]
  copies = _find_copies(file, files)
  sources = []
  for number, description, num_bytes in acquisitions:
    fallbacks = _match_copies(file.stem, number, description, copies - claimed)
    claimed.update(fallbacks)
    stem = f"{file.stem}_{number:03d}"
    sources.append(
      ImageSource(
        *(stem, file.path, file.member, number, fallbacks),
        num_bytes=num_bytes,
      )
    )
  return sources


def _find_copies(file: _File, files: Iterable[_File]) -> set[pathlib.Path]:
  """Finds the .txt files that may be copies: listed ones, and neighbours."""
  listed = {f.full for f in files if f.suffix == ".txt" and f.path.is_file()}
  if file.member:
    return listed
  return listed | folders.find_txt(file.path.parent)


def _match_copies(
  stem: str, number: int, description: str, copies: Iterable[pathlib.Path]
) -> tuple[pathlib.Path, ...]:
  exact = f"{stem}_{description}_{number}.txt"
  loose = re.compile(rf"{re.escape(stem)}_.*_0*{number}\.txt", re.IGNORECASE)
  copies = sorted(copies)
  if found := [path for path in copies if path.name == exact]:
    return tuple(found)
  found = [path for path in copies if loose.fullmatch(path.name)]
  return tuple(found) if len(found) == 1 else ()


def _join_parts(
  files: Iterable[_File], claimed: Collection[pathlib.Path]
) -> list[list[_File]]:
  """Finds the OME-TIFFs of several files; each as its files, in order."""
  found: list[list[_File]] = []
  seen = set(claimed)
  for file in files:
    if file.full not in seen and (parts := _list_parts(file)):
      found.append(parts)
      seen.update(part.full for part in parts)
  return found


def _list_parts(file: _File) -> list[_File]:
  # In an archive by its name only: to look at a member is to unpack it.
  is_asked = _TIFF if file.member is None else _OME
  if not is_asked.search(file.full.name):
    return []
  try:
    with source_lib.open_source(file.path, file.member) as path:
      find = source_lib.find_siblings(file.path, file.member)
      names = tiff.list_parts(path, file.full, find)
  except (ValueError, OSError):
    return []  # Reading it will say what is wrong.
  return [file.find_beside(name) for name in names]


def _join_planes(
  files: Iterable[_File], claimed: Collection[pathlib.Path], find: _FindGroups
) -> list[ImageSource]:
  """Makes an image of each group of files of one channel, and tells of them."""
  alone = [
    (file.stem, file.full)
    for file in files
    if _TIFF.search(file.full.name) and file.full not in claimed
  ]
  joined = []
  for group in find(sorted(alone, key=lambda one: natural_key(one[0]))):
    stem = planes.name_image(group)
    path, member = source_lib.split_member(group.planes[0][1])
    joined.append(ImageSource(stem, path, member, planes=group.planes))
  if joined:
    logging.info(
      "%d images have one file per channel, as %s has %d",
      *(len(joined), joined[0].stem, len(joined[0].planes)),
    )
  return joined


def drop_duplicates(
  sources: Iterable[ImageSource], failures: list[Failure]
) -> list[ImageSource]:
  """Leaves out all images that share a stem: neither has the better claim."""
  groups = collections.defaultdict(list)
  for source in sources:
    groups[source.stem].append(source)
  for group in groups.values():
    if len(group) > 1:
      failures += [(_locate(source), _blame(source, group)) for source in group]
  return [group[0] for group in groups.values() if len(group) == 1]


def _locate(source: ImageSource) -> pathlib.Path:
  return source.path / source.member if source.member else source.path


def _blame(source: ImageSource, group: Iterable[ImageSource]) -> str:
  others = [str(_locate(other)) for other in group if other is not source]
  return (
    f"{_locate(source)}: found another image named {source.stem} in "
    f"{', '.join(others)}; expected one file per name"
  )
