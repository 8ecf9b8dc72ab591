"""Finds the files that a path, a folder or a pattern stands for."""

import collections
import dataclasses
import glob
import itertools
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from absl import logging

SUFFIXES = (".tif", ".tiff", ".btf", ".mcd", ".txt", ".zip")
WANTED = "TIFF, .mcd, Fluidigm .txt or .zip files"
# Any of these marks a folder as the output of an earlier run.
OUTPUT_MARKS = ("run.json", "failures.csv")
# Subfolders that hold results beside the images, here and in steinbock.
_RESULTS = re.compile(
  r"masks|nuclei|probabilities|uncertainty|overlays|ilastik"
)
# Images and archives of other kinds: told, not read.
_UNREAD = re.compile(
  r"\.(png|jpe?g|bmp|gif|svs|ndpi|scn|qptiff|tf[28]|czi|lif|nd2|vsi|lsm|dcm|nii"
  r"|hdf5|h5|npy|npz|zarr|n5|fcs|imd|tar|gz|tgz|bz2|xz|7z|rar)",
  re.IGNORECASE,
)
START_LENGTH = 256  # Bytes; enough for the first names of a table.
_MARKS = b'\xef\xbb\xbf\xfe\xff"'  # Byte order marks, and a quote.
_HEADER = b"Start_push"
_COPY = re.compile(r".*_\d{1,3}\.txt", re.IGNORECASE)  # FILE_ROI_001_1.txt
_NUM_SHOWN = 5

Failure = tuple[pathlib.Path, str]


def find_files(
  pattern: str | pathlib.Path, known: Collection[str] = ()
) -> tuple[list[pathlib.Path], list[Failure]]:
  """Finds the images and archives that a path or a pattern stands for.

  A folder stands for the files in it or, if it has none, in its subfolders;
  of steinbock's project folder (panel.csv and img/), for those in img. What is
  left out is told in the log: results, subfolders of a folder that has images,
  files of other kinds, .txt files without Fluidigm's header.

  Args:
    pattern: a file, a folder, or a pattern with *, ? or **.
    known: suffixes of files that the caller reads itself; they are not told.

  Returns:
    The files, among them links to nowhere; and folders that cannot be read.

  Raises:
    ValueError: nothing is there.
  """
  path = pathlib.Path(pattern).expanduser()
  found = _Found()
  if _is_zarr(path):
    found.files[path] = None
  elif path.is_dir():
    folder = _walk(path, set())
    if folder.error is not None:
      raise folder.error
    found.add_folder(folder)
  elif path.is_file() or not glob.has_magic(str(path)):
    found.files[_check_file(path)] = None
  else:
    _expand_pattern(path, found)
  if not found.files and not found.failures:
    others = describe_unread(found.unread)
    if found.results:
      others += f" besides results in {_name_some(found.results)}"
    raise ValueError(f"{pattern}: found no images{others}, expected {WANTED}")
  found.tell(known)
  return _drop_repeats(found.files), found.failures


def has_header(start: bytes) -> bool:
  """Tells Fluidigm's tables from notes that happen to end in .txt.

  Args:
    start: the file's first bytes, with any byte order mark, in any encoding.
  """
  return start.lstrip(_MARKS).replace(b"\0", b"").startswith(_HEADER)


def is_acquisition(name: str, start: bytes) -> bool:
  """Whether a .txt file is one of Fluidigm's, be it damaged.

  That is: it has their header; or their name and no text in it, or a table.
  """
  if has_header(start):
    return True
  is_text = bool(start) and not set(start) & set(b"\t\0")
  return not is_text and _COPY.fullmatch(name) is not None


def looks_like_data(path: pathlib.PurePath) -> bool:
  """Whether a file that is not read may be one that should be."""
  suffix = path.suffix.lower()
  return suffix in SUFFIXES or _UNREAD.fullmatch(suffix) is not None


def tell_unread(
  place: pathlib.Path, paths: Collection[pathlib.PurePath]
) -> None:
  """Logs which files of a folder or an archive are not read, if there are."""
  if paths:
    logging.warning(
      "%s: not read: %s; expected %s", place, _name_some(paths), WANTED
    )


def describe_unread(paths: Collection[pathlib.PurePath]) -> str:
  """Names files that are not read, to go behind a message; "" without any."""
  return f" ({_name_some(paths)} are of other kinds)" if paths else ""


def find_txt(folder: pathlib.Path) -> set[pathlib.Path]:
  """Finds Fluidigm's .txt files in a folder, without its subfolders."""
  paths = (path for path in folder.iterdir() if path.is_file())
  return {
    path
    for path in paths
    if path.suffix.lower() == ".txt" and _is_candidate(path)
  }


