"""Finds the images of a run: files, zip members, acquisitions of .mcd files."""

import collections
import dataclasses
import functools
import glob
import itertools
import os
import pathlib
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator

from absl import logging

from dicexmbd_jax.io import source as source_lib
from dicexmbd_jax.io import tiff
from dicexmbd_jax.types import ImageSource

_TIFF = re.compile(r"(\.ome)?\.(tiff?|btf)$", re.IGNORECASE)
_OME = re.compile(r"\.ome\.(tiff?|btf)$", re.IGNORECASE)
_SUFFIXES = (".tif", ".tiff", ".btf", ".mcd", ".txt", ".zip")
_WANTED = "TIFF, .mcd, Fluidigm .txt or .zip files"
_TXT_HEADER = b"Start_push"
# Any of these marks a folder as the output of an earlier run.
OUTPUT_MARKS = ("run.json", "failures.csv")
# Subfolders that hold results beside the images, here and in steinbock.
_RESULTS = re.compile(r"masks|nuclei|probabilities|overlays|ilastik")

Failure = tuple[pathlib.Path, str]


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


def list_images(
  pattern: str | pathlib.Path,
) -> tuple[list[ImageSource], list[Failure]]:
  """Lists the images that a file, a folder or a glob pattern stands for.

  A folder stands for the images in it or, if it has none, in its subfolders.
  Subfolders of results (with a run.json, or names that begin with masks,
  nuclei, probabilities, overlays or ilastik) are left out, and the log tells;
  hidden files and any .txt without Fluidigm's header silently. Archives stand
  for their members.
  An OME-TIFF that spans several files is one image, named after its first file,
  whichever of them is asked for.
  Every acquisition of an .mcd is one image, named FILE_001 after its id. A
  .txt named after an acquisition of a listed .mcd (FILE_DESCRIPTION_ID.txt) is
  the instrument's copy of it: not an image of its own, but read where the
  .mcd's data are broken. The .txt copies beside an .mcd count even where the
  pattern does not name them.

  Args:
    pattern: a file, a folder, or a pattern with *, ? or **.

  Returns:
    The images in natural order of their stems, and (file, message) of what
    cannot be used: unreadable .mcd and zip files, and images that share a
    stem, of which none is listed.

  Raises:
    ValueError: nothing is there.
  """
  failures: list[Failure] = []
  files = _expand_archives(_find_files(pattern), failures)
  if not files and not failures:
    raise ValueError(f"{pattern}: found no images, expected {_WANTED}")
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
  for file in files:
    if file.suffix != ".mcd" and file.full not in claimed:
      sources.append(ImageSource(file.stem, file.path, file.member))
  sources = drop_duplicates(sources, failures)
  return sorted(sources, key=lambda s: natural_key(s.stem)), failures


def get_stem(path: str | pathlib.Path) -> str:
  """Strips the folder and .ome.tiff, .tiff, .mcd and their like."""
  name = source_lib.spell_name(pathlib.Path(path).name)
  if match := _TIFF.search(name):
    return name[: match.start()]
  suffix = pathlib.Path(name).suffix
  return name[: -len(suffix)] if suffix.lower() in _SUFFIXES else name


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


def _find_files(pattern: str | pathlib.Path) -> list[pathlib.Path]:
  path = pathlib.Path(pattern).expanduser()
  if path.is_file():
    if path.suffix.lower() not in _SUFFIXES:
      raise ValueError(
        f"{path}: found a file of unknown type, expected {_WANTED}"
      )
    return [path]
  if path.is_dir():
    return _scan_folder(path)
  if not glob.has_magic(str(path)):
    raise ValueError(
      f"{path}: found no such file or folder, expected {_WANTED}"
    )
  return _expand_pattern(path)


def _expand_pattern(pattern: pathlib.Path) -> list[pathlib.Path]:
  """Lists files and folders of a glob; of results only those it spells out."""
  files: set[pathlib.Path] = set()
  is_left_out = functools.cache(_is_left_out)  # Told once for each folder.
  num_plain = sum(1 for _ in itertools.takewhile(_is_plain, pattern.parts))
  for found in _match_pattern(pattern):
    folders = [found, *found.parents][: len(found.parts) - num_plain]
    if any(is_left_out(folder) for folder in folders if folder.is_dir()):
      continue
    files.update(_scan_folder(found) if found.is_dir() else _filter([found]))
  return _drop_repeats(files)


