"""`train` as its users call it: a model folder that predict can use."""

import json

import pandas as pd
import pytest

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import checkpoint
from dicexmbd_jax.simulate import study

CONFIG = """
from ml_collections import ConfigDict
from configs import default

def get_config():
  config = default.get_config()
  config.model.update(dict(width=2, depth=1))
  config.predict.update(dict(tile_px=64, batch_size=1))
  config.train.update(dict(num_steps=4, report_steps=2, warmup_steps=1,
                           batch_size=2, crop_px=32, window_px=48))
  config.train.sources = ConfigDict(dict(simulated=dict(
      images={folder!r} + "/img", panel={folder!r} + "/panel.csv",
      masks={folder!r} + "/truth/masks", share=1.0,
      validation=("ROI002",), unseen=("ROI003",))))
  return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("study")
  list(study.simulate_study(folder, 3, 0, 60))
  (folder / "mine.py").write_text(CONFIG.format(folder=str(folder)))
  return folder


def call(folder, *more, workdir="model"):
  return program.main(
    [
      "train",
      f"--config={folder / 'mine.py'}",
      f"--workdir={folder / workdir}",
      *more,
    ]
  )


def test_training_writes_a_model_that_predict_takes(folder):
  assert call(folder) == 0
  log = pd.read_csv(folder / "model/log.csv")
  assert list(log) == ["step", "loss", "simulated/ROI002"]
  assert list(log["step"]) == [2, 4]
  assert log["simulated/ROI002"].between(0, 1).all()
  code = program.main(
    [
      "predict",
      f"--images={folder / 'img/ROI003.tiff'}",
      f"--panel={folder / 'panel.csv'}",
      f"--output={folder / 'out'}",
      f"--checkpoint={folder / 'model'}",
    ]
  )
  assert code == 0
  run = json.loads((folder / "out/run.json").read_text())
  assert run["model"]["sha256"] == checkpoint.hash_model(folder / "model")


def test_training_goes_on_from_given_weights(folder):
  assert call(folder, workdir="first") == 0
  start = f"--checkpoint={folder / 'first'}"
  still = "--config.train.learning_rate=0.0"
  assert call(folder, start, still, workdir="second") == 0
  assert (folder / "first/params.npz").exists()
  wider = "--config.model.width=4"
  assert call(folder, start, wider, workdir="third") == 2


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config.train.sources.simulated.masks=/nowhere", "/nowhere"),
    ("--config.train.sources.simulated.images=/nowhere", "/nowhere"),
    ("--config.train.sources.simulated.panel=/nowhere.csv", "/nowhere.csv"),
    ("--config.train.optimizer=best", "train.optimizer"),
  ],
)
def test_a_wrong_call_is_refused(folder, capfd, caplog, argument, message):
  assert call(folder, argument, workdir="none") == 2
  lines = capfd.readouterr().err.splitlines()
  lines += [record.getMessage() for record in caplog.records]
  assert any(message in line for line in lines)


def test_masks_of_another_size_are_refused(folder, tmp_path, caplog):
  list(study.simulate_study(tmp_path, 3, 0, 50))
  masks = f"--config.train.sources.simulated.masks={tmp_path / 'truth/masks'}"
  assert call(folder, masks, workdir="none") == 2
  assert "found (50, 50) px, expected (60, 60)" in caplog.text
