"""Reads back the tables that this project writes."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd


def read_table(
  path: str | pathlib.Path,
  texts: Sequence[str] = (),
  numbers: Sequence[str] = (),
) -> pd.DataFrame:
  """Reads a CSV file with a header.

  Args:
    path: as `write.write_table` wrote it.
    texts: columns that are text whatever they look like, as names are.
    numbers: columns that must be finite numbers, where they are there.

  Returns:
    The table; the other columns' types are told by the values.

  Raises:
    ValueError: there is no such file, it is no table, or one of other values.
  """
  try:
    table = pd.read_csv(
      path,
      dtype=dict.fromkeys(texts, str),
      low_memory=False,  # Not in pieces whose columns are laid together.
      float_precision="round_trip",  # Else one in five is a last bit off.
    )
  except Exception as error:  # Damage makes pandas raise anything.
    text = " ".join(str(error).split())[:200]
    raise ValueError(
      f"{path}: found {text}, expected a CSV table with a header"
    ) from error
  for name in numbers:
    if name in table:
      _check_numbers(table[name], path)
  return table


def _check_numbers(column: pd.Series, path: str | pathlib.Path) -> None:
  values = pd.to_numeric(column, errors="coerce")
  wrong = column[~np.isfinite(values.astype(float))].tolist()
  if wrong or column.dtype.kind not in "iuf":
    found = str(wrong[0] if wrong else column.dtype)[:80]
    raise ValueError(
      f"{path}: found {found!r} in column {column.name}, expected numbers"
    )
