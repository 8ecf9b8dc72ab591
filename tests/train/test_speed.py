import pathlib

import pytest

from configs import default
from dicexmbd_jax.train import speed


@pytest.fixture
def watch(monkeypatch):
  """A watch of eight images a step, of 0.5 TFLOP each; it starts at 10 s."""
  config = default.get_config()
  config.train.batch_size = 8
  monkeypatch.setattr(speed.time, "perf_counter", lambda: next(seconds))
  seconds = iter([10.0, 10.0, 11.5, 12.0, 12.0, 15.0, 15.0])
  made = speed.Speed(config, 1199)
  made.flops_per_image, made.peak_flops = 0.5e12, 4e12
  return made


def test_only_the_steps_of_this_run_count(watch):
  with watch.waiting():
    pass
  found = watch.read(1200)
  assert found["images_per_second"] == pytest.approx(8 / 2)
  assert found["model_tflops"] == pytest.approx(2)
  assert found["mfu"] == pytest.approx(0.5)
  assert found["input_wait"] == pytest.approx(1.5 / 2)
  found = watch.read(1203)
  assert found["images_per_second"] == pytest.approx(3 * 8 / 3)
  assert found["input_wait"] == 0


def test_a_window_that_never_comes_is_told_at_the_end(caplog):
  profile = speed.Profile("5:6", pathlib.Path("never"))
  for step in (1, 2):
    with profile.record(step):
      pass
    profile.end(step, None)
  profile.close()
  assert "--profile_steps=5:6: found no such step in this call" in caplog.text
  caplog.clear()
  speed.Profile(None, pathlib.Path("never")).close()
  assert not caplog.text
