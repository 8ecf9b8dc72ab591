"""`launch/nextflow`: parsed, held to nf-core's habits, its scripts executed."""

import json
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import yaml

from dicexmbd_jax import __version__
from dicexmbd_jax.io import write

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "launch/nextflow"
MODULES = {
  name: FOLDER / f"modules/local/dicexmbd/{name}/main.nf"
  for name in ("predict", "merge")
}
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Ir191,DNA1_Ir191,1,1,0
Sm152,CD45_Sm152,1,0,1
"""


@pytest.mark.parametrize("path", [FOLDER / "main.nf", *MODULES.values()])
def test_files_are_nextflow(path):
  parser = pytest.importorskip("reftrace")
  result = parser.Module.from_file(str(path))
  found = getattr(result, "module", result)
  names = [process.name for process in found.processes]
  is_module = path in MODULES.values()
  wanted = [f"DICEXMBD_{path.parent.name.upper()}"] if is_module else []
  assert names == wanted


def test_the_workflow_includes_and_configures_what_is_there():
  text = (FOLDER / "main.nf").read_text()
  included = dict(re.findall(r"include \{ (\w+) +\} from '(.*)'", text))
  assert included == {
    f"DICEXMBD_{name.upper()}": f"./{path.relative_to(FOLDER)}"[:-3]
    for name, path in MODULES.items()
  }
  config = (FOLDER / "nextflow.config").read_text()
  assert set(re.findall(r"withName: '(\w+)'", config)) == set(included)
  [declared] = re.findall(r"params \{(.*?)\n\}", config, re.DOTALL)
  names = set(re.findall(r"^ +(\w+) +=", declared, re.MULTILINE))
  used = set(re.findall(r"params\.(\w+)", text + config))
  assert used == names


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_what_nf_core_wants(name):
  text = MODULES[name].read_text()
  order = ["tag", "label", "input:", "output:", "when:", "script:", "stub:"]
  places = [text.index(f"\n    {word}") for word in order]
  assert places == sorted(places)
  assert "task.ext.args ?: ''" in text
  assert 'path "versions.yml"' in text
  emitted = re.findall(r"emit: (\w+)", text)
  told = yaml.safe_load(MODULES[name].with_name("meta.yml").read_text())
  assert [key for one in told["output"] for key in one] == emitted
  for script in find_scripts(text):
    assert "cat <<-END_VERSIONS > versions.yml" in script


def find_scripts(text):
  """Returns the shell text of `script:` and of `stub:`, as a file has it."""
  blocks = re.findall(r'"""\n(.*?)"""', text, re.DOTALL)
  return [textwrap.dedent(block) for block in blocks]


def fill(script, **values):
  """Returns the script as Nextflow would write it for a task."""
  for name, value in values.items():
    script = re.sub(rf"(?<!\\)\$\{{{re.escape(name)}\}}", value, script)
  assert not re.search(r"(?<!\\)\$[\w{]", script), script
  return script.replace("\\\\", "\\").replace("\\$", "$")


def run_task(folder, script, program):
  """Runs a task in its folder as Nextflow does; returns its versions."""
  subprocess.run(
    ["bash", "-euo", "pipefail", "-c", script],
    cwd=folder,
    env={"PATH": f"{program}:/usr/bin:/bin"},
    check=True,
  )
  return yaml.safe_load((folder / "versions.yml").read_text())


@pytest.fixture
def study(tmp_path):
  random = np.random.default_rng(0)
  for number in range(3):
    counts = random.poisson(3, (60, 60, 2)).astype(np.float32)
    names = ("DNA1_Ir191", "CD45_Sm152")
    write.write_stack(tmp_path / f"img/ROI{number}.ome.tiff", counts, names)
  whole = (tmp_path / "img/ROI0.ome.tiff").read_bytes()
  (tmp_path / "img/BAD.tiff").write_bytes(whole[:-2000])
  (tmp_path / "panel.csv").write_text(PANEL)
  program = tmp_path / "bin/dicexmbd"
  program.parent.mkdir()
  root = FOLDER.parents[1]
  program.write_text(
    f"#!/bin/sh\nPYTHONPATH='{root}' exec '{sys.executable}' -m dicexmbd_jax "
    '"$@"\n'
  )
  program.chmod(0o755)
  return tmp_path


def stage(folder, **links):
  """Makes a task's folder, with links to what it may see."""
  for name, target in links.items():
    path = folder / name.replace("__", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
  return folder


@pytest.mark.slow
def test_tasks_in_folders_of_their_own_make_one_result(study):
  script, _ = find_scripts(MODULES["predict"].read_text())
  values = {"task.process": "P", "task.cpus": "1"}
  links = {}
  for index in range(2):
    folder = stage(study / f"work/{index}", images__img=study / "img")
    (folder / "panel.csv").symlink_to(study / "panel.csv")
    text = fill(
      script,
      prefix=f"share_{index}",
      panel_arg="--panel='panel.csv'",
      args="--method=distance",
      **values,
      **{"meta.share": f"{index}/2"},
    )
    versions = run_task(folder, text, study / "bin")
    assert versions == {"P": {"dicexmbd": __version__}}
    links[f"shares__share_{index}"] = folder / f"share_{index}"
  script, _ = find_scripts(MODULES["merge"].read_text())
  folder = stage(study / "work/m", images__img=study / "img", **links)
  text = fill(script, prefix="results", args="", **values)
  run_task(folder, text, study / "bin")
  record = json.loads((folder / "results/run.json").read_text())
  assert (record["num_images"], record["num_missing"]) == (3, 0)
  assert record["num_failed"] == 1
  declared = MODULES["merge"].read_text()
  for pattern in re.findall(r'path\("\$\{prefix\}/(.+?)"\)', declared):
    assert list((folder / "results").glob(pattern)), pattern
