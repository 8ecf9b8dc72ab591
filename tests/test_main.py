"""The command line itself: help, and calls that cannot be meant."""

import importlib
import inspect
import os
import signal
import subprocess
import sys

import pytest

import dicexmbd_jax
from dicexmbd_jax import __main__ as program
from dicexmbd_jax.runs import pool


def test_help_names_every_command(capsys):
  assert program.main(["--help"]) == 0
  text = capsys.readouterr().out
  assert all(f"  {name} " in text for name in program.COMMANDS)


@pytest.mark.parametrize("name", program.COMMANDS)
def test_a_commands_help_names_its_flags(name, capsys):
  assert program.main([name, "--help"]) == 0
  text = capsys.readouterr().out
  for flag in program.COMMANDS[name].flags:
    assert f"--{flag} " in text


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_has_its_module_and_known_flags(name):
  file = name.replace(" ", "_")
  module = importlib.import_module(f"dicexmbd_jax.commands.{file}")
  assert callable(module.run)
  command = program.COMMANDS[name]
  assert set(command.flags) <= set(program.FLAGS)
  assert set(command.required) <= set(command.flags)


def test_home_is_found_behind_an_equals_sign(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  words = ["--images=~/a~b.tiff", "--output", "~/out"]
  values = program.parse_flags("predict", words)
  assert values.images == "/home/me/a~b.tiff"
  assert values.output == "/home/me/out"
  words = ["--predicted=A=~/a", "--reference=b~/c", "--output=~"]
  values = program.parse_flags("evaluate", words)
  assert values.predicted == ["A=/home/me/a"]
  assert (values.reference, values.output) == ("b~/c", "/home/me")


@pytest.mark.parametrize(
  ("is_kept", "num_cores", "words", "is_started"),
  [
    (False, 2, (), True),
    (True, 2, (), False),
    (False, 1, (), False),
    (False, 2, ("--method=distance",), False),
    (False, 2, ("--merge",), False),
    (False, 2, ("--num_workers=0",), False),
    (False, 2, ("--num_workers=1",), True),
  ],
)
def test_a_first_run_compiles_in_two_processes(
  is_kept, num_cores, words, is_started, monkeypatch
):
  started = []
  monkeypatch.setattr(program.compiled, "keep_machine_code", lambda: None)
  monkeypatch.setattr(program.compiled, "keeps_kernels", lambda: is_kept)
  monkeypatch.setattr(pool, "count_cores", lambda: num_cores)
  monkeypatch.setattr(pool, "start_beside", lambda *all_: started.append(all_))
  for name in ("predict", "merge"):
    module = importlib.import_module(f"dicexmbd_jax.commands.{name}")
    monkeypatch.setattr(module, "run", lambda _: 0)
  assert program.main(["predict", "--images=x", "--output=y", *words]) == 0
  assert bool(started) == is_started
  for module, function, *arguments in started:
    called = getattr(importlib.import_module(module), function)
    inspect.signature(called).bind(*arguments)


def test_an_interrupted_command_says_so_in_one_line(monkeypatch, capsys):
  def interrupt(_):
    raise KeyboardInterrupt

  module = importlib.import_module("dicexmbd_jax.commands.simulate")
  monkeypatch.setattr(module, "run", interrupt)
  assert program.main(["simulate", "--output=x"]) == 130
  assert capsys.readouterr().err == "dicexmbd: interrupted\n"


def test_no_command_is_a_wrong_call_that_shows_them(capsys):
  assert program.main([]) == 2
  assert "teach rank" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["segmentize"], "found command 'segmentize'"),
    (["predict"], "expected also --images, --output"),
    (["predict", "--images=x", "--output="], "expected also --output"),
    (["predict", "--image=x"], "image"),
    (["simulate", "--output=x", "--num_images=few"], "few"),
    (["simulate", "--output=x", "--config.seed=1"], "expected none"),
    (["train", "--workdir=x"], "expected also --config"),
    (["predict", "--images=x", "--output=y", "z"], "found 'z'"),
  ],
)
def test_wrong_calls_are_refused_in_one_line(arguments, message, capsys):
  assert program.main(arguments) == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert message in lines[0]


def test_version_is_told(capsys):
  assert program.main(["--version"]) == 0
  assert capsys.readouterr().out == f"dicexmbd {dicexmbd_jax.__version__}\n"


def test_a_reader_that_leaves_early_gets_no_traceback():
  reading, writing = os.pipe()
  os.close(reading)
  ended = subprocess.run(
    [sys.executable, "-m", "dicexmbd_jax", "--help"],
    stdout=writing,
    stderr=subprocess.PIPE,
  )
  os.close(writing)
  assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize(
  ("words", "flag"),
  [
    (["train", "--config=configs/tiny.py", "--workdir=w",
      "--checkpoint=gs://a/b"], "checkpoint"),
    (["predict", "--images=img", "--output=s3://a/b"], "output"),
    (["predict", "--images=https://a/b.tiff", "--output=o"], "images"),
    (["segment", "--probabilities=p", "--output=o", "--shares=s3://a"],
     "shares"),
    (["convert", "--results=gs://a/b", "--output=o"], "results"),
  ],
)  # fmt: skip
def test_addresses_of_buckets_are_refused_in_one_line(words, flag, capsys):
  assert program.main(words) == 2
  line = capsys.readouterr().err.splitlines()[0]
  assert f"--{flag}: found" in line
  assert "expected a path of this machine" in line


@pytest.mark.parametrize(
  ("number", "code", "line"),
  [
    (signal.SIGTERM, 143, "dicexmbd: terminated\n"),
    (signal.SIGINT, 130, "dicexmbd: interrupted\n"),
  ],
)
def test_a_signal_in_the_garbage_collector_is_not_lost(number, code, line):
  script = f"""
import gc, os, signal, sys, time, types
from dicexmbd_jax import __main__ as program

# Shells start what runs in the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
def lose_one(phase, info):
  os.kill(os.getpid(), {int(number)})
  time.sleep(0.001)

def lose_the_second(phase, info):
  time.sleep(5)  # Until it comes, and ends in here.

def work(values):
  for callback in (lose_one, lose_the_second):
    gc.callbacks.append(callback)
    try:
      gc.collect()
    finally:
      gc.callbacks.remove(callback)
  time.sleep(20)

name = "dicexmbd_jax.commands.simulate"
sys.modules[name] = types.SimpleNamespace(run=work)
sys.argv = ["dicexmbd", "simulate", "--output=out"]
program.run()
"""
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
  )
  assert (done.returncode, done.stderr) == (code, line)


def test_what_a_command_imports_is_no_garbage():
  script = """
import gc
from dicexmbd_jax import __main__ as program

before = gc.get_stats()
program.import_command("segment")
assert gc.get_stats() == before
assert gc.isenabled() and gc.get_freeze_count() > 10_000
frozen = gc.get_freeze_count()
program.import_command("segment")
assert gc.get_freeze_count() == frozen
"""
  subprocess.run([sys.executable, "-c", script], check=True)
