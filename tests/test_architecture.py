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
JAX_ROOMS = ("model", "train", "predict", "checkpoint", "train_checkpoint")
# Library -> the rooms (modules or subpackages) that may import it.
ROOMS = {
  "jax": JAX_ROOMS,
  "flax": JAX_ROOMS,
  "optax": JAX_ROOMS,
  "orbax": ("train_checkpoint",),
  "grain": ("input_pipeline",),
  "tensorflow_datasets": ("records", "dataset"),
  "tensorboardX": ("commands",),
  "sklearn": ("teacher",),
  "skimage": ("image", "masks", "simulate", "teacher"),
  "scipy": ("image", "masks", "simulate", "io", "teacher"),
  "numba": ("masks",),
  "tifffile": ("io",),
  "readimc": ("io",),
  "anndata": ("io",),
  "h5py": ("io",),
  "matplotlib": ("report",),
  "jinja2": ("report",),
  "configs": (),
  "data_builders": (),
  "tests": (),
}
# Subpackage -> those of ours that it must not know.
STRANGERS = {
  "image": ("model", "masks", "report", "commands", "io"),
  "model": ("image", "masks", "report", "commands", "io"),
  "masks": ("image", "model", "report", "commands", "io"),
  "io": ("image", "model", "masks", "report", "commands"),
  "report": ("image", "model", "io", "commands"),
  "simulate": ("model", "masks", "report", "commands"),
  "teacher": ("model", "report", "commands", "io"),
  "records": ("model", "masks", "report", "commands"),
  "dataset": ("model", "masks", "report", "commands"),
  "input_pipeline": ("model", "masks", "report", "commands"),
  "segment": ("image", "model", "report", "io", "commands"),
  "predict": ("masks", "report", "io", "commands"),
  "train": ("masks", "report", "io", "commands"),
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


def test_flags_are_known_to_the_command_line_only():
  users = {file for file, _, name in IMPORTS if name.startswith("absl.flags")}
  assert users == {"__main__.py"}


def test_every_module_can_be_imported():
  walk = pkgutil.walk_packages([str(PACKAGE)], "dicexmbd_jax.")
  names = [module.name for module in walk]
  assert "dicexmbd_jax.model.unet" in names
  for name in names:
    importlib.import_module(name)


@pytest.mark.parametrize(
  ("module", "absent"),
  [
    ("commands.segment", ("jax", "matplotlib", "anndata")),
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
