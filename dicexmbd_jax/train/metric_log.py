"""A run's numbers and pictures by step: CSV, PNG and TensorBoard's events."""

import contextlib
import csv
import functools
import io
import pathlib
import time
from collections.abc import Iterator

import numpy as np
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2, summary_pb2

from dicexmbd_jax.io import write


class MetricLog:
  """Appends rows to metrics.csv, and events to tensorboard/."""

  def __init__(self, workdir: pathlib.Path, step: int = 0):
    """Drops rows after `step`, from which a run goes on."""
    workdir = pathlib.Path(workdir)
    self._path, self._strips = workdir / "metrics.csv", workdir / "strips"
    self._step = step
    self._rows: list[dict] = []
    if self._path.exists():
      with self._path.open() as file:
        rows = csv.DictReader(file)
        self._rows = [row for row in rows if int(row["step"]) <= step]

  def write(self, step: int, found: dict[str, float]):
    """Adds the numbers of a step."""
    self._rows.append({"step": step} | found)
    names = list(dict.fromkeys(name for row in self._rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(self._rows)
    write.write_text(self._path, text.getvalue())
    self.events.add(
      step, *(summary.scalar(name, value) for name, value in found.items())
    )

  def write_image(self, step: int, name: str, rgb: np.ndarray):
    """Writes a picture, uint8 (y, x, 3), to strips/STEP.png and as an event."""
    write.write_png(self._strips / f"{step:08d}.png", rgb)
    self.events.add(step, summary.image(name, rgb, dataformats="HWC"))

  @functools.cached_property
  def events(self) -> "_Events":
    """The event file; opened at its first use: a finished run adds none."""
    return _Events(self._path.parent / "tensorboard", self._step)

  def close(self):
    """Closes the event file, if there is one."""
    if "events" in vars(self):
      self.events.close()


class _Events:
  """TensorBoard's event file, written at once.

  tensorboardX's SummaryWriter has a thread for it, and waits for ever where
  that thread has met a full disk.
  """

  def __init__(self, folder: pathlib.Path, step: int):
    """Opens a file of its own for a run that goes on after `step`."""
    self._folder = folder
    with self._name_folder():
      folder.mkdir(parents=True, exist_ok=True)
      self._writer = event_file_writer.EventsWriter(str(folder / "events"))
      # TensorBoard hides what was written after this step, or by a run that is
      # begun anew.
      begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._writer.write_event(
        event_pb2.Event(step=step + 1, session_log=begin)
      )

  def add(self, step: int, *summaries: summary_pb2.Summary):
    """Writes what belongs to a step.

    Raises:
      OSError: names the folder.
    """
    with self._name_folder():
      for found in summaries:
        self._writer.write_event(
          event_pb2.Event(wall_time=time.time(), step=step, summary=found)
        )
      self._writer.flush()

  def close(self):
    """Closes the file.

    Raises:
      OSError: names the folder.
    """
    with self._name_folder():
      self._writer.close()

  @contextlib.contextmanager
  def _name_folder(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(self._folder)) from error
