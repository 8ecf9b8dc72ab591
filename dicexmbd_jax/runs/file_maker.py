"""What `segment` and `teach predict` share: a few files made of each image.

`predict` has its own way, since its network wants many images at a time.
"""

import abc
import contextlib
import dataclasses
import datetime
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

from absl import logging

from dicexmbd_jax import storage
from dicexmbd_jax.io import source
from dicexmbd_jax.runs import failures as failures_lib
from dicexmbd_jax.runs import gather, lock, pool, shards, state
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path
Listed = tuple[Sequence[ImageSource], Sequence[tuple[Path, str]]]


@dataclasses.dataclass(frozen=True)
class FileMaker(abc.ABC):
  """One call: what is done to every image; crosses to the worker processes.

  Attributes:
    inputs: folder, file or glob.
    output: the output folder.
    num_workers: processes, or None: one per core.
    overwrite: whether finished images are done again.
    hash: of all that decides an image's files, but for the image.
    shard: the share of the images that is ours; None: all of them.
    allow_failures: whether a run counts as done if some images were done.
    SUFFIXES: kind -> suffix of every file that an image may get.
  """

  inputs: str
  output: Path
  num_workers: int | None
  overwrite: bool
  hash: str
  shard: shards.Shard | None = dataclasses.field(default=None, kw_only=True)
  allow_failures: bool = dataclasses.field(default=False, kw_only=True)
  SUFFIXES: ClassVar[Mapping[str, str]]

  @abc.abstractmethod
  def list_images(self) -> Listed:
    """Returns the images, and (file, message) of what is none.

    Raises:
      ValueError: nothing is there.
    """

  @abc.abstractmethod
  def make_files(self, image: ImageSource) -> tuple[str, Sequence[str]]:
    """Makes and writes an image's files; returns what came out, and warnings.

    Raises:
      ValueError: the image cannot be used; one line.
      OSError: a file cannot be written; names it.
    """

  def locate(self, kind: str, stem: str) -> Path:
    """Returns the path of one of an image's files."""
    return self.output / kind / f"{stem}{self.SUFFIXES[kind]}"

  def locate_failures(self) -> Path:
    """Returns the table of what failed, of the run or of the share."""
    if self.shard:
      return self.shard.locate_failures(self.output)
    return self.output / failures_lib.NAME

  def make_key(self, image: ImageSource) -> dict[str, str]:
    """Returns what an image's files depend on.

    Raises:
      ValueError, OSError: the image cannot be read.
    """
    return {"image": source.hash_source(image), "settings": self.hash}

  def is_finished(self, image: ImageSource) -> bool:
    """Whether all files of an image are as written, from the same image."""
    stem = image.stem
    try:
      key = self.make_key(image)
    except (OSError, ValueError):
      return False  # Reading it will say what is wrong.
    fault = state.find_fault(
      self.output, stem, key, lambda kind: self.locate(kind, stem)
    )
    return fault is None

  def discard(self, stem: str) -> None:
    """Removes an image's files of earlier runs, of other settings too."""
    files = [self.locate(kind, stem) for kind in self.SUFFIXES]
    state.discard(self.output, stem, files)


def check_output(output: Path, inner: str) -> None:
  """Raises a ValueError where predict's tables would be of other files.

  Args:
    output: the output folder.
    inner: a folder in it that would do.
  """
  if (output / "run.json").exists():
    raise ValueError(
      f"--output: found results of predict in {output} (run.json), expected "
      f"another folder, such as {output}/{inner}"
    )


