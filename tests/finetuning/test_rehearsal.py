import time

import numpy as np

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.finetuning import patches


def make_config():
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  config.train.crop_px = 32
  return config


def test_simulated_tissue_that_judges_is_never_trained_on(
  tmp_path, monkeypatch
):
  trained = []
  real = patches.simulate_sample

  def listen(words, *arguments):
    trained.append(words)
    return real(words, *arguments)

  config = make_config()
  judging = patches.simulate_judging(config, "cells", 5)
  again = patches.simulate_judging(config, "cells", 5)
  assert len(judging) == patches.NUM_JUDGING
  for one, other in zip(judging, again, strict=True):
    np.testing.assert_array_equal(one.cells, other.cells)
  assert {one.cells.shape for one in judging} == {(108, 108)}
  monkeypatch.setattr(patches, "simulate_sample", listen)
  patches.write_rehearsal(tmp_path / "all", config, "cells", (600.0, 5))
  assert len(trained) == patches.MAX_SIMULATED
  names = {f"simulated_{number}" for _, number in trained}
  assert not names & {one.name for one in judging}


def test_simulating_ends_when_its_time_is_over(tmp_path, monkeypatch):
  made = []
  real = patches.simulate_sample

  def listen(words, *arguments):
    made.append(words)
    return real(words, *arguments)

  monkeypatch.setattr(patches, "simulate_sample", listen)
  started = time.monotonic()
  monkeypatch.setattr(patches.time, "monotonic", lambda: started)
  patches.write_rehearsal(tmp_path, make_config(), "cells", (-1.0, 0))
  assert len(made) == patches.MIN_SIMULATED
