"""What an install brings, and what is said where an extra is left out."""

import ast
import functools
import importlib.metadata
import inspect
import logging
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

import dicexmbd_jax
from dicexmbd_jax import __main__ as program
from dicexmbd_jax import extras
from dicexmbd_jax.io import ome_zarr
from dicexmbd_jax.runs import pool

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
# What the commands need; as requirements.txt has it.
COMMANDS = ("train", "teach", "export")
BLOCKED = """
import sys
from dicexmbd_jax import extras

names = {name for some in extras.EXTRAS.values() for name in some}
names -= {"importlib_resources", "fsspec", "requests", "aiohttp"}

class Blocker:
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in names:
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from dicexmbd_jax import __main__ as program

for line in sys.stdin:
  print(program.main(line.split()), flush=True)
"""


def run_base(lines, folder):
  """Runs commands in a process that can import the base alone.

  Returns:
    Exit codes, and the text of standard error.
  """
  found = subprocess.run(
    [sys.executable, "-c", BLOCKED],
    input="\n".join(lines),
    capture_output=True,
    text=True,
    cwd=folder,
  )
  assert found.returncode == 0, found.stderr
  codes = [int(word) for word in found.stdout.splitlines() if word.isdigit()]
  return codes, found.stderr


def block(monkeypatch, *names):
  for name in names:
    monkeypatch.setitem(sys.modules, name, None)


@functools.cache
def map_packages():
  """Returns name of import -> names of distributions; slow."""
  return importlib.metadata.packages_distributions()


def list_requirements():
  lines = (ROOT / "requirements.txt").read_text().splitlines()
  return {line.partition("#")[0].strip() for line in lines} - {""}


def name_package(requirement):
  return re.split(r"[\[<>=~!]", requirement)[0].strip()


def test_requirements_are_the_base_and_what_the_commands_need():
  wanted = [*PROJECT["dependencies"]]
  for extra in COMMANDS:
    wanted += OPTIONAL[extra]
  assert len(wanted) == len(set(map(name_package, wanted)))
  assert list_requirements() == set(wanted)


def test_the_extras_that_are_told_exist_and_bring_their_packages():
  assert set(extras.EXTRAS) < set(OPTIONAL)
  assert {"train", "teach", "viewer", "workflow", "gpu", "tpu", "beam"} <= set(
    OPTIONAL
  )
  brought = map_packages()
  for extra, packages in extras.EXTRAS.items():
    listed = {name_package(one).lower() for one in OPTIONAL[extra]}
    if extra == "remote":
      listed |= {"fsspec", "aiohttp"}  # These come with S3Fs.
    for package in set(packages) & set(brought):
      names = {name.lower().replace("_", "-") for name in brought[package]}
      assert names & {name.replace("_", "-") for name in listed}, package


# Room -> the extra whose packages it may import, too.
ROOMS = {"train": "train", "finetuning": "train", "teach": "teach"}
# What comes with packages that are asked for.
BROUGHT = {"markupsafe", "geopandas", "shapely"}


