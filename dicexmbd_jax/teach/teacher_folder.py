"""Reads and writes a teacher's folder: teacher.json and forest.npz."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from dicexmbd_jax.io import arrays, write

_SETTINGS, _ARRAYS = "teacher.json", "forest.npz"
_WANTED = "what `teach fit` writes"


def write_teacher(
  folder: str | pathlib.Path,
  settings: Mapping[str, Any],
  values: Mapping[str, np.ndarray],
) -> None:
  """Writes a teacher's folder, the settings last.

  The same teacher gives the same bytes.

  Args:
    folder: made if missing; the two files in it are replaced.
    settings: plain values.
    values: plain arrays, by name; nothing is pickled.

  Raises:
    OSError: a file cannot be written; names it.
  """
  folder = pathlib.Path(folder)
  with (
    write.replace_file(folder / _ARRAYS) as temporary,
    temporary.open("wb") as file,
  ):
    np.savez_compressed(file, **cast(Any, dict(values)))
  write.write_json(folder / _SETTINGS, settings)


def read_teacher(
  folder: str | pathlib.Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Reads a teacher's folder.

  Returns:
    The settings and the arrays by name.

  Raises:
    ValueError: no such folder, or missing or broken files.
  """
  folder = pathlib.Path(folder)
  path = folder / _SETTINGS
  try:
    settings = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
      raise ValueError("no table of settings")
  except (OSError, ValueError) as error:
    raise ValueError(_describe(path, error)) from error
  return settings, arrays.read_arrays(folder / _ARRAYS, _WANTED)


def _describe(path: pathlib.Path, error: Exception) -> str:
  reason = getattr(error, "strerror", None) or " ".join(str(error).split())
  return f"{path}: found {reason}, expected {_WANTED}"
