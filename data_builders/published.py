"""Where the paper's images, teacher maps and model are published.

Sure, since the published system's own documentation names them: the figshare
file numbers, the Zenodo record, the Mendeley data sets and their version, and
which of them is which data set of the paper. Sure, since projects that use
them name the same: the two files of the Zenodo record and their MD5. Not tried
from here, for want of a network: that the services answer today, and that the
figshare project's list can be read without an account. BRCA1's original stacks
(IDR, idr0076) have no single address; `note` says where they are.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

# The answer of a service to one address: JSON as Python values.
ReadJson = Callable[[str], Any]

FIGSHARE = "https://ndownloader.figshare.com"
FIGSHARE_API = "https://api.figshare.com/v2"
FIGSHARE_PROJECT = 115347
ZENODO = "https://zenodo.org"
MENDELEY = "https://data.mendeley.com/public-api"


@dataclasses.dataclass(frozen=True)
class RemoteFile:
  """One file to fetch.

  Attributes:
    name: where it goes below the output folder, with forward slashes.
    addresses: tried in turn.
    md5, sha256: hexadecimal, None where none is published.
  """

  name: str
  addresses: tuple[str, ...]
  md5: str | None = None
  sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set of the paper.

  Attributes:
    files: what it consists of, as far as known beforehand.
    list_files: asks its service for the files and their sums; may raise OSError
      or, for an answer of an unknown form, KeyError, TypeError or ValueError.
    note: one line for the user, or "".
  """

  files: tuple[RemoteFile, ...]
  list_files: Callable[[ReadJson], tuple[RemoteFile, ...]]
  note: str = ""


def get_datasets() -> dict[str, Dataset]:
  """Returns every data set by the paper's name, in lower case."""
  return {
    "brca1": _make_figshare(
      {28298646: "train.zip", 28297719: "test.zip"},
      "training and test sets as published (two-channel images and "
      "probabilities); the original stacks are in the Image Data Resource, "
      "https://idr.openmicroscopy.org, accession idr0076",
    ),
    "brca2": _make_zenodo(
      3518284,
      {
        "OMEandSingleCellMasks.zip": "777f8a59da4f4efc2fcd7149565dd191",
        "SingleCell_and_Metadata.zip": "157756ca703e6cfc73377c60d39dcb19",
      },
    ),
    "t1d1": _make_mendeley({"": ("cydmwsfztj", 1)}),
    "t1d2": _make_mendeley(
      {"part1/": ("9b262xmtm9", 1), "part2/": ("xbxnfg2zfs", 1)}
    ),
    "model": _make_figshare(
      {28301040: "dice_xmbd.pth"}, "the published weights, for import_weights"
    ),
  }


def _make_figshare(names: dict[int, str], note: str) -> Dataset:
  # The second address serves where the first only answers browsers.
  files = {
    number: RemoteFile(
      name,
      (
        f"{FIGSHARE}/files/{number}",
        f"{FIGSHARE_API}/file/download/{number}",
      ),
    )
    for number, name in names.items()
  }

  def list_files(read_json: ReadJson) -> tuple[RemoteFile, ...]:
    articles = read_json(
      f"{FIGSHARE_API}/projects/{FIGSHARE_PROJECT}/articles?page_size=100"
    )
    sums = {
      entry["id"]: entry["computed_md5"] or None
      for article in articles
      for entry in read_json(f"{FIGSHARE_API}/articles/{article['id']}/files")
    }
    return tuple(
      dataclasses.replace(file, md5=sums.get(number))
      for number, file in files.items()
    )

  return Dataset(tuple(files.values()), list_files, note)


def _make_zenodo(record: int, sums: dict[str, str]) -> Dataset:
  files = tuple(
    RemoteFile(name, (f"{ZENODO}/record/{record}/files/{name}",), md5=md5)
    for name, md5 in sums.items()
  )

  def list_files(read_json: ReadJson) -> tuple[RemoteFile, ...]:
    entries = read_json(f"{ZENODO}/api/records/{record}")["files"]
    return tuple(
      RemoteFile(
        check_name(entry["key"]),
        (entry["links"]["self"],),
        **{entry["checksum"].split(":")[0]: entry["checksum"].split(":")[1]},
      )
      for entry in entries
    )

  return Dataset(files, list_files)


def _make_mendeley(parts: dict[str, tuple[str, int]]) -> Dataset:
  # One archive per part, made by the service on the fly and so without a sum.
  files = tuple(
    RemoteFile(
      f"{prefix}{record}.zip", (f"{MENDELEY}/zip/{record}/download/{version}",)
    )
    for prefix, (record, version) in parts.items()
  )

  def list_files(read_json: ReadJson) -> tuple[RemoteFile, ...]:
    return tuple(
      file
      for prefix, (record, version) in parts.items()
      for file in _list_mendeley(read_json, prefix, record, version)
    )

  return Dataset(files, list_files)


def _list_mendeley(
  read_json: ReadJson, prefix: str, record: str, version: int
) -> list[RemoteFile]:
  root = f"{MENDELEY}/datasets/{record}"
  folders = {f["id"]: f for f in read_json(f"{root}/folders/{version}")}
  found = []
  for identity in ["root", *folders]:
    path = prefix + _join_folders(folders, identity)
    entries = read_json(f"{root}/files?folder_id={identity}&version={version}")
    for entry in entries:
      content = entry["content_details"]
      found.append(
        RemoteFile(
          check_name(path + entry["filename"]),
          (content["download_url"],),
          sha256=content["sha256_hash"],
        )
      )
  if not found:
    raise ValueError(f"{root}: lists no files")
  return found


def _join_folders(folders: dict[str, Any], identity: str | None) -> str:
  path = ""
  for _ in folders:  # No deeper than there are folders, whatever the answer.
    if identity not in folders:
      break
    path = f"{folders[identity]['name']}/{path}"
    identity = folders[identity].get("parent_id")
  return path


def check_name(name: str) -> str:
  """Returns a file name that a service sent, if it stays in its folder.

  Raises:
    ValueError: it is absolute, or climbs out with "..".
  """
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or ".." in path.parts or "\\" in name or not path.name:
    raise ValueError(f"file name {name!r} leaves its folder")
  return name
