"""A teacher as plain settings and arrays, for its folder, and back."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dicexmbd_jax.teach import features
from dicexmbd_jax.teach.forest import CLASSES, Forest
from dicexmbd_jax.teach.teacher import CHANNELS, SCHEMA_VERSION, Teacher, View

_ARRAYS = ("roots", "columns", "thresholds", "children", "leaves")


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
  settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
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
        **{name: arrays[name] for name in _ARRAYS},
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
