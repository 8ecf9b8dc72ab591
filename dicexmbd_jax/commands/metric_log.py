"""A run's numbers by step, as CSV."""

import csv
import io
import pathlib

from dicexmbd_jax.io import write


class MetricLog:
  """Appends rows to metrics.csv."""

  def __init__(self, workdir: pathlib.Path, step: int = 0):
    """Drops rows after `step`, from which a run goes on."""
    self._path = pathlib.Path(workdir) / "metrics.csv"
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

  def write_image(self, step: int, name: str, rgb):
    """Writes a picture."""

  def close(self):
    """Nothing is open."""
