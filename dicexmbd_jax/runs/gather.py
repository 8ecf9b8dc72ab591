"""Gathers what the shares of a run have done, from one folder or several.

Shares that work in isolation each leave an output folder of their own. Their
images' files come into one: as links where the file system has them, which
take no place, else as copies.
"""

import collections
import contextlib
import csv
import dataclasses
import functools
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from dicexmbd_jax.io import source, write
from dicexmbd_jax.runs import shards, state
from dicexmbd_jax.runs.failures import FailureLog, describe_source
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path
Told = Mapping[str, tuple[str, ValueError]]  # Stem -> file, error.


@dataclasses.dataclass(frozen=True)
class ShareRecord:
  """What a share told of its last run.

  Attributes:
    path: the file; `shards/3-of-16.json` in the share's output folder.
    values: its content.
  """

  path: Path
  values: Mapping[str, Any]

  @property
  def folder(self) -> Path:
    """The share's output folder."""
    return self.path.parent.parent

  @property
  def shard(self) -> shards.Shard:
    """Which share it is."""
    return shards.parse_shard(self.values["shard"])


def find_folders(paths: Iterable[Path]) -> list[Path]:
  """Returns the output folders of shares: the paths, or folders in them.

  Raises:
    ValueError: a path is none, and holds none.
  """
  found: dict[Path, None] = {}
  for path in paths:
    marks = [*path.glob(shards.FOLDER), *path.glob(f"*/{shards.FOLDER}")]
    if not marks:
      raise ValueError(
        f"{path}: found no shares, expected a folder that --shard wrote into, "
        "or one of such folders"
      )
    found.update(dict.fromkeys(mark.parent for mark in sorted(marks)))
  return list(found)


def read_records(folders: Sequence[Path], hashed: str) -> list[ShareRecord]:
  """Returns the records of one run's shares, that which was run last first.

  Of the run are those of the same settings and number of shares as the last.

  Args:
    folders: the shares' output folders.
    hashed: a name among the hashes that the command's shares have.

  Raises:
    ValueError: there is none, or one is no record of this command's shares.
  """
  paths = [
    path
    for folder in folders
    for path in sorted((folder / shards.FOLDER).glob("*-of-*.json"))
  ]
  if not paths:
    names = ", ".join(str(folder / shards.FOLDER) for folder in folders)
    raise ValueError(f"{names}: found no shares, expected those of --shard")
  records = [_read_record(path) for path in paths]
  for record in records:
    if hashed not in record.values["hashes"]:
      raise ValueError(
        f"{record.path}: found a share of another command "
        f"({record.values['command'][:60]}), expected this one's"
      )
  records.sort(key=lambda record: -record.values["written_unix_s"])
  return [record for record in records if _is_same_run(record, records[0])]


def _read_record(path: Path) -> ShareRecord:
  try:
    return ShareRecord(path, state.read_sealed(path))
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{path}: found no record of a share, or a damaged one, expected one as "
      "--shard wrote it; run this share again"
    ) from error


def _is_same_run(record: ShareRecord, newest: ShareRecord) -> bool:
  is_same = record.values["hashes"] == newest.values["hashes"]
  return is_same and record.shard.count == newest.shard.count


def gather_images(
  output: Path,
  sources: Sequence[ImageSource],
  records: Sequence[ShareRecord],
  suffixes: Mapping[str, str],
  failures: FailureLog,
) -> tuple[list[str], list[str]]:
  """Brings the images' files into the output folder.

  An image that is not done and whose share told a failure has failed; else it
  is missing, which is a failure as well. Both are added to `failures`. What an
  earlier merge left in the output folder counts if it was made of the same
  image as what the image's share has, or if that says nothing of it.

  Args:
    output: the folder that gets the files; may be the shares' own.
    sources: all images of the run.
    records: of the shares, the newest first.
    suffixes: kind, which is a folder's name -> suffix of the images' files.
    failures: gets those that are not done.

  Returns:
    The stems of the images that are done, and of those missing.

  Raises:
    ValueError: a damaged table.
    OSError: a file cannot be written; names it.
  """
  newest = records[0]
  told = _read_failures(records)
  shares = shards.assign_shares(sources, newest.shard.count)
  folders = _index_states(record.folder for record in records)
  owned = {(record.shard.index, record.folder) for record in records}
  done, missing = [], []
  for image in sources:
    stem, index = image.stem, shares[image.stem]
    own = [place for place in folders[stem] if (index, place) in owned]
    if stem in told and not own:
      # All else was made before the image failed.
      files = [_locate(output, stem, suffixes, kind) for kind in suffixes]
      state.discard(output, stem, files)
      failures.add(stem, *told[stem])
      continue
    places = [output, *own, *folders[stem]]
    hashes = newest.values["hashes"]
    reason = _gather_current(image, places, own, hashes, suffixes)
    if reason is None:
      done.append(stem)
      continue
    if stem not in told:
      missing.append(stem)
    wanted = f"expected one of this run; run --shard={index}/"
    error = ValueError(f"{reason}, {wanted}{newest.shard.count} again")
    file, error = told.get(stem, (describe_source(image), error))
    failures.add(stem, file, error)
  return done, missing


