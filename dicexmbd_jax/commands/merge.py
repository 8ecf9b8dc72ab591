"""`predict --merge`: one report and one set of tables over all shares.

Needs no network, no accelerator and no JAX: what the shares left in the output
folder is enough. Panel, configuration and weights are those of the share that
was run last; a result that was made with others counts as missing.
"""

import csv
import dataclasses
import datetime
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import listing, source
from dicexmbd_jax.runs import pool, results, shards, state
from dicexmbd_jax.runs.failures import FailureLog, describe_source
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path
Record = Mapping[str, Any]

# Of a share's record; the run's has `shards` instead.
_OF_SHARES_ALONE = ("state", "shard", "panel")


@dataclasses.dataclass(frozen=True)
class Request:
  """Which images, and the folder that their shares wrote into.

  Attributes:
    images: folder, file or glob.
    output: the shares' output folder.
    panel_path: to compare with the shares', or None.
    model_path: to compare with the shares', or None.
  """

  images: str
  output: Path
  panel_path: Path | None = None
  model_path: Path | None = None


def run(flags) -> int:
  """Merges the shares in an output folder; returns the exit code.

  Args:
    flags: images, output; panel and checkpoint are compared with the shares'
      if they are given; shard must not be given.

  Returns:
    0: all images are there; 1: some failed or are missing; 2: wrong call.
  """
  if flags.shard is not None:
    logging.error("--merge: found --shard beside it, expected one of both")
    return 2
  return run_request(
    Request(
      images=flags.images,
      output=Path(flags.output),
      panel_path=Path(flags.panel) if flags.panel else None,
      model_path=Path(flags.checkpoint) if flags.checkpoint else None,
    )
  )


def run_request(request: Request) -> int:
  """Does what is asked for; returns the exit code, as `run`."""
  started = time.perf_counter()
  output = request.output
  failures = FailureLog()
  try:
    records = shards.read_records(output)
    newest = max(records, key=lambda record: record["written_unix_s"])
    check_files(request, newest)
    panel = shards.restore_panel(newest)
    sources, unlisted = listing.list_stacks(request.images, panel)
    for path, message in unlisted:
      failures.add("", path, ValueError(message))
    records = [record for record in records if is_same_run(record, newest)]
    told = read_failures(output, records)
    stems, missing = sort_images(output, sources, newest, told, failures)
    record = describe_merge(records, newest, started)
    counts = {"num_images": len(stems), "num_failed": len(failures)}
    counts["num_missing"] = len(missing)
    names = [image.stem for image in sources]
    unlisted_files = [path for path, _ in unlisted]
    state.retire_files(output, results.FILES, names, unlisted_files)
    results.write_run(output, stems, failures, panel, {**record, **counts})
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, output))
    return 2
  if missing:
    lost = ", ".join(f"--shard={shard}" for shard in list_lost(missing, newest))
    logging.error("%d images are missing; run again: %s", len(missing), lost)
  logging.info("%d images: %s", len(stems), output / "report.html")
  return 1 if failures else 0


def check_files(request: Request, newest: Record) -> None:
  """Raises a ValueError where a file named in the call is not the shares'."""
  files = {"panel": request.panel_path, "model": request.model_path}
  for name, file in files.items():
    if not file or (name == "model" and newest["method"] != "network"):
      continue
    if hash_file(name, file) != newest["hashes"][name]:
      raise ValueError(
        f"{file}: found another {name} than that of share {newest['shard']}, "
        "expected the same"
      )


def hash_file(name: str, path: Path) -> str:
  """Returns the hash of a panel or of a model's weights as a state has it."""
  if name == "panel":
    return source.hash_source(ImageSource("panel", path))
  return config_lib.hash_model(path)


def sort_images(
  output: Path,
  sources: Sequence[ImageSource],
  newest: Record,
  told: Mapping[str, tuple[str, ValueError]],
  failures: FailureLog,
) -> tuple[list[str], list[str]]:
  """Returns the stems of the images that are done and of those missing.

  An image that is not done and whose share told a failure has failed; else it
  is missing, which is a failure as well. Both are added to `failures`.
  """
  done, missing = [], []
  for image in sources:
    reason = results.find_fault(output, image.stem, newest["hashes"])
    if reason is None:
      done.append(image.stem)
    elif image.stem in told:
      failures.add(image.stem, *told[image.stem])
    else:
      missing.append(image.stem)
      [shard] = list_lost([image.stem], newest)
      wanted = f"expected one of this run; run --shard={shard} again"
      failures.add(
        image.stem, describe_source(image), ValueError(f"{reason}, {wanted}")
      )
  return done, missing


def read_failures(
  output: Path, records: Sequence[Record]
) -> dict[str, tuple[str, ValueError]]:
  """Returns file and error of the images that shares told as failed.

  Raises:
    ValueError: a damaged table.
  """
  told = {}
  for record in records:
    path = shards.parse_shard(record["shard"]).locate_failures(output)
    if not path.is_file():  # Running, or killed.
      continue
    try:
      with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
          told[row["image"]] = (row["file"], ValueError(row["error"]))
    except (ValueError, KeyError, csv.Error) as error:
      raise ValueError(
        f"{path}: found a damaged table ({error}), expected the failures of a "
        f"share; run --shard={record['shard']} again"
      ) from error
  return told


def list_lost(stems: Sequence[str], newest: Record) -> list[str]:
  """Returns the shares that images fall into, as 3/16, without repeats."""
  count = shards.parse_shard(newest["shard"]).count
  indices = {shards.assign_shard(stem, count) for stem in stems}
  return [f"{index}/{count}" for index in sorted(indices)]


def describe_merge(
  records: Sequence[Record], newest: Record, started: float
) -> dict[str, Any]:
  """Returns the record of the run: as the newest share, all shares' times."""
  run = {k: v for k, v in newest.items() if k not in _OF_SHARES_ALONE}
  merge_s = time.perf_counter() - started
  shares_s = sum(record["seconds"]["total"] for record in records)
  return {
    **run,
    "command": shlex.join(["dicexmbd", *sys.argv[1:]]),
    "finished": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    "device": ", ".join(sorted({record["device"] for record in records})),
    "seconds": {"total": round(shares_s + merge_s, 3)},
    "shards": {
      record["shard"]: {
        name: record[name] for name in ("state", "finished", "num_images")
      }
      for record in records
    },
  }


def is_same_run(record: Record, newest: Record) -> bool:
  """Whether a share is of the newest one's run: as many shares, same hashes."""
  counts = [shards.parse_shard(one["shard"]).count for one in (record, newest)]
  return record["hashes"] == newest["hashes"] and counts[0] == counts[1]
