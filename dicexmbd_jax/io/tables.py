"""Reads back the tables that this project writes."""

import pathlib

import pandas as pd


def read_table(path: str | pathlib.Path) -> pd.DataFrame:
  """Reads a CSV file with a header.

  Args:
    path: as `write.write_table` wrote it.

  Returns:
    The table; column types are told by the values.

  Raises:
    ValueError: there is no such file, or it is no table.
  """
  try:
    return pd.read_csv(path)
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{path}: found {error}, expected a CSV table with a header"
    ) from error
