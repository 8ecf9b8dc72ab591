"""`teach fit` on Ilastik's projects: their features, and their own forest."""

import dataclasses

from absl import logging

from dicexmbd_jax import __version__
from dicexmbd_jax.teach import (
  features,
  ilastik,
  strokes,
  teacher_folder,
  vigra,
)
from dicexmbd_jax.teach.features import Feature
from dicexmbd_jax.teach.teacher import Teacher, View


def open_project(path: str) -> tuple[ilastik.Project, tuple[Feature, ...]]:
  """Reads a project and its features; says which label is which class.

  Raises:
    ValueError: it cannot be used; names the file.
  """
  project = ilastik.read_project(path)
  logging.info("%s", strokes.describe_labels(project))
  selection = tuple(Feature(*one) for one in project.features)
  try:
    features.check_selection(selection)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  return project, selection


def adopt_project(path: str, view: View) -> Teacher:
  """Returns a teacher with the forest that a project stores; fits none.

  Args:
    path: the project.
    view: how images are looked at.

  Raises:
    ValueError: no project, or one without a forest that fits its features.
  """
  if not strokes.is_project(path):
    raise ValueError(f"--keep_forest: found {path}, expected an .ilp file")
  project, selection = open_project(path)
  trees, labels = ilastik.read_trees(project.path)
  depth = features.count_columns(selection, 1)
  try:
    classes = [project.classes[label - 1] for label in labels]
    adopted = vigra.adopt_forest(trees, classes)
    num_channels, rest = divmod(adopted.num_columns, depth)
    if rest:
      raise ValueError(
        f"found a forest of {adopted.num_columns} columns, expected a multiple "
        f"of its features' {depth}"
      )
    view = dataclasses.replace(view, num_channels=num_channels)
    record = {
      "version": __version__,
      "num_trees": len(trees),
      "annotations": path,
      "forest": f"fit by Ilastik {project.version}",
    }
    teacher = Teacher(view, selection, adopted, record)
    teacher_folder.check_teacher(teacher)
  except (ValueError, IndexError) as error:
    raise ValueError(f"{project.path}: {error}") from error
  return teacher
