"""Fetches a data set of the paper.

python -m data_builders.download --dataset=brca2 --output=DIR

Exit code 0: everything is there, with the right sums where there are published
ones; 1: something could not be fetched, call again to go on; 2: wrong call.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from data_builders import fetch, published


def main(arguments: Sequence[str]) -> int:
  """Runs the command; returns its exit code."""
  datasets = published.get_datasets()
  parser = argparse.ArgumentParser(
    prog="python -m data_builders.download",
    description="Fetches a data set of the paper; call again to go on.",
    allow_abbrev=False,
  )
  parser.add_argument("--dataset", required=True, choices=datasets)
  parser.add_argument("--output", required=True, type=pathlib.Path)
  try:
    values = parser.parse_args(arguments)
  except SystemExit as stop:  # --help or a wrong call; argparse has said why.
    return int(stop.code or 0)
  if values.output.exists() and not values.output.is_dir():
    print(f"--output={values.output}: found a file, expected a folder")
    return 2
  return download_dataset(datasets[values.dataset], values.output)


def download_dataset(dataset: published.Dataset, folder: pathlib.Path) -> int:
  """Fetches every file; one that fails does not keep the others from coming.

  Returns:
    0: all are there; 1: some failed.
  """
  if dataset.note:
    print(dataset.note)
  code = 0
  for file in list_files(dataset):
    try:
      print(fetch.fetch_file(file, folder), flush=True)
    except fetch.UnreachableError as error:
      print(error, file=sys.stderr)
      return 1  # The others would only say the same.
    except OSError as error:
      print(error, file=sys.stderr)
      code = 1
  return code


def list_files(dataset: published.Dataset) -> Sequence[published.RemoteFile]:
  """Returns the files, with the sums that their service tells at this moment.

  Where it does not, the files are those known beforehand.
  """
  try:
    return dataset.list_files(fetch.read_json)
  except fetch.UnreachableError:
    return dataset.files  # The first file will say so.
  except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
    print(f"the list of files could not be read ({error})", file=sys.stderr)
    return dataset.files


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
