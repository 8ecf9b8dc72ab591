"""What went wrong with which image: told at once, and kept for a table."""

import csv
import io
import os
import pathlib

from absl import logging

from dicexmbd_jax.io import write
from dicexmbd_jax.runs import pool
from dicexmbd_jax.types import ImageSource

NAME = "failures.csv"


class FailureLog:
  """The images that failed; one line each, the others go on."""

  def __init__(self):
    self.rows: list[tuple[str, str, str]] = []  # image, file, error

  def add(self, image: str, file: str | os.PathLike, error: Exception):
    """Logs one line that names the file, and keeps it.

    Args:
      image: the image's stem; "" where the file could not even be listed.
      file: the input file.
      error: as raised; the environment's DICEXMBD_VERBOSE=1 shows where.
    """
    line = pool.describe_error(error, file)
    logging.error("%s", line)
    logging.debug("where it came from:", exc_info=error)
    self.rows.append((image, str(file), line))

  def write(self, folder: pathlib.Path):
    """Writes failures.csv: image, file, error; no rows if all went well."""
    self.write_file(folder / NAME)

  def write_file(self, path: pathlib.Path):
    """Writes the same under another name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "file", "error"))
    writer.writerows(self.rows)
    write.write_text(path, text.getvalue())

  def describe(self) -> str:
    """Returns how many failed, to go behind what was done; "" if none did."""
    return f", {len(self)} failed, see {NAME}" if self.rows else ""

  def __len__(self) -> int:
    return len(self.rows)


def refuse_call(error: Exception, output: str | os.PathLike) -> int:
  """Logs why a call cannot be done, in one line; returns the exit code 2.

  Args:
    error: a ValueError, which says it all, or an OSError.
    output: the output folder, named where the OSError names no file.
  """
  is_whole = isinstance(error, ValueError)
  logging.error("%s", error if is_whole else pool.describe_error(error, output))
  return 2


def describe_source(image: ImageSource) -> str:
  """Returns the file, and what is meant inside it, for messages."""
  parts = [str(image.path / (image.member or ""))]
  if image.acquisition is not None:
    parts.append(f"acquisition {image.acquisition}")
  return ", ".join(parts)
