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
from dicexmbd_jax.types import Labels

WORKFLOW = "Pixel Classification"
_NUM_CLASSES = 3
_HDF5_PATH = re.compile(r"^(.*?\.(?:h5|hdf5|ilp))(?:/(.+))?$", re.IGNORECASE)
# What label names say, in the order of our classes.
_WORDS = (
  re.compile(r"nucl|dna|\bnuc\b", re.IGNORECASE),
  re.compile(r"cyto|membran|\bcell", re.IGNORECASE),
  re.compile(r"back|\bbg\b|stroma|matrix|empty|nothing", re.IGNORECASE),
)


@dataclasses.dataclass(frozen=True)
class Lane:
  """One image of a project.

  Attributes:
    number: from 0, for messages.
    path: the image as the project spells it, without a dataset's name;
      "" where the project holds it inside.
    inner: the dataset in an HDF5 file, else None.
    axes: names of the image's axes, as "zyxc".
    strokes: int32 (y, x), the project's own label numbers, 0 = none; None
      where nothing was drawn.
  """

  number: int
  path: str
  inner: str | None
  axes: str
  shape: tuple[int, int]
  strokes: Labels | None

  @property
  def stem(self) -> str:
    """The image's name without folder and suffix."""
    name = pathlib.PurePosixPath(self.path.replace("\\", "/")).name
    return re.sub(r"(\.ome)?\.[A-Za-z0-9]+$", "", name)


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
  if not path.is_file():
    raise ValueError(f"{path}: found no such file, expected an Ilastik project")
  try:
    with h5py.File(path, "r") as file:
      return _read_project(path, file)
  except (OSError, RuntimeError, KeyError) as error:
    text = " ".join(str(error).split())
    raise ValueError(
      f"{path}: found an unreadable project ({text}), expected a complete one "
      f"of Ilastik's {WORKFLOW}"
    ) from error


def read_trees(
  path: str | pathlib.Path,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[int, ...]]:
  """Reads the forest that a project stores.

  Returns:
    Topology and parameters of vigra's trees, and the labels of its classes.

  Raises:
    ValueError: there is no forest in it.
  """
  trees: list[tuple[np.ndarray, np.ndarray]] = []
  labels: tuple[int, ...] = ()
  with h5py.File(path, "r") as file:
    forests = file["PixelClassification"].get("ClassifierForests", {})
    for name in sorted(forests):
      if name.startswith("Forest"):
        forest = forests[name]
        labels = tuple(int(one) for one in forest["_ext_param/labels"][()])
        trees += [
          (tree["topology"][()], tree["parameters"][()])
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
    [k + 1 for k, words in enumerate(_WORDS) if words.search(name)]
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
  workflow = _read_text(file, "workflowName")
  if workflow != WORKFLOW:
    raise ValueError(
      f"{path}: found the workflow {workflow or 'of no name'!r}, expected "
      f"{WORKFLOW!r}"
    )
  group = file["PixelClassification"]
  names = tuple(_decode(one) for one in group["LabelNames"][()])
  lanes = _read_lanes(path, file)
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
    version=_read_text(file, "ilastikVersion") or "unknown",
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
  names = [_decode(one) for one in group["FeatureIds"][()]]
  scales = [float(one) for one in group["Scales"][()]]
  matrix = group["SelectionMatrix"][()]
  if matrix.shape != (len(names), len(scales)):
    raise ValueError(
      f"{path}: found a feature selection of {matrix.shape}, expected "
      f"{(len(names), len(scales))}"
    )
  chosen = [(names[i], scales[j]) for i, j in np.argwhere(matrix)]
  if not chosen:
    raise ValueError(f"{path}: found no selected features, expected some")
  return tuple(chosen)


def _read_lanes(path: pathlib.Path, file: h5py.File) -> tuple[Lane, ...]:
  infos = file["Input Data/infos"]
  sets = file["PixelClassification"].get("LabelSets", {})
  lanes = []
  for number, key in enumerate(sorted(infos)):
    raw = infos[key].get("Raw Data", infos[key])
    if len(raw) == 0:
      continue
    digits = re.sub(r"\D", "", key)
    labels = sets.get(f"labels{int(digits or number):03d}", {})
    lanes.append(_read_lane(path, number, raw, labels))
  return tuple(lanes)


def _read_lane(
  path: pathlib.Path, number: int, raw: h5py.Group, labels: h5py.Group
) -> Lane:
  shape = tuple(int(size) for size in raw["shape"][()])
  tags = _read_text(raw, "axistags")
  axes = (hdf5.parse_axes(tags) if tags else None) or hdf5.guess_axes(shape)
  if len(axes) != len(shape) or not {"y", "x"} <= set(axes):
    raise ValueError(
      f"{path}: found axes {axes!r} for lane {number} of {shape}, expected "
      "channels, y and x"
    )
  size = (shape[axes.index("y")], shape[axes.index("x")])
  spelled, inner = _locate(raw)
  strokes = _read_strokes(path, labels, axes, size)
  return Lane(number, spelled, inner, axes, size, strokes)


def _locate(raw: h5py.Group) -> tuple[str, str | None]:
  """Returns the image's file, "" for the project itself, and its dataset."""
  if "inner_path" in raw or _read_text(raw, "location") == "ProjectInternal":
    name = _read_text(raw, "datasetId")
    return "", _read_text(raw, "inner_path") or f"Input Data/local_data/{name}"
  spelled = _read_text(raw, "filePath") or ""
  match = _HDF5_PATH.match(spelled)
  return (match[1], match[2]) if match else (spelled, None)


def _read_strokes(
  path: pathlib.Path, labels: h5py.Group, axes: str, size: tuple[int, int]
) -> Labels | None:
  strokes = np.zeros(size, np.int32)
  for block in labels.values():
    names = hdf5.read_axes(block) or axes
    numbers = re.findall(r"(\d+):(\d+)", _decode(block.attrs["blockSlice"]))
    data = block[()]
    if len(numbers) != data.ndim or len(names) != data.ndim:
      raise ValueError(
        f"{path}: found strokes of {data.ndim} axes in {block.name}, expected "
        f"{names}"
      )
    place = {
      name: slice(int(start), int(stop))
      for name, (start, stop) in zip(names, numbers, strict=True)
    }
    if any(data.shape[i] != 1 for i, n in enumerate(names) if n not in "yx"):
      raise ValueError(
        f"{path}: found strokes on several planes in {block.name}, expected "
        "two-dimensional images"
      )
    plane = hdf5.order_axes(data, names, path)[..., 0].astype(np.int32)
    target = strokes[place["y"], place["x"]]
    if target.shape != plane.shape:
      raise ValueError(
        f"{path}: found strokes of {plane.shape} at {numbers} in {block.name}, "
        f"expected them inside the image of {size}"
      )
    np.copyto(target, plane, where=plane > 0)
  return strokes if strokes.any() else None


def _read_text(group: h5py.Group, name: str) -> str | None:
  return _decode(group[name][()]) if name in group else None


def _decode(value: object) -> str:
  if isinstance(value, np.ndarray):
    value = value.item()
  return value.decode() if isinstance(value, bytes) else str(value)