def run(maker: FileMaker) -> int:
  """Makes the files of all images.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  with contextlib.ExitStack() as until_done:
    try:
      if not maker.overwrite:
        state.check_output(maker.output, maker.SUFFIXES)
      listed = shards.take(maker.shard, *maker.list_images())
      path = shards.locate_lock(maker.output, maker.shard)
      until_done.enter_context(lock.hold(path))
      until_done.enter_context(storage.use_scratch(maker.output))
    except (ValueError, OSError) as error:
      return refuse_call(error, maker.output)
    return run_alone(maker, *listed)


def run_alone(
  maker: FileMaker,
  images: Sequence[ImageSource],
  unlisted: Sequence[tuple[Path, str]],
) -> int:
  """Does what `run` says, where no other run works in the folder."""
  failures = FailureLog()
  output = maker.output
  try:
    # Tells at once whether one can write there.
    failures.write_file(maker.locate_failures())
    write_record(maker, 0, failures, "running")
    shards.sweep_temporary(output, maker.shard, images, maker.SUFFIXES)
    waiting = [
      image
      for image in images
      if maker.overwrite or not maker.is_finished(image)
    ]
    num_workers = pool.count_workers(maker.num_workers, len(waiting))
  except (ValueError, OSError) as error:
    return refuse_call(error, output)
  for path, message in unlisted:
    failures.add("", path, ValueError(message))
  if len(waiting) < len(images):
    num_finished = len(images) - len(waiting)
    logging.info("%d images are finished already", num_finished)
  try:
    do_images(maker, waiting, num_workers, failures)
    if maker.shard is None:
      retire_files(maker, images, unlisted)
    failures.write_file(maker.locate_failures())
    num_failed = sum(1 for stem, *_ in failures.rows if stem)
    write_record(maker, len(images) - num_failed, failures, "done")
  except KeyboardInterrupt:  # Ctrl-C, or SIGTERM.
    write_stopped(maker, images, failures)
    raise
  except OSError as error:
    logging.error("%s", pool.describe_error(error, output))
    write_stopped(maker, images, failures)
    return 1
  num_done = len(images) + len(unlisted) - len(failures)
  failed = failures.describe()
  logging.info("%d images done%s: %s", num_done, failed, output)
  # Whether any was done shows in the merge alone.
  is_enough = maker.allow_failures and (num_done or maker.shard)
  return 1 if failures and not is_enough else 0


def write_stopped(
  maker: FileMaker, images: Sequence[ImageSource], failures: FailureLog
) -> None:
  """Writes, if it can, that a share was stopped, and how many images it did."""
  if maker.shard is None:
    return
  num_done = sum(maker.is_finished(image) for image in images)
  with contextlib.suppress(OSError):  # As where the disk is full.
    write_record(maker, num_done, failures, "stopped")


def write_record(
  maker: FileMaker, num_images: int, failures: FailureLog, state_word: str
) -> None:
  """Writes the record of a share; of a whole run there is none.

  Raises:
    OSError: it cannot be written; names it.
  """
  if maker.shard is None:
    return
  now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
  run = {
    "command": shlex.join(["dicexmbd", *sys.argv[1:]]),
    "finished": now,
    "num_images": num_images,
    "num_failed": len(failures),
    "hashes": {"settings": maker.hash},
  }
  shards.write_record(maker.output, maker.shard, run, None, state_word)


def merge_shares(maker: FileMaker, shares: Sequence[Path]) -> int:
  """Brings the files of all shares together, and tells what is missing.

  Args:
    maker: the call; what the shares were made with is taken from them.
    shares: their output folders, or folders of these; none: the maker's.

  Returns:
    0: all images are there; 1: some failed or are missing; 2: wrong call.
  """
  failures = FailureLog()
  output = maker.output
  with contextlib.ExitStack() as until_done:
    try:
      if not maker.overwrite:
        state.check_output(output, maker.SUFFIXES)
      folders = gather.find_folders(shares or [output])
      records = gather.read_records(folders, "settings")
      images, unlisted = maker.list_images()
      until_done.enter_context(lock.hold(output / ".lock"))
      for path, message in unlisted:
        failures.add("", path, ValueError(message))
      done, missing = gather.gather_images(
        output, images, records, maker.SUFFIXES, failures
      )
      retire_files(maker, images, unlisted)
      failures.write(output)
    except (ValueError, OSError) as error:
      return refuse_call(error, output)
  gather.tell_missing(images, missing, records[0])
  logging.info("%d images done%s: %s", len(done), failures.describe(), output)
  is_enough = maker.allow_failures and done and not missing
  return 1 if failures and not is_enough else 0


def retire_files(
  maker: FileMaker,
  images: Sequence[ImageSource],
  unlisted: Sequence[tuple[Path, str]],
) -> None:
  """Moves what images that left the input have left; not beside `predict`'s.

  Raises:
    OSError: a file cannot be moved.
  """
  if not (maker.output / "run.json").exists():
    state.retire_files(
      maker.output,
      maker.SUFFIXES,
      [image.stem for image in images],
      [path for path, _ in unlisted],
    )


def do_images(
  maker: FileMaker,
  images: Sequence[ImageSource],
  num_workers: int,
  failures: FailureLog,
) -> None:
  """Makes the images' files; failures are logged, the others go on."""
  with Progress(len(images)) as progress:
    for image, result in pool.map_images(maker.make_files, images, num_workers):
      if isinstance(result, Exception):
        failures.add(image.stem, image.path, result)
        maker.discard(image.stem)
      else:
        line, warnings = result
        for warning in warnings:
          logging.warning("%s: %s", image.stem, warning)
        progress.tell(f"{image.stem}: {line}")