def list_imports(room):
  """Returns the packages of others that a room imports, anywhere in it."""
  paths = room.rglob("*.py") if room.is_dir() else [room]
  found = set()
  for node in (n for p in paths for n in ast.walk(ast.parse(p.read_text()))):
    if isinstance(node, ast.Import):
      found |= {alias.name.partition(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found.add(node.module.partition(".")[0])
  return found - set(sys.stdlib_module_names) - {"dicexmbd_jax"}


def list_packages(requirements):
  """Returns the names under which requirements are imported."""
  wanted = {name_package(one).lower().replace("_", "-") for one in requirements}
  brought = map_packages()
  return {
    package
    for package, names in brought.items()
    if wanted & {name.lower().replace("_", "-") for name in names}
  }


def test_what_is_imported_is_asked_for():
  base = list_packages(PROJECT["dependencies"]) | BROUGHT
  for extra in ("export", "spatialdata", "remote"):
    base |= set(extras.EXTRAS[extra])
  for room in pathlib.Path(dicexmbd_jax.__file__).parent.iterdir():
    if room.name == "viewer" or not (room.is_dir() or room.suffix == ".py"):
      continue
    more = list_packages(OPTIONAL.get(ROOMS.get(room.name), ()))
    # Strokes of ImageJ are teach's.
    more |= {"roifile"} if room.name == "io" else set()
    assert list_imports(room) <= base | more, room.name


def test_the_page_on_installing_names_every_extra():
  text = (ROOT / "docs/install.md").read_text()
  table = text[text.index("| extra |") : text.index("`requirements.txt`")]
  rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
  names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
  assert sorted(names) == sorted(OPTIONAL)


def test_no_command_of_the_base_names_an_extra():
  base = {"predict", "segment", "evaluate", "simulate", "convert", "export"}
  assert all(not program.COMMANDS[name].extra for name in base)
  used = {command.extra for command in program.COMMANDS.values()} - {""}
  assert used <= set(extras.EXTRAS)


def test_a_missing_extra_is_one_line_that_names_it(tmp_path):
  calls = {
    f"train --workdir=run --config={ROOT}/configs/tiny.py": "train",
    "finetune --images=img --masks=masks --output=out": "train",
    "teach fit --images=img --annotations=drawn --output=out": "teach",
    "teach predict --images=img --teacher=teacher --output=out": "teach",
    "teach round --images=img --output=out": "teach",
    "export --format=onnx --output=out": "export",
    "predict --images=gs://bucket/images --output=out": "remote",
    "predict --images=s3://bucket/a.ome.zarr --output=out": "remote",
  }
  codes, told = run_base(calls, tmp_path)
  assert codes == [2] * len(calls)
  assert "Traceback" not in told
  lines = [line for line in told.splitlines() if "found no package" in line]
  assert len(lines) == len(calls), told
  for line, extra in zip(lines, calls.values(), strict=True):
    assert line.endswith(
      f"expected the extra {extra}: pip install 'dicexmbd-jax[{extra}]'"
    )
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["build", "generate", "download"])
def test_builders_without_their_extra_are_one_line(name, tmp_path):
  blocker = BLOCKED.partition("from dicexmbd_jax import __main__")[0]
  (tmp_path / "sitecustomize.py").write_text(blocker)
  found = subprocess.run(
    [sys.executable, "-m", f"data_builders.{name}", "--help"],
    env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 2
  assert found.stderr.startswith("data_builders: found no package array_record")
  assert found.stderr.endswith("pip install 'dicexmbd-jax[train]'\n")
  assert found.stderr.count("\n") == 1


def test_a_store_without_its_file_system_names_the_extra(monkeypatch):
  block(monkeypatch, "s3fs")
  path = pathlib.Path("s3://bucket/a.ome.zarr")
  wanted = (
    "s3://bucket/a.ome.zarr: found no package s3fs, expected the extra remote: "
    "pip install 'dicexmbd-jax[remote]'"
  )
  for read in (ome_zarr.hash_store, lambda path: list(open_arrays(path))):
    with pytest.raises(ValueError) as caught:
      read(path)
    assert str(caught.value) == wanted


def open_arrays(path):
  with ome_zarr.open_store(path) as group:
    yield from group


def test_a_worker_without_a_package_names_the_extra():
  error = ModuleNotFoundError("No module named 'roifile'", name="roifile")
  assert pool.describe_error(error, "a.zip") == (
    "a.zip: found no package roifile, expected the extra teach: "
    "pip install 'dicexmbd-jax[teach]'"
  )
  error = ValueError("s3://a/b.zarr: found nothing, expected an image")
  assert pool.describe_error(error, pathlib.Path("s3://a/b.zarr")) == str(error)
  ours = ModuleNotFoundError("No module named 'x'", name="x")
  assert "unexpected ModuleNotFoundError" in pool.describe_error(ours, "a.zip")


@pytest.mark.parametrize("text", extras.PLUGINS)
def test_a_device_without_plugin_names_the_extra(text):
  from jax._src import xla_bridge

  assert text in inspect.getsource(xla_bridge)  # JAX still says so.
  warning = f"A device may be present, but a {text}."
  record = logging.LogRecord("jax", 30, "xla.py", 1, warning, (), None)
  assert extras.name_plugin(record)
  extra = extras.PLUGINS[text]
  assert record.getMessage() == (
    f"{warning} Expected the extra {extra}: pip install 'dicexmbd-jax[{extra}]'"
  )


def test_the_citation_is_of_this_version():
  found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  assert found["version"] == dicexmbd_jax.__version__
  assert found["license"] == PROJECT["license"]
  paper = found["references"][0]["doi"]
  assert paper in PROJECT["urls"]["Dice-XMBD (the paper)"]
