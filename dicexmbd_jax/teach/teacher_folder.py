"""A teacher's folder: its settings in teacher.json, its trees in forest.npz."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from dicexmbd_jax.io import arrays, json_file, write
from dicexmbd_jax.teach import features
from dicexmbd_jax.teach.forest import CLASSES, Forest
from dicexmbd_jax.teach.teacher import CHANNELS, SCHEMA_VERSION, Teacher, View

SETTINGS_FILE, FOREST_FILE = "teacher.json", "forest.npz"
_WANTED = "what `teach fit` writes"
_ARRAYS = ("roots", "columns", "thresholds", "children", "leaves")


def write_teacher(folder: str | pathlib.Path, teacher: Teacher) -> None:
  """Writes a teacher's folder, the settings last.

  The same teacher gives the same bytes; nothing is pickled.

  Args:
    folder: made if missing; the two files in it are replaced.
    teacher: the teacher.

  Raises:
    OSError: a file cannot be written; names it.
  """
  folder = pathlib.Path(folder)
  settings, values = pack_teacher(teacher)
  with (
    write.replace_file(folder / FOREST_FILE) as temporary,
    temporary.open("wb") as file,
  ):
    np.savez_compressed(file, **cast(Any, values))
  write.write_json(folder / SETTINGS_FILE, settings)


def read_teacher(folder: str | pathlib.Path) -> Teacher:
  """Reads a teacher's folder.

  Raises:
    ValueError: missing, broken or of another version; names the folder.
  """
  folder = pathlib.Path(folder)
  path = folder / SETTINGS_FILE
  try:
    settings = json_file.read_json(path)
  except OSError as error:
    reason = error.strerror or error
    raise ValueError(f"{path}: found {reason}, expected {_WANTED}") from error
  values = arrays.read_arrays(folder / FOREST_FILE, _WANTED)
  try:
    return unpack_teacher(settings, values)
  except ValueError as error:
    raise ValueError(f"{folder}: {error}") from error


def pack_teacher(
  teacher: Teacher,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns the settings for teacher.json and the arrays for forest.npz."""
  settings = {
    "schema": SCHEMA_VERSION,
    "classes": CLASSES,
    "view": dataclasses.asdict(teacher.view),
    "features": [dataclasses.asdict(one) for one in teacher.selection],
    "num_columns": teacher.forest.num_columns,
    "record": dict(teacher.record),
  }
  return settings, {name: getattr(teacher.forest, name) for name in _ARRAYS}


def unpack_teacher(
  settings: Mapping[str, Any], values: Mapping[str, np.ndarray]
) -> Teacher:
  """Puts a teacher together again.

  Raises:
    ValueError: another schema, or parts that are missing or do not fit; it
      does not name the folder.
  """
  schema = settings.get("schema")
  if schema != SCHEMA_VERSION:
    raise ValueError(f"found schema {schema}, expected {SCHEMA_VERSION}")
  try:
    view = dict(settings["view"])
    view["names"] = tuple(view["names"])
    teacher = Teacher(
      view=View(**view),
      selection=tuple(features.Feature(**one) for one in settings["features"]),
      forest=Forest(
        **{name: values[name] for name in _ARRAYS},
        num_columns=int(settings["num_columns"]),
      ),
      record=settings["record"],
    )
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"found no {error}, expected a whole teacher") from error
  check_teacher(teacher)
  return teacher


def check_teacher(teacher: Teacher) -> None:
  """Raises a ValueError if walking the trees could leave the arrays."""
  features.check_selection(teacher.selection)
  forest, view = teacher.forest, teacher.view
  num_nodes = forest.columns.size
  fits = (
    view.channels in CHANNELS
    and view.scale in (1, 2)
    and isinstance(view.pixel_size_um, int | float | None)
    and forest.num_columns
    == features.count_columns(teacher.selection, view.num_channels)
    and forest.thresholds.shape == (num_nodes,)
    and forest.children.shape == (num_nodes, 2)
    and forest.leaves.shape == (num_nodes, len(CLASSES))
    and forest.roots.size > 0
    and 0 <= forest.roots.min() <= forest.roots.max() < num_nodes
    and forest.columns.max() < forest.num_columns
    and math.isfinite(forest.leaves.sum())
  )
  # Children come after their parent, so that no walk is endless.
  inner = np.flatnonzero(forest.columns >= 0) if fits else np.empty(0, int)
  if not fits or not (
    (forest.children[inner] > inner[:, None]).all()
    and (forest.children[inner] < num_nodes).all()
  ):
    raise ValueError("found a forest that does not fit its settings")
