"""Numbers of a run: CSV that a run which goes on can add to, and events."""

import numpy as np
import pandas as pd

from dicexmbd_jax.train.metric_log import MetricLog


def test_rows_after_the_step_are_dropped(tmp_path):
  log = MetricLog(tmp_path)
  for step in (10, 20, 30):
    log.write(step, {"loss": step / 10})
  log.close()
  log = MetricLog(tmp_path, 20)
  log.write(25, {"loss": 9.0, "validation_loss": 1.0})
  log.close()
  table = pd.read_csv(tmp_path / "metrics.csv")
  assert table["step"].tolist() == [10, 20, 25]
  assert table["loss"].tolist() == [1.0, 2.0, 9.0]
  assert table["validation_loss"].isna().tolist() == [True, True, False]


def test_events_and_pictures_are_written(tmp_path):
  log = MetricLog(tmp_path)
  log.write(5, {"loss": 0.25})
  log.write_image(5, "validation", np.zeros((4, 6, 3), np.uint8))
  log.close()
  assert (tmp_path / "strips" / "00000005.png").is_file()
  events = b"".join(
    path.read_bytes() for path in (tmp_path / "tensorboard").iterdir()
  )
  assert b"loss" in events
  assert b"validation" in events
  assert b"\x89PNG" in events
