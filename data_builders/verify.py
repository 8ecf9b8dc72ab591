"""Reads every record of a built dataset again, and says what is wrong."""

import collections
import dataclasses
import pathlib

import numpy as np
from absl import logging

from data_builders import contact_sheet, report
from dicexmbd_jax.io import write
from dicexmbd_jax.train import dataset as dataset_lib
from dicexmbd_jax.train import records

SHEET = "contact_sheet.png"
_NUM_SHOWN = 12  # Patches on the contact sheet.
_NUM_LINES = 20  # Problems told one by one.


@dataclasses.dataclass
class Tally:
  """Sums over the records of one split."""

  num_records: int = 0
  num_empty: int = 0  # Targets without a pixel that is likelier cell than not.
  num_valid_px: int = 0
  num_px: int = 0
  target: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(3)
  )  # Sums over valid pixels, 0..1 each.
  image_max: float = 0.0
  images: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  groups: set[str] = dataclasses.field(default_factory=set)


def verify_dataset(output: pathlib.Path, seed: int) -> int:
  """Checks all records, prints a table, writes the contact sheet.

  Args:
    output: of the build.
    seed: which patches are shown.

  Returns:
    0: all are sound; 1: some are not, or are missing.

  Raises:
    ValueError: no dataset there, or no report of its build.
  """
  dataset = dataset_lib.open_dataset(str(output))
  expected = report.read_counts(output)
  tallies, lines, shown = {}, [], []
  rng = np.random.default_rng(seed)
  for split in dataset_lib.SPLITS:
    if split not in dataset.info.splits:
      tallies[split] = Tally()
      continue
    tally, found, some = read_split(dataset, split, rng)
    tallies[split] = tally
    lines += found
    shown += some
  lines += check_counts(tallies, expected) + check_groups(tallies)
  print(format_table(tallies))
  if shown:
    order = rng.permutation(len(shown))[:_NUM_SHOWN]
    sheet = contact_sheet.draw_sheet([shown[i] for i in order])
    write.write_png(output / SHEET, sheet)
    print(f"random patches, image beside target: {output / SHEET}")
  for line in lines[:_NUM_LINES]:
    logging.error("%s: %s", output, line)
  if len(lines) > _NUM_LINES:
    logging.error("%s: and %d more", output, len(lines) - _NUM_LINES)
  print("sound" if not lines else f"{len(lines)} problems")
  return 1 if lines else 0


def read_split(
  dataset, split: str, rng: np.random.Generator
) -> tuple[Tally, list[str], list[dict]]:
  """Reads one split.

  Returns:
    The sums, what is wrong (one line each), and records to show.
  """
  tally, lines, ids = Tally(), [], set()
  try:
    source = dataset.as_data_source(split)
    wanted = set(rng.permutation(len(source))[:_NUM_SHOWN].tolist())
  except Exception as error:  # array_record and TFDS each have their own.
    return tally, [f"{split}: cannot be opened: {_tell(error)}"], []
  shown = []
  for i in range(len(source)):
    try:
      raw = source[i]
      record = records.decode_record(raw)
    except Exception as error:
      lines.append(f"{split}: record {i} cannot be read: {_tell(error)}")
      continue
    name = record["record_id"]
    if name in ids:
      lines.append(f"{split}: record {name} is there twice")
    ids.add(name)
    lines += [f"{split}: record {name}: {e}" for e in records.check_record(raw)]
    add_record(tally, record)
    if i in wanted:
      shown.append(record)
  return tally, lines, shown


def add_record(tally: Tally, record: dict) -> None:
  """Adds one record to a split's sums."""
  is_valid = record["valid"][..., 0] > 0
  target = record["target"][is_valid]
  tally.num_records += 1
  tally.num_valid_px += int(is_valid.sum())
  tally.num_px += is_valid.size
  tally.target += target.sum(axis=0, dtype=np.float64)
  tally.num_empty += not (target[:, 2] < 0.5).any()
  tally.image_max = max(tally.image_max, float(record["image"].max()))
  tally.images[record["record_id"].rsplit(":", 2)[0]] += 1
  tally.groups.add(record["group"])


def check_counts(tallies, expected) -> list[str]:
  """Compares the records of each image with what the build reported."""
  lines = []
  for split, tally in tallies.items():
    wanted = expected.get(split, {})
    for image in sorted(wanted.keys() | tally.images.keys()):
      found = tally.images.get(image, 0)
      if found != wanted.get(image, 0):
        lines.append(
          f"{split}: found {found} records of {image}, expected "
          f"{wanted.get(image, 0)}"
        )
  if not any(tally.num_records for tally in tallies.values()):
    lines.append("found no record at all")
  elif all(t.num_empty == t.num_records for t in tallies.values()):
    lines.append("found no cell in any target")
  return lines


def check_groups(tallies) -> list[str]:
  """Says which groups are in more than one split."""
  seen: dict[str, str] = {}
  lines = []
  for split, tally in tallies.items():
    for group in sorted(tally.groups):
      if seen.setdefault(group, split) != split:
        lines.append(f"group {group} is in {seen[group]} and in {split}")
  return lines


def format_table(tallies) -> str:
  """Returns the summary, a line per split."""
  head = (
    f"{'split':<12}{'records':>8}{'images':>8}{'groups':>8}{'valid':>8}"
    f"{'nucleus':>9}{'membrane':>10}{'backgr.':>9}{'empty':>7}{'max':>7}"
  )
  rows = [head]
  for split, tally in tallies.items():
    shares = tally.target / max(tally.num_valid_px, 1)
    valid = tally.num_valid_px / max(tally.num_px, 1)
    rows.append(
      f"{split:<12}{tally.num_records:>8}{len(tally.images):>8}"
      f"{len(tally.groups):>8}{valid:>8.1%}{shares[0]:>9.1%}{shares[1]:>10.1%}"
      f"{shares[2]:>9.1%}{tally.num_empty:>7}{tally.image_max:>7.1f}"
    )
  return "\n".join(rows)


def _tell(error: Exception) -> str:
  return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
