"""Ilastik's side of the tests: its stored forest, and small project files.

The forest is vigra's, walked in plain NumPy; nothing of the package under test.
"""

import json

import h5py
import numpy as np

_IS_LEAF = 1 << 30  # This bit of a node's kind marks a leaf.
FEATURES = (
  "GaussianSmoothing",
  "LaplacianOfGaussian",
  "GaussianGradientMagnitude",
  "DifferenceOfGaussians",
  "StructureTensorEigenvalues",
  "HessianOfGaussianEigenvalues",
)
SCALES = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)


def read_trees(path):
  """Returns (topology, parameters) of all trees of a project."""
  with h5py.File(path) as file:
    forests = file["PixelClassification/ClassifierForests"]
    return [
      (tree["topology"][()], tree["parameters"][()])
      for name, forest in sorted(forests.items())
      if name.startswith("Forest")
      for key, tree in sorted(forest.items())
      if key.startswith("Tree")
    ]


def predict(trees, rows, num_classes=3):
  """Returns the mean over the trees of the shares in the leaves."""
  sums = np.zeros((len(rows), num_classes))
  for topology, parameters in trees:
    at = np.full(len(rows), 2)  # Two numbers of the whole tree come first.
    while (active := np.flatnonzero(topology[at] < _IS_LEAF)).size:
      node = at[active]
      threshold = parameters[topology[node + 1] + 1]
      is_less = rows[active, topology[node + 4]] < threshold
      at[active] = np.where(is_less, topology[node + 2], topology[node + 3])
    first = topology[at + 1] + 1  # A leaf's weight comes first.
    sums += parameters[first[:, None] + np.arange(num_classes)]
  return sums / len(trees)


def write_tags(axes):
  return json.dumps({"axes": [{"key": key, "typeFlags": 2} for key in axes]})


def write_image(path, stack, axes="cyx", name="img"):
  """Writes (y, x, c) as steinbock writes the images for Ilastik."""
  order = ["yxc".index(key) if key in "yxc" else None for key in axes]
  data = stack.transpose([k for k in order if k is not None])
  data = data.reshape([1 if k is None else stack.shape[k] for k in order])
  with h5py.File(path, "w") as file:
    file[name] = data
    file[name].attrs["axistags"] = write_tags(axes)


def write_project(
  path,
  lanes,
  names=("Nucleus", "Cytoplasm", "Background"),
  axes="zyxc",
  workflow="Pixel Classification",
  scales=(1.0, 1.6),
  tags_on_blocks=False,
):
  """Writes a project; lanes are (spelled image, strokes (y, x), channels)."""
  with h5py.File(path, "w") as file:
    file["workflowName"] = np.bytes_(workflow)
    file["ilastikVersion"] = np.bytes_("1.4.0")
    group = file.create_group("FeatureSelections")
    group["FeatureIds"] = np.array(FEATURES, "S")
    group["Scales"] = np.array(SCALES)
    group["SelectionMatrix"] = np.tile(np.isin(SCALES, scales), (6, 1))
    pixel = file.create_group("PixelClassification")
    pixel["LabelNames"] = np.array(names, "S")
    sets = pixel.create_group("LabelSets")
    for number, (spelled, strokes, channels) in enumerate(lanes):
      sizes = {"y": strokes.shape[0], "x": strokes.shape[1], "c": channels}
      raw = file.create_group(f"Input Data/infos/lane{number:04d}/Raw Data")
      raw["filePath"] = np.bytes_(spelled)
      raw["shape"] = np.array([sizes.get(key, 1) for key in axes])
      raw["axistags"] = np.bytes_(write_tags(axes))
      labels = sets.create_group(f"labels{number:03d}")
      if strokes.any():
        _write_blocks(labels, strokes, axes, tags_on_blocks)


def write_forest(path, num_columns):
  """Adds a forest of one tree: the first column decides."""
  with h5py.File(path, "a") as file:
    forest = file.create_group("PixelClassification/ClassifierForests/Forest0")
    forest["_ext_param/labels"] = np.array([1, 2, 3], np.uint32)
    leaf = 1 << 30
    forest["Tree_0/topology"] = np.array(
      [num_columns, 3, 0, 0, 7, 9, 0, leaf, 2, leaf, 6], np.int32
    )
    forest["Tree_0/parameters"] = np.array([1.0, 15, 1, 0, 0, 1, 1, 1, 0, 0])


def _write_blocks(labels, strokes, axes, tags_on_blocks):
  """Two blocks, upper and lower half, each cut to what was drawn."""
  middle = strokes.shape[0] // 2
  for k, part in enumerate((slice(0, middle), slice(middle, None))):
    ys, xs = np.nonzero(strokes[part])
    if not ys.size:
      continue
    y, x = ys.min() + (part.start or 0), xs.min()
    block = strokes[y : ys.max() + (part.start or 0) + 1, x : xs.max() + 1]
    starts = {"y": (y, y + block.shape[0]), "x": (x, x + block.shape[1])}
    sizes = {"y": block.shape[0], "x": block.shape[1]}
    data = block if axes.index("y") < axes.index("x") else block.T
    data = data.reshape([sizes.get(key, 1) for key in axes])
    labels[f"block{k:04d}"] = data.astype(np.uint8)
    spans = [starts.get(key, (0, 1)) for key in axes]
    text = "[" + ",".join(f"{a}:{b}" for a, b in spans) + "]"
    attributes = labels[f"block{k:04d}"].attrs
    attributes["blockSlice"] = np.bytes_(text) if tags_on_blocks else text
    if tags_on_blocks:
      attributes["axistags"] = write_tags(axes)
