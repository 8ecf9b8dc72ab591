"""Shares of one run, each done by its own process on any machine.

    OUTPUT/shards/3-of-16.json           the record of the share's last run
    OUTPUT/shards/3-of-16.failures.csv   what failed in it

Who has an image is decided by a hash of its stem alone: no share need know of
another, and a list of images that grew moves none of them. All shares write
into one folder; no two of them write the same file.
"""

import dataclasses
import hashlib
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from dicexmbd_jax.runs import state as state_lib
from dicexmbd_jax.types import Panel, PanelRow

Path = pathlib.Path

FOLDER = "shards"


@dataclasses.dataclass(frozen=True)
class Shard:
  """One share: the images whose hash leaves `index` when divided by `count`.

  Attributes:
    index: 0 to count - 1.
    count: how many shares there are.
  """

  index: int
  count: int

  def __str__(self) -> str:
    return f"{self.index}/{self.count}"

  def has(self, name: str) -> bool:
    """Whether the image, or file, of this name is in the share."""
    return assign_shard(name, self.count) == self.index

  def locate(self, output: Path) -> Path:
    """Returns the path of the share's record."""
    return output / FOLDER / f"{self.index}-of-{self.count}.json"

  def locate_failures(self, output: Path) -> Path:
    """Returns the path of the share's failures."""
    return self.locate(output).with_suffix(".failures.csv")


def assign_shard(name: str, count: int) -> int:
  """Returns the index of the share that a name falls into.

  The first eight bytes of the name's SHA-256, as a big-endian number, modulo
  `count`: the same on every machine and in every version of Python.
  """
  digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
  return int.from_bytes(digest[:8], "big") % count


def parse_shard(text: str) -> Shard:
  """Reads "3/16": the share's index, from 0, and the number of shares.

  Raises:
    ValueError: anything else, or an index that is not below the number.
  """
  match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
  if match is None:
    raise ValueError(f"--shard: found {text!r}, expected INDEX/COUNT, as 3/16")
  shard = Shard(int(match[1]), int(match[2]))
  if shard.index >= shard.count:
    raise ValueError(
      f"--shard: found {text!r}, expected an index below the number of "
      "shares: they count from 0"
    )
  return shard


def write_record(
  output: Path,
  shard: Shard,
  run: Mapping[str, Any],
  panel: Panel | None,
  state: str,
):
  """Writes the record of a share.

  Args:
    output: the output folder.
    shard: which share.
    run: as `run.json` has it.
    panel: goes into the record, so that merging needs neither file nor call.
    state: "running" or "done".

  Raises:
    OSError: the file cannot be written; names it.
  """
  rows = [dataclasses.asdict(row) for row in panel.rows] if panel else None
  path = str(panel.path) if panel else None
  record = {
    **run,
    "state": state,
    "written_unix_s": time.time(),
    "shard": str(shard),
    "panel": {"path": path, "rows": rows} if panel else None,
  }
  state_lib.write_sealed(shard.locate(output), record)


def read_records(output: Path) -> list[dict[str, Any]]:
  """Returns the records of all shares that were ever run into a folder.

  Raises:
    ValueError: there is none, or one is no record.
  """
  paths = sorted((output / FOLDER).glob("*-of-*.json"))
  if not paths:
    raise ValueError(
      f"{output / FOLDER}: found no shares, expected those of predict --shard"
    )
  return [_read_record(path) for path in paths]


def _read_record(path: Path) -> dict[str, Any]:
  try:
    return state_lib.read_sealed(path)
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{path}: found no record of a share, or a damaged one, expected one as "
      "predict --shard wrote it; run this share again"
    ) from error


def restore_panel(record: Mapping[str, Any]) -> Panel | None:
  """Returns the panel that a share was run with."""
  if record["panel"] is None:
    return None
  rows = tuple(PanelRow(**row) for row in record["panel"]["rows"])
  return Panel(Path(record["panel"]["path"]), rows)
