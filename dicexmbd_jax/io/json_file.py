"""Reads JSON files, damaged ones too."""

import json
import pathlib
from typing import Any


def read_json(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads a file that is one JSON object.

  Args:
    path: the file, UTF-8.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is something else; one line that names it.
  """
  path = pathlib.Path(path)
  try:
    values = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:  # The latter: deep nesting.
    text = " ".join(str(error).split())
    raise ValueError(f"{path}: found {text}, expected JSON") from error
  if not isinstance(values, dict):
    raise ValueError(
      f"{path}: found a {type(values).__name__} in JSON, expected an object"
    )
  return values
