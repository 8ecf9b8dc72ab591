"""`launch/conda/recipe.yaml`: it says what pyproject.toml says, and builds."""

import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import venv

import pytest
import yaml

import dicexmbd_jax

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = ROOT / "launch/conda/recipe.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What PyPI calls otherwise than conda-forge.
NAMES = {"isal": "python-isal", "matplotlib": "matplotlib-base"}


def read_recipe():
  return yaml.safe_load(RECIPE.read_text())


def list_needs():
  """Returns what the recipe wants at run time: name -> version."""
  lines = read_recipe()["requirements"]["run"]
  return dict(line.split(" ", 1) for line in lines)


def test_the_recipe_says_what_the_project_says():
  recipe, needs = read_recipe(), list_needs()
  minimum = recipe["context"]["python_min"]
  assert recipe["package"]["name"] == PROJECT["name"]
  assert recipe["context"]["version"] == dicexmbd_jax.__version__
  assert needs.pop("python") == ">=${{ python_min }}"
  assert PROJECT["requires-python"] == f">={minimum}"
  pairs = [re.match(r"([\w-]+)(.*)", one).groups()
           for one in PROJECT["dependencies"]]  # fmt: skip
  assert needs == {NAMES.get(name, name): version for name, version in pairs}
  [(name, function)] = PROJECT["scripts"].items()
  assert recipe["build"]["python"]["entry_points"] == [f"{name} = {function}"]
  assert recipe["about"]["license"] == PROJECT["license"]
  assert recipe["about"]["summary"] == PROJECT["description"]


def test_the_recipes_tests_are_calls_that_exist():
  from dicexmbd_jax import __main__ as program

  [script] = [test["script"] for test in read_recipe()["tests"][1:]]
  for line in script:
    _, command, *words = line.split()
    program.parse_flags(command, words)


@pytest.fixture
def channel(tmp_path):
  """A channel of this machine's Python, with pip and setuptools in it."""
  builder = pytest.importorskip("rattler_build")
  staged, folder = tmp_path / "python", tmp_path / "channel"
  venv.create(staged, with_pip=True)
  pip = [staged / "bin/python", "-m", "pip", "install", "--quiet"]
  done = subprocess.run(
    [*pip, "--no-compile", "setuptools>=77"], capture_output=True, text=True
  )
  if done.returncode:
    pytest.skip(f"no package index can be reached: {done.stderr[-200:]}")
  for cache in list(staged.rglob("__pycache__")):
    shutil.rmtree(cache)
  for name, version, files in (
    ("python", "{}.{}.{}".format(*sys.version_info), staged),
    ("pip", "99", None),
    ("setuptools", "99", None),
  ):
    builder.assemble_package(
      *(name, version, "noarch", "0", folder / "noarch"),
      files_dir=files,
      files=[],
    )
  return builder, folder


@pytest.mark.slow
def test_the_recipe_builds(channel):
  builder, folder = channel
  here = "{}.{}".format(*sys.version_info)
  text = RECIPE.read_text().replace("../..", str(ROOT))
  copy = folder / "recipe.yaml"
  copy.write_text(text.replace('"3.11"', f'"{here}"'))
  [built] = builder.Stage0Recipe.from_file(copy).run_build(
    output_dir=folder, channels=[folder.as_uri()]
  )
  [path] = built.packages
  package = builder.Package.from_file(path)
  assert (package.name, package.version) == ("dicexmbd-jax", "0.1.0")
  assert package.noarch == "python"
  wanted = {f"{name} {version}" for name, version in list_needs().items()}
  assert len(package.depends) == len(wanted)
  assert wanted - set(package.depends) == {"python >=${{ python_min }}"}
  assert package.test_count == 2
  start = "site-packages/dicexmbd_jax/"
  found = {name for name in package.files if name.startswith(start)}
  source = ROOT / "dicexmbd_jax"
  assert found == {
    f"site-packages/{path.relative_to(ROOT)}"
    for path in source.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
  }