def tell_missing(
  sources: Sequence[ImageSource], missing: Sequence[str], newest: ShareRecord
) -> None:
  """Logs which shares are to be run again, if any."""
  if missing:
    count = newest.shard.count
    shares = shards.assign_shares(sources, count)
    lost = sorted({shares[stem] for stem in missing})
    calls = ", ".join(f"--shard={index}/{count}" for index in lost)
    logging.error("%d images are missing; run again: %s", len(missing), calls)


def describe_shares(records: Iterable[ShareRecord]) -> list[dict[str, Any]]:
  """Returns what the record of the whole run tells of its shares."""
  names = ("shard", "state", "finished", "num_images")
  return [
    {"folder": str(record.folder), **{n: record.values[n] for n in names}}
    for record in sorted(records, key=lambda one: (one.shard.index, one.path))
  ]


def _read_failures(records: Iterable[ShareRecord]) -> Told:
  """Returns file and error of the images that shares told as failed."""
  told: dict[str, tuple[str, ValueError]] = {}
  for record in records:
    path = record.path.with_suffix(".failures.csv")
    if not path.is_file():  # Running, or killed.
      continue
    try:
      with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
          error = ValueError(row["error"])
          told.setdefault(row["image"], (row["file"], error))
    except (ValueError, KeyError, csv.Error) as error:
      raise ValueError(
        f"{path}: found a damaged table ({error}), expected the failures of a "
        f"share; run --shard={record.shard} again"
      ) from error
  return told


def _index_states(folders: Iterable[Path]) -> Mapping[str, list[Path]]:
  """Returns the folders that have a state of an image, by the image's stem."""
  found = collections.defaultdict(list)
  for folder in dict.fromkeys(folders):
    for path in (folder / "state").glob("[!.]*.json"):
      found[path.stem].append(folder)
  return found


def _gather_current(
  image: ImageSource,
  places: Sequence[Path],
  own: Sequence[Path],
  hashes: Mapping[str, str],
  suffixes: Mapping[str, str],
) -> str | None:
  """Brings the files of an image as it is now; says why that cannot be.

  None if they are there. One that changed since its share was run may have
  kept its size, and so its share: its content tells, which is read only where
  the image is newer than a result, since a study may be terabytes.
  """
  try:
    if _is_older(places, image.stem, source.find_last_change(image)):
      key: Mapping[str, str] = {
        **hashes,
        "image": source.hash_source(image),
      }
    else:
      key = _find_key(image.stem, own, hashes)
  except (ValueError, OSError) as error:
    return f"found an unreadable image ({error})"
  return _gather_image(image.stem, places, key, suffixes)


def _is_older(places: Iterable[Path], stem: str, changed_ns: int) -> bool:
  """Whether a result in one of these places was there before a change."""
  found = (state.locate(place, stem) for place in places)
  return any(
    path.stat().st_mtime_ns <= changed_ns for path in found if path.exists()
  )


def _find_key(
  stem: str, places: Iterable[Path], hashes: Mapping[str, str]
) -> Mapping[str, str]:
  """Returns the key of the first result of the run; `hashes` without one.

  Besides `hashes` it has that of the image, which the shares alone have read:
  what another share has may be of the image as it was.
  """
  for place in places:
    with contextlib.suppress(OSError, ValueError):  # Is told with its files.
      key = state.read(place, stem)["key"]
      if hashes.items() <= key.items():
        return key
  return hashes


def _gather_image(
  stem: str,
  places: Sequence[Path],
  key: Mapping[str, str],
  suffixes: Mapping[str, str],
) -> str | None:
  """Brings an image's files into the first place; says why that cannot be.

  None if they are there.
  """
  reasons = []
  for place in dict.fromkeys(places):
    locate = functools.partial(_locate, place, stem, suffixes)
    reason = state.find_fault(place, stem, key, locate)
    if reason is None:
      if place != places[0]:
        _link_image(place, places[0], stem, suffixes)
      return None
    reasons.append(reason)
  return reasons[-1]


def _locate(
  folder: Path, stem: str, suffixes: Mapping[str, str], kind: str
) -> Path:
  return folder / kind / f"{stem}{suffixes[kind]}"


def _link_image(
  folder: Path, output: Path, stem: str, suffixes: Mapping[str, str]
) -> None:
  """Links the files that an image's state tells of, the state last.

  Files of other kinds, which an earlier merge left, go.
  """
  state.forget(output, stem)
  files = state.read(folder, stem)["files"]
  for kind in suffixes:
    path, target = (
      _locate(one, stem, suffixes, kind) for one in (folder, output)
    )
    if kind in files:
      link_file(path, target)
    else:
      target.unlink(missing_ok=True)
  link_file(*(state.locate(one, stem) for one in (folder, output)))


def link_file(path: Path, target: Path) -> None:
  """Gives a file a second name; where the system refuses, copies it.

  Raises:
    OSError: the file cannot be written; names it.
  """
  with write.replace_file(target) as temporary:
    with contextlib.suppress(OSError):  # Another file system, or none of links.
      os.link(path.resolve(), temporary)
      return
    shutil.copyfile(path, temporary)
