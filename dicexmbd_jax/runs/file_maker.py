"""What `segment` and `teach predict` share: a few files made of each image.

`predict` has its own way, since its network wants many images at a time.
"""

import abc
import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from absl import logging

from dicexmbd_jax.io import source, write
from dicexmbd_jax.runs import lock, pool, state
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
    SUFFIXES: kind -> suffix of every file that an image may get.
  """

  inputs: str
  output: Path
  num_workers: int | None
  overwrite: bool
  hash: str
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


def run(maker: FileMaker) -> int:
  """Makes the files of all images.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  with contextlib.ExitStack() as until_done:
    try:
      if not maker.overwrite:
        state.check_output(maker.output, maker.SUFFIXES)
      listed = maker.list_images()
      until_done.enter_context(lock.hold(maker.output / ".lock"))
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
    failures.write(output)  # Tells at once whether one can write there.
    write.sweep_temporary(output)
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
  do_images(maker, waiting, num_workers, failures)
  try:
    retire_files(maker, images, unlisted)
    failures.write(output)
  except OSError as error:
    logging.error("%s", pool.describe_error(error, output))
    return 1
  num_done = len(images) + len(unlisted) - len(failures)
  failed = failures.describe()
  logging.info("%d images done%s: %s", num_done, failed, output)
  return 1 if failures else 0


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
