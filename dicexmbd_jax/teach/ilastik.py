"""Reads Ilastik's pixel classification projects (.ilp): strokes and features.

Written against projects of Ilastik 1.3 and 1.4. Nothing pickled is ever opened.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import h5py
import numpy as np

from dicexmbd_jax.io import hdf5
from dicexmbd_jax.teach.ilastik_lanes import (
  Lane,
  decode_text,
  read_lanes,
  read_text,
)

WORKFLOW = "Pixel Classification"
_NUM_CLASSES = 3
# What label names say, in the order of our classes.
WORDS = (
  re.compile(r"nucl|dna|\bnuc\b", re.IGNORECASE),
  re.compile(r"cyto|membran|\bcell", re.IGNORECASE),
  re.compile(r"back|\bbg\b|stroma|matrix|empty|nothing", re.IGNORECASE),
)


@dataclasses.dataclass(frozen=True)
class Project:
  """What a project file holds of use here.

  Attributes:
    path: the file.
    version: Ilastik's.
    label_names: of labels 1, 2 and so on.
    classes: for each of them our class, 1 nucleus, 2 membrane/cytoplasm, 3
      background.
    is_named: whether the classes were told by the names, not by their order.
    features: (name, scale in px), in Ilastik's order of columns.
    lanes: the images.
  """

  path: pathlib.Path
  version: str
  label_names: tuple[str, ...]
  classes: tuple[int, ...]
  is_named: bool
  features: tuple[tuple[str, float], ...]
  lanes: tuple[Lane, ...]


def read_project(path: str | pathlib.Path) -> Project:
  """Reads a pixel classification project.

  Args:
    path: the .ilp file.

  Raises:
    ValueError: missing or broken file, another workflow, no strokes, more
      than three labels, or strokes on more than one plane. One line: file,
      found, expected.
  """
  path = pathlib.Path(path)
  wanted = f"a complete project of Ilastik's {WORKFLOW}"
  with hdf5.open_hdf5(path, wanted) as file:
    return _read_project(path, file)


def read_trees(
  path: str | pathlib.Path,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[int, ...]]:
  """Reads the forest that a project stores.

  Returns:
    Topology and parameters of vigra's trees, and the labels of its classes.

  Raises:
    ValueError: there is no forest in it, or a broken one.
  """
  path = pathlib.Path(path)
  trees: list[tuple[np.ndarray, np.ndarray]] = []
  labels: tuple[int, ...] = ()
  with hdf5.open_hdf5(path, "a forest as vigra writes it") as file:
    forests = file["PixelClassification"].get("ClassifierForests", {})
    for name in sorted(forests):
      if name.startswith("Forest"):
        forest = forests[name]
        stored = hdf5.read_stored(forest["_ext_param/labels"], path)
        labels = tuple(int(one) for one in stored)
        trees += [
          (
            hdf5.read_stored(tree["topology"], path),
            hdf5.read_stored(tree["parameters"], path),
          )
          for key, tree in sorted(forest.items())
          if key.startswith("Tree")
        ]
  if not trees:
    raise ValueError(
      f"{path}: found no forest, expected that of a project saved after "
      "training (live update)"
    )
  return trees, labels


def map_labels(names: Sequence[str]) -> tuple[tuple[int, ...], bool]:
  """Finds the class of each label.

  Args:
    names: of the labels, one to three.

  Returns:
    Each label's class (1 nucleus, 2 membrane/cytoplasm, 3 background), and
    whether the names told: each fits one class, and no class twice. Else the
    labels' order stands.
  """
  fits = [
    [k + 1 for k, words in enumerate(WORDS) if words.search(name)]
    for name in names
  ]
  chosen = tuple(one[0] for one in fits if len(one) == 1)
  if len(chosen) == len(names) == len(set(chosen)):
    return chosen, True
  return tuple(range(1, len(names) + 1)), False


def find_image(project: Project, lane: Lane) -> tuple[pathlib.Path, str | None]:
  """Finds a lane's image where the project says, or beside the project.

  Returns:
    The file and the dataset in it, if it is HDF5.

  Raises:
    ValueError: it is in neither place.
  """
  if not lane.path:
    return project.path, lane.inner
  spelled = pathlib.Path(lane.path.replace("\\", "/"))
  for place in (
    spelled,
    project.path.parent / spelled,
    project.path.parent / spelled.name,
  ):
    if place.is_file():
      return place, lane.inner
  raise ValueError(
    f"{project.path}: found no file {lane.path}, expected the image of lane "
    f"{lane.number}; tell with --images where the project's images are"
  )


def _read_project(path: pathlib.Path, file: h5py.File) -> Project:
  workflow = read_text(file, "workflowName")
  if workflow != WORKFLOW:
    raise ValueError(
      f"{path}: found the workflow {workflow or 'of no name'!r}, expected "
      f"{WORKFLOW!r}"
    )
  group = file["PixelClassification"]
  names: tuple[str, ...] = ()
  if "LabelNames" in group:  # Old projects name none.
    stored = hdf5.read_stored(group["LabelNames"], path)
    names = tuple(decode_text(one) for one in stored)
  lanes = read_lanes(path, file)
  highest = max(
    (int(lane.strokes.max()) for lane in lanes if lane.strokes is not None),
    default=0,
  )
  if not highest:
    raise ValueError(f"{path}: found no strokes, expected annotated pixels")
  if max(highest, len(names)) > _NUM_CLASSES:
    raise ValueError(
      f"{path}: found {max(highest, len(names))} labels ({', '.join(names)}), "
      "expected up to 3: nucleus, membrane/cytoplasm, background"
    )
  names += tuple(f"Label {k + 1}" for k in range(len(names), highest))
  classes, is_named = map_labels(names)
  return Project(
    path=path,
    version=read_text(file, "ilastikVersion") or "unknown",
    label_names=names,
    classes=classes,
    is_named=is_named,
    features=_read_features(path, file["FeatureSelections"]),
    lanes=lanes,
  )


def _read_features(
  path: pathlib.Path, group: h5py.Group
) -> tuple[tuple[str, float], ...]:
  if "SelectionMatrix" not in group:
    raise ValueError(f"{path}: found no selected features, expected some")
  ids, stored, matrix = (
    hdf5.read_stored(group[name], path)
    for name in ("FeatureIds", "Scales", "SelectionMatrix")
  )
  names = [decode_text(one) for one in ids]
  scales = [float(one) for one in stored]
  if matrix.shape != (len(names), len(scales)):
    raise ValueError(
      f"{path}: found a feature selection of {matrix.shape}, expected "
      f"{(len(names), len(scales))}"
    )
  chosen = [(names[i], scales[j]) for i, j in np.argwhere(matrix)]
  if not chosen:
    raise ValueError(f"{path}: found no selected features, expected some")
  return tuple(chosen)
