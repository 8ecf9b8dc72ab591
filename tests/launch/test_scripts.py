"""What the scripts of launch/ take from the package is there."""

import ast
import importlib
import pathlib
import types

import pytest

from tests.test_architecture import has_qt

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.rglob("*.py"))
OURS = {"dicexmbd_jax", "data_builders", "configs"} | {
  path.stem for path in SCRIPTS
}


def find_name(module, name):
  """Returns what `from module import name` gives, imported anywhere."""
  found = importlib.import_module(module)
  if not hasattr(found, name):
    return importlib.import_module(f"{module}.{name}")
  return getattr(found, name)


def import_names(tree):
  """Imports what a script imports of ours; returns it by its name there."""
  found = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
      for alias in node.names:
        value = find_name(node.module, alias.name)
        found[alias.asname or alias.name] = value
    elif isinstance(node, ast.Import):
      for alias in node.names:
        if alias.name in OURS:
          found[alias.asname or alias.name] = importlib.import_module(
            alias.name
          )
  return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_finds_what_it_uses(path):
  text = path.read_text()
  if "viewer" in text and not has_qt():
    pytest.skip("Qt or napari is not installed")
  tree = ast.parse(text)
  found = import_names(tree)
  missing = {
    f"{node.value.id}.{node.attr}"
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and isinstance(found.get(node.value.id), types.ModuleType)
    and not hasattr(found[node.value.id], node.attr)
  }
  assert not missing
