"""What a run writes: its newest network, and its best."""

import contextlib

import pytest

from configs import default
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.model import unet, weights
from dicexmbd_jax.runs import progress
from dicexmbd_jax.train import log as log_lib


@pytest.fixture
def config():
  config = default.get_config()
  config.model.update({"width": 2, "depth": 1})
  return config


@contextlib.contextmanager
def open_log(workdir, config):
  with progress.Progress(9, "step", 0) as bar:
    log = log_lib.TrainLog(workdir, config, 0, bar)
    with contextlib.closing(log):
      yield log


def test_last_is_the_newest_and_best_stays(tmp_path, config):
  run, wanted = tmp_path / "run", tmp_path / "wanted"
  models = {step: unet.build_model(config.model, step) for step in (1, 2, 3)}
  with open_log(run, config) as log:
    log.keep(models[1], {"step": 1}, is_best=False)
    assert {path.name for path in run.iterdir()} == {"last"}
    log.keep(models[2], {"step": 2}, is_best=True)
    log.keep(models[3], {"step": 3}, is_best=False)
  for name, step in (("last", 3), ("best", 2)):
    weights.write_model(wanted / name, models[step], config, "float32")
    assert weights.read_numbers(run / name) == {"step": step}
    found, expected = (
      config_lib.hash_model(folder / name) for folder in (run, wanted)
    )
    assert found == expected
