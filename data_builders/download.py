"""Fetches a data set of the paper.

python -m data_builders.download --dataset=brca2 --output=DIR

Exit code 0: everything is there, with the right sums where there are published
ones; 1: something could not be fetched, call again; 2: wrong call.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import pooch
import requests
from pooch.downloaders import choose_downloader

# Tries after the first, where a transfer breaks or a sum is wrong.
NUM_RETRIES = 2
CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class RemoteFile:
  """One file to fetch.

  Attributes:
    name: where it goes below the output folder, with forward slashes.
    addresses: tried in turn: web addresses, or doi:DOI/NAME.
    md5: hexadecimal; None where none is published.
  """

  name: str
  addresses: tuple[str, ...]
  md5: str | None = None


def _on_figshare(name: str, number: int) -> RemoteFile:
  # The second address serves where the first only answers browsers.
  return RemoteFile(
    name,
    (
      f"https://ndownloader.figshare.com/files/{number}",
      f"https://api.figshare.com/v2/file/download/{number}",
    ),
  )


def _on_zenodo(name: str, record: int, md5: str) -> RemoteFile:
  return RemoteFile(name, (f"doi:10.5281/zenodo.{record}/{name}",), md5)


def _on_mendeley(name: str, record: str, version: int) -> RemoteFile:
  # The service makes this archive on the fly, and so without a sum.
  address = "https://data.mendeley.com/public-api/zip"
  return RemoteFile(name, (f"{address}/{record}/download/{version}",))


# The published system's own documentation names the figshare file numbers, the
# Zenodo record, the Mendeley data sets and their version, and which of them is
# which data set of the paper; projects that use them name the MD5 sums. Not
# tried, for want of a network: that the services answer today.
DATASETS = {
  "brca1": (
    _on_figshare("train.zip", 28298646),
    _on_figshare("test.zip", 28297719),
  ),
  "brca2": (
    _on_zenodo(
      "OMEandSingleCellMasks.zip", 3518284, "777f8a59da4f4efc2fcd7149565dd191"
    ),
    _on_zenodo(
      "SingleCell_and_Metadata.zip", 3518284, "157756ca703e6cfc73377c60d39dcb19"
    ),
  ),
  "t1d1": (_on_mendeley("cydmwsfztj.zip", "cydmwsfztj", 1),),
  "t1d2": (
    _on_mendeley("part1/9b262xmtm9.zip", "9b262xmtm9", 1),
    _on_mendeley("part2/xbxnfg2zfs.zip", "xbxnfg2zfs", 1),
  ),
  "model": (_on_figshare("dice_xmbd.pth", 28301040),),
}
NOTES = {
  "brca1": "training and test sets as published (two-channel images and "
  "probabilities); the original stacks are in the Image Data Resource, "
  "https://idr.openmicroscopy.org, accession idr0076",
  "model": "the published weights, for import_weights",
}


def main(arguments: Sequence[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m data_builders.download",
    description="Fetches a data set of the paper.",
    allow_abbrev=False,
  )
  parser.add_argument("--dataset", required=True, choices=DATASETS)
  parser.add_argument("--output", required=True, type=pathlib.Path)
  try:
    values = parser.parse_args(arguments)
  except SystemExit as stop:  # --help or a wrong call; argparse has said why.
    return int(stop.code or 0)
  if values.output.exists() and not values.output.is_dir():
    print(f"--output={values.output}: found a file, expected a folder")
    return 2
  if values.dataset in NOTES:
    print(NOTES[values.dataset])
  return fetch_files(DATASETS[values.dataset], values.output)


def fetch_files(files: Sequence[RemoteFile], folder: pathlib.Path) -> int:
  """Fetches every file; one that fails does not keep the others from coming.

  Returns:
    0: all are there; 1: some failed.
  """
  code = 0
  for file in files:
    try:
      print(fetch_file(file, folder), flush=True)
    except requests.ConnectionError:
      # The others would only say the same.
      line = f"cannot reach {file.addresses[-1]}; is there a network?"
      print(f"{file.name}: {line}", file=sys.stderr)
      return 1
    except (OSError, ValueError) as error:
      print(f"{file.name}: {error}", file=sys.stderr)
      code = 1
  return code


def fetch_file(file: RemoteFile, folder: pathlib.Path) -> str:
  """Fetches one file into a folder; one with the right sum is left alone.

  A file has its name only once it is whole and its sum is right.

  Returns:
    One line: its size and sum, and whether the sum is a published one.

  Raises:
    OSError: no answer, or an answer without the file.
    ValueError: a wrong sum.
  """
  pooch.get_logger().setLevel("WARNING")
  for address in file.addresses:
    try:
      path = _fetch_address(address, file, folder)
      break
    except (OSError, ValueError):
      if address == file.addresses[-1]:
        raise
  algorithm = "md5" if file.md5 else "sha256"
  source = "as published" if file.md5 else "no published sum to compare with"
  return (
    f"{file.name}: {path.stat().st_size} bytes, {algorithm} "
    f"{pooch.file_hash(str(path), algorithm)}, {source}"
  )


def _fetch_address(
  address: str, file: RemoteFile, folder: pathlib.Path
) -> pathlib.Path:
  shelf = pooch.create(
    folder,
    base_url="",
    registry={file.name: file.md5 and f"md5:{file.md5}"},
    urls={file.name: address},
    retry_if_failed=NUM_RETRIES,
  )
  downloader = choose_downloader(address, progressbar=sys.stderr.isatty())
  downloader.chunk_size = CHUNK_BYTES
  return pathlib.Path(shelf.fetch(file.name, downloader=downloader))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
