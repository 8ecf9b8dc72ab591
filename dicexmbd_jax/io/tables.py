"""Reads back the tables that this project writes."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
import orjson
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
    data = pathlib.Path(path).read_bytes()
    table = None if texts else _read_numbers(data)
    if table is None:
      table = pd.read_csv(
        io.BytesIO(data),
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


def _read_numbers(data: bytes) -> pd.DataFrame | None:
  """Reads a table of numbers and truths without gaps, faster than pandas.

  Returns:
    The table, as pandas has it; None if it has no rows, or holds anything else.
  """
  header, _, body = data.partition(b"\n")
  if b'"' in header or body.translate(None, b"0123456789.-e,TrueFals\n"):
    return None
  for text, word in ((b"True", b"true"), (b"False", b"false")):
    body = body.replace(text, word)
  body = body.rstrip(b"\n").replace(b"\n", b"],[")
  names = header.decode().split(",")
  try:
    rows = orjson.loads(b"[[" + body + b"]]")
    values = [np.array(column) for column in zip(*rows, strict=True)]
  except (ValueError, OverflowError):
    return None
  # Whole numbers beyond 64 bits would have become floats.
  is_plain = all(
    one.dtype.kind in "ib"
    or (one.dtype.kind == "f" and (np.abs(one) < 1e18).all())
    for one in values
  )
  if not is_plain or len({*names}) < len(values) or len(names) != len(values):
    return None
  return pd.DataFrame(dict(zip(names, values, strict=True)))


def _check_numbers(column: pd.Series, path: str | pathlib.Path) -> None:
  values = pd.to_numeric(column, errors="coerce")
  wrong = column[~np.isfinite(values.astype(float))].tolist()
  if wrong or column.dtype.kind not in "iuf":
    found = str(wrong[0] if wrong else column.dtype)[:80]
    raise ValueError(
      f"{path}: found {found!r} in column {column.name}, expected numbers"
    )
