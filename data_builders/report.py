"""Which image became how many records, and why others became none."""

import csv
import io
import pathlib
from collections.abc import Mapping

from data_builders.jobs import Plan
from data_builders.parts import Part
from dicexmbd_jax.io import write
from dicexmbd_jax.runs.failures import FailureLog

NAME = "report.csv"
_COLUMNS = (
  "image",
  "state",  # done, or failed: see message.
  "split",
  "group",
  "num_patches",
  "height_px",  # On the network's grid.
  "width_px",
  "kind",  # Of the teacher: maps or masks.
  "map_scale",  # Teacher pixels per image pixel.
  "file",
  "teacher",
  "nuclei",
  "message",
)


def write_report(
  folder: pathlib.Path, plan: Plan, found: Mapping[str, Part], log: FailureLog
) -> None:
  """Writes report.csv, a row per image and per failure, and failures.csv.

  Raises:
    OSError: a file cannot be written.
  """
  rows = []
  for item in plan.items:
    part, pair = found.get(item.pair.stem), item.pair
    if part is None:
      continue
    rows.append(
      {
        "image": pair.stem,
        "state": "done",
        "split": item.split,
        "group": item.group,
        "num_patches": part.num_patches,
        "height_px": part.shape[0],
        "width_px": part.shape[1],
        "kind": plan.job.kind,
        "map_scale": part.map_scale,
        "file": pair.image.path,
        "teacher": pair.teacher.path,
        "nuclei": pair.nuclei.path if pair.nuclei else "",
      }
    )
  rows += [
    {"image": stem, "state": "failed", "file": file, "message": line}
    for stem, file, line in log.rows
  ]
  text = io.StringIO()
  writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  write.write_text(folder / NAME, text.getvalue())
  log.write(folder)


def read_counts(folder: pathlib.Path) -> dict[str, dict[str, int]]:
  """Returns split -> image -> number of patches, as the build reported them.

  Raises:
    ValueError: there is no report.
  """
  counts: dict[str, dict[str, int]] = {}
  path = folder / NAME
  try:
    with path.open(newline="", encoding="utf-8") as file:
      for row in csv.DictReader(file):
        if row["state"] == "done":
          split = counts.setdefault(row["split"], {})
          split[row["image"]] = int(row["num_patches"])
  except (OSError, KeyError, ValueError, csv.Error) as error:
    raise ValueError(
      f"{path}: found {type(error).__name__}: {error}, expected a build's "
      "report"
    ) from error
  return counts


def count_failures(folder: pathlib.Path) -> int:
  """Returns the number of failures that a build reported."""
  with (folder / "failures.csv").open(newline="", encoding="utf-8") as file:
    return sum(1 for _ in csv.DictReader(file))
