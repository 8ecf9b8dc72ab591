"""Shares of one run, each done by its own process on any machine.

    OUTPUT/shards/3-of-16.json           the record of the share's last run
    OUTPUT/shards/3-of-16.failures.csv   what failed in it

Who has an image is decided by the names and the bytes of all images: every
machine that sees the same ones makes the same shares, of nearly the same size.
All shares may write into one folder; no two of them write the same file.
"""

import dataclasses
import heapq
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dicexmbd_jax.io import source as source_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.runs import state as state_lib
from dicexmbd_jax.types import ImageSource, Panel, PanelRow

Path = pathlib.Path

FOLDER = "shards"


@dataclasses.dataclass(frozen=True)
class Shard:
  """One share of the images.

  Attributes:
    index: 0 to count - 1.
    count: how many shares there are.
  """

  index: int
  count: int

  def __str__(self) -> str:
    return f"{self.index}/{self.count}"

  def select(self, sources: Sequence[ImageSource]) -> tuple[ImageSource, ...]:
    """Returns the images of the share, in the order of all images."""
    shares = assign_shares(sources, self.count)
    return tuple(one for one in sources if shares[one.stem] == self.index)

  def locate(self, output: Path) -> Path:
    """Returns the path of the share's record."""
    return output / FOLDER / f"{self.index}-of-{self.count}.json"

  def locate_failures(self, output: Path) -> Path:
    """Returns the path of the share's failures."""
    return self.locate(output).with_suffix(".failures.csv")


def assign_shares(sources: Sequence[ImageSource], count: int) -> dict[str, int]:
  """Returns the index of the share of each image, by its stem.

  The largest image first, each goes to the share that has the fewest bytes so
  far, of these to the one with the fewest images, of these to the first. Of
  images of one size the lesser stem comes first. Neither the images' order nor
  where they lie counts.
  """
  sized = [(-source_lib.measure_source(one), one.stem) for one in sources]
  shares = [(0, 0, index) for index in range(min(count, len(sized)))]
  found = {}
  for size, stem in sorted(sized):
    num_bytes, num_images, index = shares[0]
    heapq.heapreplace(shares, (num_bytes - size, num_images + 1, index))
    found[stem] = index
  return found


def take(
  shard: Shard | None,
  sources: Sequence[ImageSource],
  unlisted: Sequence[tuple[Path, str]],
) -> tuple[Sequence[ImageSource], Sequence[tuple[Path, str]]]:
  """Returns what of a listing is for a share to do; None does all.

  What cannot even be listed is told by the first share.
  """
  if shard is None:
    return sources, unlisted
  return shard.select(sources), unlisted if shard.index == 0 else ()


def locate_lock(output: Path, shard: Shard | None) -> Path:
  """Returns the lock of the output folder, or of a share in it."""
  if shard is None:
    return output / ".lock"
  return shard.locate(output).with_suffix(".lock")


def sweep_temporary(
  output: Path,
  shard: Shard | None,
  sources: Sequence[ImageSource],
  suffixes: Mapping[str, str],
) -> None:
  """Removes what killed runs left; of a share, what it alone may write.

  Args:
    output: the output folder.
    shard: which share; None does all.
    sources: the images of the share.
    suffixes: kind, which is a folder's name -> suffix of the images' files.
  """
  if shard is None:
    write.sweep_temporary(output)
    return
  stems = {image.stem for image in sources}
  known = {**suffixes, "state": ".json"}

  def is_ours(path: Path) -> bool:
    suffix = known.get(path.parent.name)
    return suffix is not None and path.name.removesuffix(suffix) in stems

  write.sweep_temporary(output, is_ours)


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
    run: as `run.json` has it; `hashes` is what the share was made with.
    panel: goes into the record, so that merging needs neither file nor call.
    state: "running", "stopped" or "done".

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


def restore_panel(record: Mapping[str, Any]) -> Panel | None:
  """Returns the panel that a share was run with."""
  if record["panel"] is None:
    return None
  rows = tuple(PanelRow(**row) for row in record["panel"]["rows"])
  return Panel(Path(record["panel"]["path"]), rows)