def _drop_repeats(files: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Keeps one path to a place that links give several; the shortest."""
  places: dict[pathlib.Path, pathlib.Path] = {}
  for path in sorted(files, key=lambda path: (len(path.parts), path)):
    real = pathlib.Path(os.path.realpath(path.parent))
    places.setdefault(real / path.name, path)
  return sorted(places.values())


def _match_pattern(pattern: pathlib.Path) -> list[pathlib.Path]:
  """Finds what a pattern names; ** enters each folder once, by its first way.

  A link that leads back to a folder above would otherwise have no end.
  """
  parts = pattern.parts
  if "**" not in parts:
    return [pathlib.Path(found) for found in glob.glob(str(pattern))]
  at = parts.index("**")
  rest = parts[at + 1 :] or ("*",)
  found: list[pathlib.Path] = []
  for top in glob.glob(str(pathlib.Path(*parts[:at]))):
    for folder in _walk(pathlib.Path(top)):
      found += _match_pattern(pathlib.Path(glob.escape(str(folder)), *rest))
  return found


def _walk(
  top: pathlib.Path, seen: set[pathlib.Path] | None = None
) -> Iterator[pathlib.Path]:
  """Gives a folder and all in it that are not hidden, each once."""
  seen = set() if seen is None else seen
  if not top.is_dir() or _is_seen(top, seen):
    return
  yield top
  for entry in sorted(top.iterdir()):
    if not entry.name.startswith("."):
      yield from _walk(entry, seen)


def _is_seen(folder: pathlib.Path, seen: set[pathlib.Path]) -> bool:
  """Whether a folder was seen, by whatever way; it is from now on."""
  real = pathlib.Path(os.path.realpath(folder))
  if real in seen:
    return True
  seen.add(real)
  return False


def _is_plain(part: str) -> bool:
  return not glob.has_magic(part)


def _scan_folder(
  folder: pathlib.Path, seen: set[pathlib.Path] | None = None
) -> list[pathlib.Path]:
  """Takes a folder's own images, or else those of its subfolders, each once."""
  seen = set() if seen is None else seen
  if _is_seen(folder, seen):
    return []
  entries = sorted(folder.iterdir())
  if files := _filter(entries):
    return files
  folders = [entry for entry in entries if entry.is_dir()]
  taken = [folder for folder in folders if not _is_left_out(folder)]
  return [file for folder in taken for file in _scan_folder(folder, seen)]


def _is_left_out(folder: pathlib.Path) -> bool:
  """Whether a subfolder is hidden or holds results; the latter is told."""
  if folder.name.startswith("."):
    return True
  if not _holds_results(folder):
    return False
  logging.info("%s: left out, holds results by its name or files", folder)
  return True


def _holds_results(folder: pathlib.Path) -> bool:
  is_output = any((folder / mark).is_file() for mark in OUTPUT_MARKS)
  return is_output or _RESULTS.match(folder.name) is not None


def _filter(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  return [
    path
    for path in paths
    if path.suffix.lower() in _SUFFIXES
    and not path.name.startswith(".")
    and path.is_file()
    and (path.suffix.lower() != ".txt" or _is_acquisition(path))
  ]


def _is_acquisition(path: pathlib.Path) -> bool:
  """Tells Fluidigm's tables from notes that happen to end in .txt."""
  try:
    with path.open("rb") as file:
      return file.read(len(_TXT_HEADER)) == _TXT_HEADER
  except OSError:
    return True  # Reading it will say what is wrong.


def _expand_archives(
  paths: Iterable[pathlib.Path], failures: list[Failure]
) -> list[_File]:
  files: list[_File] = []
  for path in paths:
    if path.suffix.lower() != ".zip":
      files.append(_File(path))
      continue
    try:
      files += _list_members(path)
    except Exception as error:  # Damage makes zipfile fail in any way.
      message = f"found an unreadable archive ({error}), expected a zip file"
      failures.append((path, f"{path}: {message}"))
  return files


def _list_members(path: pathlib.Path) -> list[_File]:
  with zipfile.ZipFile(path) as archive:
    members = [
      info.filename
      for info in archive.infolist()
      if not info.is_dir() and _is_visible(info.filename)
    ]
    files = [
      _File(path, member)
      for member in members
      if not member.lower().endswith(".txt")
      or _is_member_acquisition(archive, member)
    ]
  if not files:
    raise ValueError("no image in it")
  return files


def _is_member_acquisition(archive: zipfile.ZipFile, member: str) -> bool:
  try:
    with archive.open(member) as file:
      return file.read(len(_TXT_HEADER)) == _TXT_HEADER
  except Exception:  # Damage makes zipfile fail in any way.
    return True  # Reading it will say what is wrong.


def _is_visible(member: str) -> bool:
  parts = pathlib.PurePosixPath(member).parts
  hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
  suffix = pathlib.PurePosixPath(member).suffix.lower()
  return not hidden and suffix in _SUFFIXES and suffix != ".zip"


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
      acquisitions = mcd.list_acquisitions(path, file.full)
  except (ValueError, OSError) as error:
    failures.append((file.full, str(error)))
    return []
  copies = _find_copies(file, files)
  sources = []
  for number, description in acquisitions:
    fallbacks = _match_copies(file.stem, number, description, copies - claimed)
    claimed.update(fallbacks)
    stem = f"{file.stem}_{number:03d}"
    sources.append(ImageSource(stem, file.path, file.member, number, fallbacks))
  return sources


def _find_copies(file: _File, files: Iterable[_File]) -> set[pathlib.Path]:
  """Finds the .txt files that may be copies: listed ones, and neighbours."""
  listed = {f.full for f in files if f.suffix == ".txt"}
  if file.member:
    return listed
  return listed | set(_filter(file.path.parent.glob("*.txt")))


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
