"""Reads back the tables that this project writes."""

import pathlib
from collections.abc import Sequence

import pandas as pd


def read_table(
  path: str | pathlib.Path, texts: Sequence[str] = ()
) -> pd.DataFrame:
  """Reads a CSV file with a header.

  Args:
    path: as `write.write_table` wrote it.
    texts: columns that are text whatever they look like, as names are.

  Returns:
    The table; the other columns' types are told by the values.

  Raises:
    ValueError: there is no such file, or it is no table.
  """
  try:
    return pd.read_csv(path, dtype=dict.fromkeys(texts, str))
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{path}: found {error}, expected a CSV table with a header"
    ) from error
