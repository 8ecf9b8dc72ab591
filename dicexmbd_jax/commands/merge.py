"""`predict --merge`: one report and one set of tables over all shares.

Needs no network, no accelerator and no JAX: what the shares left in the output
folder, or in folders of their own, is enough. Panel, configuration and weights
are those of the share that was run last; a result that was made with others
counts as missing.
"""

import contextlib
import dataclasses
import datetime
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import logging

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import listing, source
from dicexmbd_jax.runs import gather, lock, results, shards, state
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path

# Of a share's record; the run's has `shards` instead.
_OF_SHARES_ALONE = ("state", "shard", "panel", "devices_busy")


@dataclasses.dataclass(frozen=True)
class Request:
  """Which images, and the folders that their shares wrote into.

  Attributes:
    images: folder, file or glob.
    output: the folder for the whole.
    shares: the shares' output folders, or folders of these; none: `output`.
    allow_failures: whether the run counts as done if images failed, but none
      is missing and some are done.
    overwrite: whether what another program left in `output` is replaced.
    panel_path: to compare with the shares', or None.
    model_path: to compare with the shares', or None.
  """

  images: str
  output: Path
  shares: tuple[Path, ...] = ()
  allow_failures: bool = False
  overwrite: bool = False
  panel_path: Path | None = None
  model_path: Path | None = None


def run(flags) -> int:
  """Merges the shares in an output folder; returns the exit code.

  Args:
    flags: images, output, shares, allow_failures, overwrite; panel and
      checkpoint are compared with the shares' if they are given; shard must
      not be given.

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
      shares=tuple(Path(path) for path in flags.shares or ()),
      allow_failures=flags.allow_failures,
      overwrite=flags.overwrite,
      panel_path=Path(flags.panel) if flags.panel else None,
      model_path=Path(flags.checkpoint) if flags.checkpoint else None,
    )
  )


def run_request(request: Request) -> int:
  """Does what is asked for; returns the exit code, as `run`."""
  started = time.perf_counter()
  output = request.output
  failures = FailureLog()
  with contextlib.ExitStack() as until_done:
    try:
      if not request.overwrite:
        state.check_output(output, [*results.FILES, "images.csv"])
      folders = gather.find_folders(request.shares or [output])
      records = gather.read_records(folders, "panel")
      newest = records[0]
      check_files(request, newest)
      panel = shards.restore_panel(newest.values)
      sources, unlisted = listing.list_stacks(request.images, panel)
      until_done.enter_context(lock.hold(output / ".lock"))
      for path, message in unlisted:
        failures.add("", path, ValueError(message))
      stems, missing = gather.gather_images(
        output, sources, records, results.FILES, failures
      )
      record = {
        **describe_merge(records, started),
        "num_images": len(stems),
        "num_failed": len(failures),
        "num_missing": len(missing),
      }
      names = [image.stem for image in sources]
      unlisted_files = [path for path, _ in unlisted]
      state.retire_files(output, results.FILES, names, unlisted_files)
      results.write_run(output, stems, failures, panel, record)
    except (ValueError, OSError) as error:
      return refuse_call(error, output)
  gather.tell_missing(sources, missing, newest)
  failed = failures.describe()
  logging.info(
    "%d images done%s: %s", len(stems), failed, output / "report.html"
  )
  is_enough = request.allow_failures and stems and not missing
  return 1 if failures and not is_enough else 0


def check_files(request: Request, newest: gather.ShareRecord) -> None:
  """Raises a ValueError where a file named in the call is not the shares'."""
  files = {"panel": request.panel_path, "model": request.model_path}
  for name, file in files.items():
    if not file or (name == "model" and newest.values["method"] != "network"):
      continue
    if hash_file(name, file) != newest.values["hashes"][name]:
      raise ValueError(
        f"{file}: found another {name} than that of share {newest.shard}, "
        "expected the same"
      )


def hash_file(name: str, path: Path) -> str:
  """Returns the hash of a panel or of a model's weights as a state has it."""
  if name == "panel":
    return source.hash_source(ImageSource("panel", path))
  return config_lib.hash_model(path)


def describe_merge(
  records: Sequence[gather.ShareRecord], started: float
) -> dict[str, Any]:
  """Returns the record of the run: as the newest share, all shares' times."""
  newest = records[0].values
  run = {k: v for k, v in newest.items() if k not in _OF_SHARES_ALONE}
  merge_s = time.perf_counter() - started
  shares_s = sum(record.values["seconds"]["total"] for record in records)
  devices = sorted({record.values["device"] for record in records})
  return {
    **run,
    "command": shlex.join(["dicexmbd", *sys.argv[1:]]),
    "finished": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    "device": ", ".join(devices),
    "seconds": {"total": round(shares_s + merge_s, 3)},
    "shards": gather.describe_shares(records),
  }