@dataclasses.dataclass(frozen=True)
class _Folder:
  """What lies in a folder.

  Attributes:
    path: the folder.
    files: images and archives.
    broken: links to nowhere, named as images or archives.
    unread: other files that look like data.
    inner: subfolders, without hidden ones.
    results: subfolders that hold results.
    error: why it cannot be read; None if it can.
  """

  path: pathlib.Path
  files: Sequence[pathlib.Path] = ()
  broken: Sequence[pathlib.Path] = ()
  unread: Sequence[pathlib.Path] = ()
  inner: Sequence["_Folder"] = ()
  results: Sequence[pathlib.Path] = ()
  error: OSError | None = None

  def list_files(self) -> list[pathlib.Path]:
    deeper = (inner.list_files() for inner in self.inner)
    return [*self.files, *self.broken, *itertools.chain(*deeper)]


@dataclasses.dataclass
class _Found:
  """What is taken, and what is to be told; dicts, since they keep order."""

  files: dict[pathlib.Path, None] = dataclasses.field(default_factory=dict)
  failures: list[Failure] = dataclasses.field(default_factory=list)
  unread: dict[pathlib.Path, None] = dataclasses.field(default_factory=dict)
  results: dict[pathlib.Path, None] = dataclasses.field(default_factory=dict)
  # From a file to a folder and the one in it that is not looked into.
  hidden: dict[pathlib.Path, tuple[pathlib.Path, pathlib.Path]] = (
    dataclasses.field(default_factory=dict)
  )

  def add_folder(self, folder: _Folder) -> None:
    """Takes a folder's own images, or else those of its subfolders."""
    if folder.error is not None:
      reason = folder.error.strerror or folder.error
      line = f"{folder.path}: found {reason}, expected a readable folder"
      self.failures.append((folder.path, line))
    self.unread.update(dict.fromkeys(folder.unread))
    self.files.update(dict.fromkeys((*folder.files, *folder.broken)))
    taken = [] if folder.files else _choose_inner(folder)
    for inner in folder.inner:
      if inner in taken:
        self.add_folder(inner)
      else:
        paths = (folder.path, inner.path)
        self.hidden.update(dict.fromkeys(inner.list_files(), paths))
    if not folder.files:
      self.results.update(dict.fromkeys(folder.results))

  def tell(self, known: Collection[str]) -> None:
    """Logs one line for each folder that something is left out of."""
    for folder in self.results:
      logging.info("%s: left out, holds results by its name or files", folder)
    unread = [p for p in self.unread if p.suffix.lower() not in known]
    for folder, paths in _group(unread).items():
      tell_unread(folder, paths)
    hidden = collections.defaultdict(list)
    for path, (folder, below) in self.hidden.items():
      if path not in self.files:
        hidden[folder].append((path, below))
    for folder, pairs in hidden.items():
      own = sum(path.parent == folder for path in self.files)
      inner = sum(folder in path.parents for path in self.files) - own
      read = f"{own} files here" if own else f"{inner} files in img"
      logging.warning(
        "%s: read: %s; not read: %d files in %s%s",
        *(folder, read, len(pairs)),
        _name_some(dict.fromkeys(below for _, below in pairs)),
        f"; {folder / '**'} stands for all" if own else "",
      )


