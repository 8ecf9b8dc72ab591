"""A run's numbers and pictures by step: CSV, PNG and TensorBoard's events."""

import csv
import functools
import io
import pathlib

import numpy as np
import tensorboardX

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
    for name, value in found.items():
      self.events.add_scalar(name, value, step)

  def write_image(self, step: int, name: str, rgb: np.ndarray):
    """Writes a picture, uint8 (y, x, 3), to strips/STEP.png and as an event."""
    write.write_png(self._strips / f"{step:08d}.png", rgb)
    self.events.add_image(name, rgb, step, dataformats="HWC")

  @functools.cached_property
  def events(self) -> tensorboardX.SummaryWriter:
    """The event file; opened at its first use: a finished run adds none."""
    # TensorBoard hides what was written after the step that a run goes on from,
    # or by a run that is begun anew.
    return tensorboardX.SummaryWriter(
      str(self._path.parent / "tensorboard"), purge_step=self._step + 1
    )

  def close(self):
    """Closes the event file, if there is one."""
    if "events" in vars(self):
      self.events.close()
