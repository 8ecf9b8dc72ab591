"""`plan` as its users call it, on devices that every machine has."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from dicexmbd_jax import __main__ as program

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
from configs import default

def get_config():
  config = default.get_config()
  config.model.update(dict(width=2, depth=1))
  config.records.patch_px = 16
  config.train.update(dict(batch_size=4, crop_px=16))
  config.train.augment.update(dict.fromkeys(config.train.augment, 0.0)
                              | dict(flip=False))
  return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp("plan") / "mine.py"
  path.write_text(CONFIG)
  return path


def test_a_step_is_planned_without_records(config, tmp_path, capsys):
  words = [f"--config={config}", "--topology=cpu:1", f"--output={tmp_path}"]
  words += ["--config.train.batch_size=8"]
  assert program.main(["plan", *words]) == 0
  text = capsys.readouterr().out
  assert "1 x cpu; 8 patches of 16 px a step, 8 a device; width 2" in text
  assert "costliest operations, by bytes" in text
  assert "with a batch of 8 in place of 4: learning_rate 0.0042" in text
  found = json.loads((tmp_path / "plan.json").read_text())
  assert found["num_parameters"] == 471
  # Of 8 patches of 16 x 16 px, 18 bytes a pixel, and is_real.
  assert found["memory"]["batch"] == 8 * (16 * 16 * 18 + 1)
  # Adam's two moments, and its count of steps twice.
  assert found["memory"]["optimizer"] == pytest.approx(2 * 471 * 4, abs=16)
  assert found["compiled_flops"] > found["model_flops"] > 0
  assert found["collectives"] == {} and found["seconds"] == {}
  assert (tmp_path / "step.hlo").read_text().startswith("HloModule")


def test_the_files_batch_is_rounded_up_to_one_that_fits(config, capsys):
  words = ["--topology=cpu:1", "--config.train.accumulate_steps=3"]
  assert program.main(["plan", f"--config={config}", *words]) == 0
  text = capsys.readouterr().out
  assert "batch_size: 4, which 3 parts do not divide" in text
  assert "planned with --config.train.batch_size=6, which train has" in text
  assert "1 x cpu; 6 patches of 16 px a step" in text
  # The advice starts from what the file was chosen for.
  assert "with a batch of 6 in place of 4: learning_rate" in text


@pytest.mark.slow
def test_eight_devices_share_the_batch_and_the_state(config, tmp_path):
  words = ["--topology=cpu:8", f"--output={tmp_path}", f"--config={config}"]
  words += ["--config.train.shard_above=100", "--config.model.width=8"]
  words += ["--config.train.batch_size=8"]
  subprocess.run(
    [sys.executable, "-m", "dicexmbd_jax", "plan", *words],
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    check=True,
    stdout=subprocess.DEVNULL,
  )
  found = json.loads((tmp_path / "plan.json").read_text())
  assert found["num_devices"] == 8
  assert found["memory"]["batch"] == 16 * 16 * 18 + 1
  assert found["collectives"]["all-reduce"][1] > 0
  # Adam's two moments, of which an eighth is left of all big arrays.
  whole = 2 * 4 * found["num_parameters"]
  assert whole / 8 < found["memory"]["optimizer"] < whole / 4


@pytest.mark.parametrize(
  ("words", "line"),
  [
    (["--topology=cpu:5000"], "--topology: found 'cpu:5000', expected at most"),
    (["--topology=v9:2x2"], "--topology: found 'v9:2x2', expected KIND:SHAPE"),
    (["--topology=cpu:1", "--config.train.crop_px=15"], "train.crop_px: found"),
    (["--topology=cpu:1", "--config.train.accumulate_steps=3",
      "--config.train.batch_size=5"],
     "config.train.batch_size: found 5, expected a multiple of 3"),
  ],
)  # fmt: skip
def test_wrong_calls_are_refused_in_one_line(words, line, config, caplog):
  assert program.main(["plan", f"--config={config}", *words]) == 2
  assert line in caplog.text
