"""Who may import what, and that every module can be imported at all."""

import ast
import importlib
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import dicexmbd_jax

PACKAGE = pathlib.Path(dicexmbd_jax.__file__).parent
JAX_ROOMS = ("model", "train", "predict")
# Library -> the rooms (modules or subpackages) that may import it.
ROOMS = {
  "jax": JAX_ROOMS,
  "flax": JAX_ROOMS,
  "optax": JAX_ROOMS,
  "orbax": ("train",),
  "grain": ("train",),
  "tensorflow_datasets": ("train",),
  "tensorboardX": ("train",),
  "sklearn": ("teach",),
  "onnx": ("model",),
  "skimage": ("image", "masks", "scores", "simulate", "teach"),
  "scipy": (
    *("image", "masks", "scores", "simulate", "io", "teach", "train", "viewer"),
  ),
  "numba": ("masks",),
  "tifffile": ("io",),
  "readimc": ("io",),
  "roifile": ("io",),
  "anndata": ("io",),
  "h5py": ("io", "teach"),
  "spatialdata": ("io",),
  "zarr": ("io",),
  "matplotlib": ("report",),
  "jinja2": ("report",),
  "napari": ("viewer",),
  "qtpy": ("viewer",),
  "pooch": (),
  "requests": (),
  "configs": (),
  "data_builders": (),
  "tests": (),
}
# Library -> the only modules of its room that may import it.
MODULES = {
  "orbax": ("train/checkpoints.py",),
  "grain": ("train/input_pipeline.py",),
  "tensorflow_datasets": ("train/records.py", "train/dataset.py"),
}
# Subpackage -> those of ours that it must not know.
STRANGERS = {
  "image": ("model", "masks", "scores", "report", "commands", "runs", "io"),
  "model": ("image", "masks", "scores", "report", "commands", "runs"),
  "masks": ("image", "model", "scores", "report", "commands", "runs", "io"),
  "scores": ("image", "model", "report", "commands", "runs", "io"),
  "io": ("image", "model", "masks", "scores", "report", "commands", "runs"),
  "report": ("image", "model", "io", "commands", "runs"),
  "simulate": ("model", "masks", "scores", "report", "commands", "runs"),
  "teach": ("model", "train", "report", "commands"),
  "train": ("teach", "simulate", "finetuning", "commands"),
  "finetuning": ("teach", "report", "commands"),
  "runs": ("model", "train", "teach", "simulate", "commands"),
  "predict": ("masks", "scores", "report", "io", "commands", "runs"),
  "magnification": ("model", "predict", "io", "report", "commands", "runs"),
  "chain": ("model", "predict", "scores", "report", "commands", "runs"),
  "viewer": ("model", "predict", "train", "simulate", "commands", "runs"),
}


def list_imports():
  """Returns (file, room, imported name) of every import in the package."""
  found = []
  for path in sorted(PACKAGE.rglob("*.py")):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
      else:
        continue
      name = path.relative_to(PACKAGE).as_posix()
      found += [(name, room, imported) for imported in names]
  return found


IMPORTS = list_imports()


@pytest.mark.parametrize("library", ROOMS)
def test_libraries_stay_in_their_rooms(library):
  wrong = [
    f"{file} imports {name}"
    for file, room, name in IMPORTS
    if name.split(".")[0] == library and room not in ROOMS[library]
  ]
  assert not wrong, wrong


@pytest.mark.parametrize("library", MODULES)
def test_libraries_stay_in_their_modules(library):
  users = {file for file, _, name in IMPORTS if name.split(".")[0] == library}
  assert users == set(MODULES[library])


@pytest.mark.parametrize("room", STRANGERS)
def test_rooms_do_not_know_one_another(room):
  wrong = [
    f"{file} imports {name}"
    for file, importer, name in IMPORTS
    if importer == room
    and name.startswith("dicexmbd_jax.")
    and name.split(".")[1] in STRANGERS[room]
  ]
  assert not wrong, wrong


def test_nobody_knows_the_viewer():
  users = {
    room for _, room, name in IMPORTS if name.startswith("dicexmbd_jax.viewer")
  }
  assert users <= {"viewer"}


def test_flags_are_known_to_the_command_line_only():
  users = {file for file, _, name in IMPORTS if name.startswith("absl.flags")}
  assert users == {"__main__.py"}


def test_flags_become_a_request_before_anything_runs():
  users = {
    f"{path.parent.name}.{function.name}"
    for path in PACKAGE.rglob("*.py")
    for function in ast.walk(ast.parse(path.read_text()))
    if isinstance(function, ast.FunctionDef)
    and any(arg.arg == "flags" for arg in function.args.args)
  }
  assert users == {"commands.run", "commands.read_request"}


def test_a_class_has_a_name_of_its_own():
  folders = (PACKAGE, PACKAGE.parent / "data_builders")
  names = [
    node.name
    for folder in folders
    for path in folder.rglob("*.py")
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.ClassDef)
  ]
  # Each command has its request; TFDS wants its builders called so.
  twice = {name for name in names if names.count(name) > 1}
  assert twice == {"Request", "Builder"}


def test_every_room_is_packed():
  """Setuptools leaves out a folder without __init__.py."""
  rooms = {path.parent for path in PACKAGE.rglob("*.py")}
  assert [room for room in rooms if not (room / "__init__.py").exists()] == []


def test_every_module_can_be_imported():
  walk = pkgutil.walk_packages([str(PACKAGE)], "dicexmbd_jax.")
  names = [module.name for module in walk]
  assert "dicexmbd_jax.model.unet" in names
  for name in names:
    if has_qt() or not name.startswith("dicexmbd_jax.viewer."):
      importlib.import_module(name)


def has_qt():
  """Whether the viewer can run: Qt wants libraries of the system, too."""
  try:
    importlib.import_module("napari")
    importlib.import_module("qtpy.QtWidgets")
  except ImportError:
    return False
  return True


@pytest.mark.parametrize(
  ("module", "absent"),
  [
    ("commands.segment", ("jax", "matplotlib", "anndata")),
    ("runs.results", ("jax", "matplotlib")),  # What workers of predict load.
    ("commands.evaluate", ("jax", "anndata")),
    ("commands.predict", ("orbax", "tensorflow", "matplotlib")),
    ("commands.merge", ("jax",)),
    ("commands.simulate", ("jax", "matplotlib")),
    ("commands.teach_fit", ("jax", "sklearn", "matplotlib", "anndata")),
    ("commands.teach_predict", ("jax", "sklearn", "matplotlib", "anndata")),
  ],
)
def test_commands_load_only_what_they_need(module, absent):
  code = (
    f"import sys, dicexmbd_jax.{module};"
    f"print([n for n in {absent!r} if n in sys.modules])"
  )
  found = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert found.stdout.strip() == "[]"
