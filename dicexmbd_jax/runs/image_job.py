"""What `segment` and `teach predict` share: a few files made of each image.

`predict` has its own way, since its network wants many images at a time.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from absl import logging

from dicexmbd_jax.io import source
from dicexmbd_jax.runs import pool, state
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path
Listed = tuple[Sequence[ImageSource], Sequence[tuple[Path, str]]]


@dataclasses.dataclass(frozen=True)
class ImageJob(abc.ABC):
  """What is done to every image; crosses to the worker processes.

  Attributes:
    output: the output folder.
    hash: of all that decides an image's files, but for the image.
    SUFFIXES: kind -> suffix of every file that an image may get.
  """

  output: Path
  hash: str
  SUFFIXES: ClassVar[Mapping[str, str]]

  @abc.abstractmethod
  def make_files(self, image: ImageSource) -> str:
    """Makes and writes an image's files; returns a line to tell.

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
    """Whether all files of an image are there, made from the same image."""
    stem = image.stem
    try:
      key = self.make_key(image)
    except (OSError, ValueError):
      return False  # Reading it will say what is wrong.
    return state.is_finished(
      self.output, stem, key, lambda kind: self.locate(kind, stem)
    )

  def discard(self, stem: str) -> None:
    """Removes an image's files of earlier runs, of other settings too."""
    files = [self.locate(kind, stem) for kind in self.SUFFIXES]
    state.discard(self.output, stem, files)


def run(
  flags: Any,
  prepare: Callable[[Any], ImageJob],
  list_images: Callable[[Any], Listed],
) -> int:
  """Runs a command.

  Args:
    flags: output, num_workers, overwrite, and what the two functions need.
    prepare: checks the flags; raises ValueError where the call is wrong.
    list_images: returns the images and (file, message) of what is none.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  failures = FailureLog()
  try:
    job = prepare(flags)
    if not flags.overwrite:
      state.check_output(job.output, job.SUFFIXES)
    images, unlisted = list_images(flags)
    failures.write(job.output)  # Tells at once whether one can write there.
    waiting = [
      image for image in images if flags.overwrite or not job.is_finished(image)
    ]
    num_workers = pool.count_workers(flags.num_workers, len(waiting))
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  for path, message in unlisted:
    failures.add("", path, ValueError(message))
  if len(waiting) < len(images):
    num_finished = len(images) - len(waiting)
    logging.info("%d images are finished already", num_finished)
  do_images(job, waiting, num_workers, failures)
  failures.write(job.output)
  num_done = len(images) + len(unlisted) - len(failures)
  failed = failures.describe()
  logging.info("%d images done%s: %s", num_done, failed, job.output)
  return 1 if failures else 0


def do_images(
  job: ImageJob,
  images: Sequence[ImageSource],
  num_workers: int,
  failures: FailureLog,
) -> None:
  """Makes the images' files; failures are logged, the others go on."""
  with Progress(len(images)) as progress:
    for image, result in pool.map_images(job.make_files, images, num_workers):
      if isinstance(result, Exception):
        failures.add(image.stem, image.path, result)
        job.discard(image.stem)
      else:
        progress.tell(f"{image.stem}: {result}")
