"""`launch/Dockerfile` and `launch/apptainer.def`: one image, no root in it."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = (ROOT / "launch/Dockerfile").read_text()
APPTAINER = (ROOT / "launch/apptainer.def").read_text()


def find_copies():
  """Returns what is copied into the image from the project's folder."""
  lines = re.findall(r"^COPY (.*)$", DOCKER, re.MULTILINE)
  return {name for line in lines for name in line.split()[:-1]}


def test_what_is_copied_is_there_and_not_ignored():
  ignored = (ROOT / ".dockerignore").read_text().splitlines()
  let_in = {line[1:] for line in ignored if line.startswith("!")}
  assert find_copies() == let_in
  assert all((ROOT / name).exists() for name in let_in)
  [files] = re.findall(r"%files\n(.*?)\n\n", APPTAINER, re.DOTALL)
  assert {line.split()[0] for line in files.splitlines()} == let_in


def test_the_container_is_not_roots():
  words = re.findall(r"^(\w+) (.*)$", DOCKER, re.MULTILINE)
  [user] = [value for name, value in words if name == "USER"]
  assert int(user) > 0
  after = DOCKER.partition(f"USER {user}")[2]
  assert "RUN" not in after


def test_both_install_and_compile_the_same():
  def normalise(text):
    text = re.sub(r"\\\n", " ", text).replace("/opt/venv/bin/", "")
    return " ".join(text.split())

  docker, apptainer = normalise(DOCKER), normalise(APPTAINER)
  base = re.search(r"BASE=(\S+)", docker)[1]
  assert f"From: {base}" in apptainer
  [found] = re.findall(r"apt-get install [\w\s=/.-]+?(?= &&)", docker)
  assert found in apptainer
  for line in (
    "DICEXMBD_CACHE=/opt/cache",
    "NUMBA_CPU_NAME=generic",
    "mkdir -p /opt/cache",
    "python3 /opt/compile_all.py",
  ):
    assert line in docker
    assert apptainer.count(line) == docker.count(line) + ("=" in line), line
