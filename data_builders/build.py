"""Builds a dataset of training records, or checks one.

python -m data_builders.build --images=DIR --teacher=DIR --panel=FILE
    --output=DIR [--config=FILE.py] [--config.records.patch_px=256]
python -m data_builders.build --verify --output=DIR

Exit code 0: done; 1: some images failed, or some records are not sound; 2:
wrong call; 130 or 143: stopped by Ctrl-C or SIGTERM. A build that was stopped
or killed goes on when it is called again.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from data_builders import jobs, parts, report, teacher_files, verify
from data_builders.imc_patches import imc_patches_dataset_builder
from dicexmbd_jax import __main__ as command_line
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.runs import pool

_MARK = "build.json"


def main(
  arguments: Sequence[str], beam_words: Sequence[str] | None = None
) -> int:
  """Runs the command; returns its exit code.

  Args:
    arguments: the words after the program's name.
    beam_words: Apache Beam's own flags, if it is to build; see build_beam.
  """
  command_line.start_logging()
  signal.signal(signal.SIGTERM, command_line.terminate)
  try:
    rest, config_file, overrides = config_lib.split_arguments(arguments)
    values = make_parser().parse_args(rest)
    output = pathlib.Path(values.output)
    if values.verify:
      return verify.verify_dataset(output, values.seed)
    request = make_request(values, jobs.make_config(config_file, overrides))
    return build_dataset(request, output, values.overwrite, beam_words)
  except SystemExit as stop:  # --help or a wrong call; argparse has said why.
    return int(stop.code or 0)
  except (ValueError, OSError) as error:
    logging.error("build: %s", pool.describe_error(error, ""))
    return 2
  except command_line.TerminatedError:
    print("build: terminated; the same call goes on", file=sys.stderr)
    return command_line.TERMINATED
  except KeyboardInterrupt:
    print("build: interrupted; the same call goes on", file=sys.stderr)
    return command_line.INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
  """Returns the flags, apart from --config."""
  parser = argparse.ArgumentParser(
    prog="python -m data_builders.build",
    description="Builds training records from images and a teacher, or checks "
    "them. --config=FILE.py and --config.a.b=VALUE change the configuration.",
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--output", required=True, help="Folder, made if missing.")
  add("--images", help="Folder, file or glob of IMC images.")
  add("--teacher", help="Folder or glob: probability maps, or masks.")
  add("--panel", help="CSV; none where images are the two channels.")
  add("--nuclei", help="Masks of nuclei, beside a teacher of masks.")
  add(
    "--teacher_kind",
    choices=teacher_files.KINDS,
    help="maps or masks, if both are there; nuclei: masks of nuclei alone.",
  )
  add("--groups", help="CSV with columns image and group.")
  add("--pixel_size_um", type=float, help="Of all images; else metadata, 1.")
  add("--num_workers", type=int, help="Processes; one per core.")
  add("--overwrite", action="store_true", help="Replace another dataset.")
  add("--verify", action="store_true", help="Read every record of --output.")
  add("--seed", type=int, default=0, help="Of the contact sheet's patches.")
  return parser


def make_request(
  values: argparse.Namespace, config: config_lib.ConfigDict
) -> jobs.Request:
  """Returns the request of a command line.

  Raises:
    ValueError: no images.
  """
  if not values.images:
    raise ValueError("found no --images, expected their folder")
  return jobs.Request(
    images=values.images,
    config=config,
    teacher=values.teacher,
    panel=values.panel,
    nuclei=values.nuclei,
    teacher_kind=values.teacher_kind,
    groups=values.groups,
    pixel_size_um=values.pixel_size_um,
    num_workers=values.num_workers,
  )


def build_dataset(
  request: jobs.Request,
  output: pathlib.Path,
  overwrite: bool,
  beam_words: Sequence[str] | None = None,
) -> int:
  """Builds the dataset, or finds it built.

  Returns:
    0: done; 1: some images failed.

  Raises:
    ValueError: a wrong call, or another dataset in the output folder.
    OSError: the output cannot be written.
  """
  start_s = time.perf_counter()
  tfds.disable_progress_bar()
  plan_key = jobs.hash_build(jobs.plan_build(request))
  output.mkdir(parents=True, exist_ok=True)
  write.sweep_temporary(output)
  with write.make_scratch(output):  # TFDS leaves folders in TMPDIR.
    builder = make_builder(request, output, beam_words)
  folder = pathlib.Path(builder.data_dir)
  if folder.exists() and not overwrite:
    check_built(output, folder, plan_key)
    shutil.rmtree(output / parts.FOLDER, ignore_errors=True)
    logging.info("%s: is built already", folder)
    return 1 if report.count_failures(output) else 0
  if folder.exists():
    (output / _MARK).unlink(missing_ok=True)
    shutil.rmtree(folder)
  with write.make_scratch(output):
    builder.download_and_prepare(keeps_parts=True)
  write.write_json(output / _MARK, {"key": plan_key})
  # Only now: it takes long, and without the mark a call that goes on would not
  # know the dataset for its own.
  shutil.rmtree(output / parts.FOLDER, ignore_errors=True)
  for name in list_empty_splits(builder.info, request.config.records):
    logging.warning(
      "split %s is empty, by chance; another --config.records.salt deals anew, "
      "config.records.lists in a --config file names images",
      name,
    )
  seconds = time.perf_counter() - start_s
  print(f"{describe_splits(builder.info)} in {seconds:.1f} s: {folder}")
  return 1 if report.count_failures(output) else 0


def make_builder(
  request: jobs.Request,
  output: pathlib.Path,
  beam_words: Sequence[str] | None,
) -> tfds.core.DatasetBuilder:
  """Returns the builder, of this machine or of Beam."""
  place: dict[str, Any] = {"request": request, "data_dir": os.fspath(output)}
  if beam_words is None:
    return imc_patches_dataset_builder.Builder(**place)
  from data_builders import beam_builder  # Apache Beam is an extra.

  return beam_builder.Builder(**place, words=beam_words)


def check_built(
  output: pathlib.Path, folder: pathlib.Path, plan_key: str
) -> None:
  """Raises a ValueError unless the dataset is of these files and settings."""
  try:
    found = json.loads((output / _MARK).read_text(encoding="utf-8"))["key"]
  except (OSError, ValueError, KeyError):
    found = ""
  if found != plan_key:
    raise ValueError(
      f"{folder}: found a dataset of other files or settings, expected an "
      "empty --output, or --overwrite"
    )


def list_empty_splits(
  info: tfds.core.DatasetInfo, records: config_lib.ConfigDict
) -> list[str]:
  """Returns the splits that should have records, and have none."""
  filled = {name for name, split in info.splits.items() if split.num_examples}
  asked = records.counts or records.shares
  return [name for name, part in asked.items() if part and name not in filled]


def describe_splits(info: tfds.core.DatasetInfo) -> str:
  """Says how many records and shards each split has."""
  return ", ".join(
    f"{name} {split.num_examples} records in {split.num_shards} shards"
    for name, split in info.splits.items()
  )


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
