import importlib.util
import pathlib
import tomllib

import pytest

import dicexmbd_jax

PACKAGE = pathlib.Path(dicexmbd_jax.__file__).parent
MANIFEST = PACKAGE / "viewer/napari.yaml"


def test_the_plugin_is_announced_under_the_packages_name():
  npe2 = pytest.importorskip("npe2")
  project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
  points = project["project"]["entry-points"]["napari.manifest"]
  manifest = npe2.PluginManifest.from_file(MANIFEST)
  assert points == {manifest.name: "dicexmbd_jax.viewer:napari.yaml"}
  assert manifest.name == project["project"]["name"]


def test_every_command_can_be_imported(app):
  npe2 = pytest.importorskip("npe2")
  manifest = npe2.PluginManifest.from_file(MANIFEST)
  for command in manifest.contributions.commands or []:
    module, _, name = command.python_name.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_manifest_is_packed():
  assert importlib.util.find_spec("dicexmbd_jax.viewer") is not None
  project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
  packed = project["tool"]["setuptools"]["package-data"]["dicexmbd_jax"]
  assert "viewer/napari.yaml" in packed