def _drop_repeats(files: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Keeps one path to a place that links give several; the shortest."""
  places: dict[pathlib.Path, pathlib.Path] = {}
  for path in sorted(files, key=lambda path: (len(path.parts), path)):
    real = pathlib.Path(os.path.realpath(path.parent))
    places.setdefault(real / path.name, path)
  return sorted(places.values())


def _check_file(path: pathlib.Path) -> pathlib.Path:
  if not path.is_file():
    raise ValueError(f"{path}: found no such file or folder, expected {WANTED}")
  if path.suffix.lower() not in SUFFIXES:
    raise ValueError(f"{path}: found a file of unknown type, expected {WANTED}")
  return path


def _expand_pattern(pattern: pathlib.Path, found: _Found) -> None:
  """Adds files and folders of a glob; of results only those it spells out."""
  num_plain = sum(1 for _ in itertools.takewhile(_is_plain, pattern.parts))
  for path in match_pattern(pattern):
    folders = [path, *path.parents][: len(path.parts) - num_plain]
    folders = [folder for folder in folders if folder.is_dir()]
    results = list(filter(_holds_results, folders))
    found.results.update(dict.fromkeys(results))
    if results or any(folder.name.startswith(".") for folder in folders):
      continue
    is_folder = path.is_dir() and not _is_zarr(path)
    found.add_folder(
      _walk(path, set()) if is_folder else _sort_out(path.parent, [path])
    )


def match_pattern(pattern: pathlib.Path) -> list[pathlib.Path]:
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
    for folder in _list_folders(pathlib.Path(top), set()):
      found += match_pattern(pathlib.Path(glob.escape(str(folder)), *rest))
  return found


def _list_folders(
  top: pathlib.Path, seen: set[pathlib.Path]
) -> Iterator[pathlib.Path]:
  """Gives a folder and all in it that are not hidden, each once."""
  if not os.path.isdir(top) or _is_seen(top, seen):
    return
  try:
    entries = _list_visible(top)
  except OSError as error:
    logging.warning("%s: not read: %s", top, error.strerror or error)
    return
  yield top
  for entry in entries:
    yield from _list_folders(entry, seen)


def _is_plain(part: str) -> bool:
  return not glob.has_magic(part)


def _walk(path: pathlib.Path, seen: set[pathlib.Path]) -> _Folder:
  """Looks through a folder and its subfolders, but not through results.

  A folder that was seen before, by whatever links, counts as empty.
  """
  if _is_seen(path, seen):
    return _Folder(path)
  try:
    entries = _list_visible(path)
    folder = _sort_out(path, entries)
    known = {*folder.unread, *folder.files}
    inner = [e for e in entries if os.path.isdir(e) and e not in known]
  except OSError as error:
    return _Folder(path, error=error)
  results = list(filter(_holds_results, inner))
  return dataclasses.replace(
    folder,
    inner=[_walk(entry, seen) for entry in inner if entry not in results],
    results=results,
  )


def _list_visible(folder: pathlib.Path) -> list[pathlib.Path]:
  return [e for e in sorted(folder.iterdir()) if not e.name.startswith(".")]


def _is_seen(folder: pathlib.Path, seen: set[pathlib.Path]) -> bool:
  """Whether a folder was seen, by whatever way; it is from now on."""
  real = pathlib.Path(os.path.realpath(folder))
  if real in seen:
    return True
  seen.add(real)
  return False


def _sort_out(path: pathlib.Path, entries: Iterable[pathlib.Path]) -> _Folder:
  """Tells images and archives from other entries of a folder."""
  files: list[pathlib.Path] = []
  broken: list[pathlib.Path] = []
  unread: list[pathlib.Path] = []
  for entry in entries:
    if _is_zarr(entry):
      (files if _is_image_store(entry) else unread).append(entry)
    elif entry.suffix.lower() not in SUFFIXES:
      unread += [entry] if looks_like_data(entry) else []
    elif os.path.isfile(entry):  # Path.is_file raises where it may not look.
      (files if _is_candidate(entry) else unread).append(entry)
    elif not os.path.exists(entry):
      broken.append(entry)
    elif not os.path.isdir(entry):
      unread.append(entry)
  return _Folder(path, files, broken, unread)


def _is_candidate(path: pathlib.Path) -> bool:
  if path.suffix.lower() != ".txt":
    return True
  try:
    with path.open("rb") as file:
      return is_acquisition(path.name, file.read(START_LENGTH))
  except OSError:
    return True  # Reading it will say what is wrong.


def _is_zarr(path: pathlib.Path) -> bool:
  return path.suffix.lower() == ".zarr" and os.path.isdir(path)


def _is_image_store(path: pathlib.Path) -> bool:
  # Only here, so that a run on other files never loads zarr.
  from dicexmbd_jax.io import ome_zarr

  return ome_zarr.is_image(path)


def _holds_results(folder: pathlib.Path) -> bool:
  is_output = any(os.path.isfile(folder / mark) for mark in OUTPUT_MARKS)
  return is_output or _RESULTS.match(folder.name) is not None


def _choose_inner(folder: _Folder) -> Sequence[_Folder]:
  """Takes all subfolders, but of steinbock's project only the images.

  Its raw files are the same images once more.
  """
  images = [
    inner
    for inner in folder.inner
    if inner.path.name == "img" and inner.list_files()
  ]
  is_project = (folder.path / "panel.csv").is_file()
  return images if is_project and images else folder.inner


def _name_some(paths: Iterable[pathlib.PurePath]) -> str:
  names = [path.name for path in paths]
  more = len(names) - _NUM_SHOWN
  return ", ".join(names[:_NUM_SHOWN]) + (
    f" and {more} more" if more > 0 else ""
  )


def _group(
  paths: Iterable[pathlib.Path],
) -> dict[pathlib.Path, list[pathlib.Path]]:
  groups = collections.defaultdict(list)
  for path in paths:
    groups[path.parent].append(path)
  return groups
