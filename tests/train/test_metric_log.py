"""Numbers of a run: CSV that a run which goes on can add to, and events."""

import struct

import numpy as np
import pandas as pd
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

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


def test_a_full_disk_ends_the_run_and_names_the_folder(tmp_path, monkeypatch):
  log = MetricLog(tmp_path)
  log.write(1, {"loss": 0.5})

  def fail(writer):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(EventsWriter, "flush", fail)
    for _ in range(30):  # More than any queue takes.
      with pytest.raises(OSError) as caught:
        log.write(2, {"loss": 0.25})
      assert caught.value.filename == str(tmp_path / "tensorboard")
  log.close()


def test_events_begin_where_a_run_goes_on(tmp_path):
  log = MetricLog(tmp_path, 20)
  log.write(25, {"loss": 0.5, "rate": 2.0})
  log.close()
  [path] = (tmp_path / "tensorboard").iterdir()
  events = list(read_events(path))
  assert [event.step for event in events] == [0, 21, 25, 25]
  assert events[1].session_log.status == event_pb2.SessionLog.START
  values = {
    event.summary.value[0].tag: event.summary.value[0].simple_value
    for event in events[2:]
  }
  assert values == {"loss": 0.5, "rate": 2.0}


def read_events(path):
  """Yields the events of a file: length, checksum, event, checksum."""
  data = path.read_bytes()
  while data:
    [length] = struct.unpack("<Q", data[:8])
    yield event_pb2.Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]
