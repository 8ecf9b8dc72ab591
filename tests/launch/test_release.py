"""`launch/release.py`: the archives, and what a machine with nothing gets."""

import email
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
URL = "https://example.org/owner/dicexmbd_jax"
# Calls in an environment without extras, and the extra that each misses.
CALLS = {
  "simulate --output=study --num_images=1 --size_px=96": "",
  "predict --images=study/img --panel=study/panel.csv --output=out"
  " --num_workers=0": "",
  "segment --probabilities=out/probabilities --output=masks"
  " --num_workers=0": "",
  "evaluate --predicted=out/masks --reference=study/truth/masks"
  " --images=study/img --panel=study/panel.csv --output=scores": "",
  "convert --results=out --format=geojson --output=geojson": "",
  "export --output=model": "",
  "export --format=onnx --output=onnx": "export",
  "convert --results=out --output=cells.zarr": "spatialdata",
  "finetune --images=study/img --masks=out/masks --output=tuned": "train",
  "teach round --images=study/img --output=round": "teach",
  "predict --images=s3://bucket/a.zarr --output=far": "remote",
}


def run(words, folder, **more):
  """Runs a program as outside of the checkout."""
  environment = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONPATH", "VIRTUAL_ENV")
  }
  return subprocess.run(
    list(map(str, words)),
    capture_output=True,
    text=True,
    cwd=folder,
    env=environment,
    **more,
  )


def release(folder, *words):
  script = ROOT / "launch/release.py"
  return run([sys.executable, script, *words], folder)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
  """Returns the folder of the sdist and of the wheel made of it."""
  folder = tmp_path_factory.mktemp("release")
  pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
  found = run([*pip, "--dest", folder / "index", "setuptools>=77"], folder)
  if found.returncode:
    pytest.skip(f"no package index can be reached: {found.stderr[-200:]}")
  made = release(folder, URL, "dist")
  assert made.returncode == 0, made.stdout + made.stderr
  assert made.stdout.count("PASSED") == 2
  return folder / "dist"


@pytest.mark.parametrize("words", [(), ("example.org",), ("https://host",)])
def test_without_an_address_nothing_is_built(words, tmp_path):
  found = release(tmp_path, *words)
  assert found.returncode == 2
  assert len(found.stderr.splitlines()) == 1
  assert list(tmp_path.iterdir()) == []


def test_the_readmes_links_lead_to_files():
  text = (ROOT / "README.md").read_text()
  links = re.findall(r"\]\(([^)]+)\)", text)
  links += re.findall(r"""(?:src|href)=["']([^"']+)""", text)
  near = [link for link in links if not link.startswith("https://")]
  assert len(near) > 10
  for link in near:
    assert (ROOT / link.partition("#")[0]).exists(), link


@pytest.mark.slow
def test_the_archives_show_absolute_links(archives):
  [wheel] = archives.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    [name] = [n for n in archive.namelist() if n.endswith("/METADATA")]
    text = archive.read(name).decode()
  metadata = email.message_from_string(text)
  links = re.findall(r"\]\(([^)]+)\)", text)
  mine = [link for link in links if link.startswith(URL)]
  assert all(link.startswith("https://") for link in links)
  start = rf"{URL}/(blob|raw)/v{metadata['Version']}/"
  for link in mine:
    path = ROOT / re.sub(start, "", link)
    assert path.is_file(), link
    assert ("/raw/" in link) == (path.suffix == ".png")
  near = re.findall(r"\]\((?!https:)", (ROOT / "README.md").read_text())
  assert len(mine) == len(near)
  assert f"Repository, {URL}" in metadata.get_all("Project-URL")


@pytest.mark.slow
def test_the_archives_hold_the_package_alone(archives):
  [sdist], [wheel] = archives.glob("*.tar.gz"), archives.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  package = {name for name in names if name.startswith("dicexmbd_jax/")}
  parts = {name.partition("/")[0] for name in names}
  assert parts == {"dicexmbd_jax", "dicexmbd_jax-0.1.0.dist-info"}
  tracked = run(["git", "ls-files", "dicexmbd_jax"], ROOT).stdout.split("\n")
  assert not tracked[0] or package == set(tracked) - {""}
  with tarfile.open(sdist) as archive:
    packed = {name.partition("/")[2] for name in archive.getnames()}
  assert package | {"README.md", "LICENSE", "pyproject.toml"} <= packed


@pytest.mark.slow  # Installing takes minutes.
def test_an_empty_environment_runs_the_base(archives, tmp_path):
  home = tmp_path / "venv"
  venv.create(home, with_pip=True)
  python, program = home / "bin/python", home / "bin/dicexmbd"
  pip = [python, "-m", "pip"]
  [wheel] = archives.glob("*.whl")
  # Byte code is left to the modules that are used.
  done = run([*pip, "install", "--quiet", "--no-compile", wheel], tmp_path)
  assert done.returncode == 0, done.stderr
  listed = run([*pip, "list", "--format=freeze"], tmp_path).stdout.lower()
  found = set(re.findall(r"^([\w.-]+)==", listed, re.MULTILINE))
  assert {"dicexmbd-jax", "dicexmbd_jax"} & found
  assert not {"grain", "onnx", "scikit-learn", "tensorflow-datasets"} & found
  for words, extra in CALLS.items():
    called = run([program, *words.split()], tmp_path)
    assert "Traceback" not in called.stderr, called.stderr
    assert called.returncode == (2 if extra else 0), called.stderr
    told = f"expected the extra {extra}: pip install 'dicexmbd-jax[{extra}]'"
    assert not extra or told in called.stderr, called.stderr
  assert (tmp_path / "out/cells.h5ad").is_file()
  where = run([python, "-c", "import dicexmbd_jax as d; print(d)"], tmp_path)
  assert str(home) in where.stdout
