"""What reads each format, as the commands do: from a path to named values.

A reader returns a dictionary whose keys end in what a value is (pixels, names,
size, settings, arrays), or raises. A RefusedError carries lines of single
images while others were read.
"""

import dataclasses
import pathlib

import numpy as np
from fuzz_outcomes import RefusedError

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import images, labels, listing, pictures, probabilities
from dicexmbd_jax.io.arrays import read_arrays
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.io.source import hash_source
from dicexmbd_jax.model import torch_file
from dicexmbd_jax.runs import gather, pool, shards, state
from dicexmbd_jax.teach import annotations, ilastik, project, teacher_folder
from dicexmbd_jax.teach.features import Feature
from dicexmbd_jax.teach.forest import Forest
from dicexmbd_jax.teach.teacher import Teacher, View
from dicexmbd_jax.types import ImageSource, Panel, PanelRow

PANEL = Panel(
  pathlib.Path("panel.csv"),
  (
    PanelRow("Pr141", "CD45", True, False, True),
    PanelRow("Ir191", "DNA1", True, True, False),
  ),
)


def read_images(path):
  sources, failures = listing.list_images(path)
  lines, found = [line for _, line in failures], {}
  for source in sources:
    try:
      hash_source(source)
      found |= _read_image(source)
    except (ValueError, OSError) as error:
      lines.append(pool.describe_error(error, source.path))
  if lines:
    raise RefusedError(lines, found)
  return found


def _read_image(source):
  """Reads all channels; and with a panel, for the errors of that way."""
  image = images.read_every_channel(source)
  try:
    images.read_image(source, PANEL)
  except ValueError as error:
    if "\n" in str(error):
      raise
  return {
    f"{source.stem}: pixels": image.stack,
    f"{source.stem}: names": image.names,
    f"{source.stem}: size": image.pixel_size_um,
    f"{source.stem}: warnings": image.warnings,
  }


def read_store(path):
  """Reads an OME-Zarr whose group's metadata are the file."""
  link = path.parent.with_suffix(".zarr")  # By its name it is a store.
  link.symlink_to(path.parent)
  try:
    source = ImageSource("a", link)
    hash_source(source)
    return _read_image(source)
  finally:
    link.unlink()


def read_mask(path):
  return {"pixels": labels.read_labels(path)}


def read_colours(path):
  return {"pixels": pictures.read_png(path)}


def read_map(path):
  return {"pixels": probabilities.read_probabilities(ImageSource("a", path))}


def read_project(path):
  found = ilastik.read_project(path)
  values = {"settings": (found.label_names, found.classes, found.features)}
  for lane in found.lanes:
    plain = dataclasses.asdict(lane)
    values[f"lane {lane.number}: pixels"] = plain.pop("strokes")
    values[f"lane {lane.number}: settings"] = plain
  view = View(channels="all")
  forest = project.adopt_project(str(path), view).forest
  return values | _list_arrays(forest)


def _list_arrays(forest):
  return {f"{k}: arrays": v for k, v in dataclasses.asdict(forest).items()}


def read_torch(path):
  tensors = torch_file.read_state_dict(path)
  return {f"{name}: arrays": values for name, values in tensors.items()}


def read_npz(path):
  found = read_arrays(path, "parameters")
  return {f"{name}: arrays": values for name, values in found.items()}


def read_panel_file(path):
  return {"settings": read_panel(path).rows}


def read_state(path):
  return {"settings": state.read_sealed(path)}


def read_share(path):
  folder = path.parent / "out" / shards.FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  (folder / path.name).write_bytes(path.read_bytes())
  try:
    records = gather.read_records([folder.parent], "panel")
    return {"settings": [record.values for record in records]}
  except ValueError as error:
    raise ValueError(
      str(error).replace(str(folder), str(path.parent))
    ) from error


def read_regions(path):
  return {"settings": annotations.read_regions(path)}


def read_history(path):
  return {"settings": annotations.read_history(path)}


def write_teacher(path):
  selection = (
    Feature("GaussianSmoothing", 1.0),
    Feature("LaplacianOfGaussian", 1.6),
  )
  forest = Forest(
    roots=np.array([0]),
    columns=np.array([1, -1, -1], np.int32),
    thresholds=np.array([0.5, 0, 0]),
    children=np.array([[1, 2], [0, 0], [0, 0]], np.int32),
    leaves=np.eye(3),
    num_columns=4,
  )
  view = View("all", ("CD45", "DNA1"), 2)
  teacher = Teacher(view, selection, forest, {"seed": 0})
  teacher_folder.write_teacher(path.parent, teacher)


def read_teacher(path):
  found = teacher_folder.read_teacher(path.parent)
  return {
    "settings": (found.view, found.selection, found.record),
    **_list_arrays(found.forest),
  }


def write_model(path):
  from dicexmbd_jax.model import unet, weights  # JAX: slow to load.

  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  config.model.width, config.model.depth = 2, 1
  del config["train"], config["records"]
  weights.write_model(path.parent, unet.build_model(config.model), config)


def read_model(path):
  from dicexmbd_jax.model import weights

  model, config = weights.read_model(path.parent)
  return {
    "settings": config_lib.flatten(config),
    "arrays": np.asarray(model.head.kernel[...]),
  }
