import pytest

from configs import default
from dicexmbd_jax.train import speed


def test_only_the_steps_of_this_run_count(monkeypatch):
  seconds = iter([10.0, 12.0, 12.0, 15.0, 15.0])
  monkeypatch.setattr(speed.time, "perf_counter", lambda: next(seconds))
  config = default.get_config()
  config.train.batch_size = 8
  watch = speed.Speed(config, 1199)
  assert watch.read(1200)["images_per_second"] == pytest.approx(8 / 2)
  assert watch.read(1203)["images_per_second"] == pytest.approx(3 * 8 / 3)
