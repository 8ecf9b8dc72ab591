"""`teach predict`: from images to probability and uncertainty maps."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence

from absl import logging

from dicexmbd_jax import __version__
from dicexmbd_jax.commands import batch
from dicexmbd_jax.commands.failures import FailureLog
from dicexmbd_jax.commands.progress import Progress
from dicexmbd_jax.commands.teach_inputs import (
  Eyes,
  check_view,
  list_inputs,
  read_teacher,
  view_image,
)
from dicexmbd_jax.io import source, write
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.teacher.teacher import Teacher, classify_planes
from dicexmbd_jax.teacher.uncertainty import KINDS, measure_uncertainty
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Job:
  """What is done to every image; crosses to the worker processes.

  Attributes:
    output: the output folder.
    teacher: the teacher.
    eyes: how images are looked at.
    uncertainty: "margin" or "entropy".
    hash: of all that decides the maps, but for the image.
  """

  output: Path
  teacher: Teacher
  eyes: Eyes
  uncertainty: str
  hash: str

  def list_outputs(self, stem: str) -> tuple[Path, Path]:
    """Returns the files that an image gets."""
    return (
      self.output / "probabilities" / f"{stem}.tiff",
      self.output / "uncertainty" / f"{stem}.tiff",
    )

  def locate_state(self, stem: str) -> Path:
    """Returns the file that says from what an image's maps were made."""
    return self.output / "state" / f"{stem}.json"


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: teacher, images, panel, output, uncertainty, num_workers, overwrite.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  failures = FailureLog()
  try:
    job = prepare_job(flags)
    sources, unlisted = list_inputs(flags.images)
    failures.write(job.output)  # Tells at once whether one can write there.
    for path, message in unlisted:
      failures.add("", path, ValueError(message))
    waiting = [
      image
      for image in sources
      if flags.overwrite or not is_finished(job, image)
    ]
    num_workers = batch.count_workers(flags.num_workers, len(waiting))
  except ValueError as error:
    logging.error("%s", error)
    return 2
  except OSError as error:
    logging.error("%s", batch.describe_error(error, flags.output))
    return 2
  if len(waiting) < len(sources):
    num_finished = len(sources) - len(waiting)
    logging.info("%d images are finished already", num_finished)
  classify_files(job, waiting, num_workers, failures)
  failures.write(job.output)
  num_done = len(sources) + len(unlisted) - len(failures)
  failed = f", {len(failures)} failed, see failures.csv" if failures else ""
  logging.info("%d images done%s: %s", num_done, failed, job.output)
  return 1 if failures else 0


def prepare_job(flags) -> Job:
  """Checks the call and reads the teacher.

  Raises:
    ValueError: the call is wrong, or the teacher cannot be read.
  """
  if flags.uncertainty not in KINDS:
    raise ValueError(
      f"--uncertainty: found {flags.uncertainty}, expected one of "
      f"{', '.join(KINDS)}"
    )
  teacher = read_teacher(flags.teacher)
  view = teacher.view
  panel = read_panel(flags.panel) if flags.panel else None
  digest = hashlib.sha256()
  for name in ("teacher.json", "forest.npz"):
    digest.update((Path(flags.teacher) / name).read_bytes())
  digest.update(repr((panel, flags.uncertainty, __version__)).encode())
  return Job(
    output=Path(flags.output),
    teacher=teacher,
    eyes=Eyes(panel, view.channels, view.scale, view.image),
    uncertainty=flags.uncertainty,
    hash=digest.hexdigest(),
  )


def is_finished(job: Job, image: ImageSource) -> bool:
  """Whether all files of an image are there, made from the same image."""
  try:
    state = json.loads(job.locate_state(image.stem).read_text())
    if state.get("key") != make_key(job, image):
      return False
  except (OSError, ValueError):
    return False
  return all(path.is_file() for path in job.list_outputs(image.stem))


def make_key(job: Job, image: ImageSource) -> dict[str, str]:
  """Returns what an image's maps depend on."""
  return {"image": source.hash_source(image), "teacher": job.hash}


def classify_files(
  job: Job,
  images: Sequence[ImageSource],
  num_workers: int,
  failures: FailureLog,
) -> None:
  """Classifies the images; failures are logged, the others go on."""
  function = functools.partial(classify_file, job)
  with Progress(len(images)) as progress:
    for image, result in batch.map_images(function, images, num_workers):
      if isinstance(result, Exception):
        failures.add(image.stem, image.path, result)
      else:
        progress.tell(f"{image.stem}: mean uncertainty {result:.3f}")


def classify_file(job: Job, image: ImageSource) -> float:
  """Classifies one image, writes its maps; returns the mean uncertainty.

  Raises:
    ValueError: the image cannot be read, or its channels are not the teacher's.
    OSError: a file cannot be written; names it.
  """
  key = make_key(job, image)
  viewed = view_image(image, job.eyes)
  check_view(viewed, job.teacher)
  for line in viewed.warnings:
    logging.warning("%s: %s", image.stem, line)
  probabilities = classify_planes(
    viewed.planes, job.teacher.selection, job.teacher.forest
  )
  uncertainty = measure_uncertainty(probabilities, job.uncertainty)
  maps, unsure = job.list_outputs(image.stem)
  write.write_probabilities(maps, probabilities, viewed.pixel_size_um)
  write.write_uncertainty(unsure, uncertainty, viewed.pixel_size_um)
  mean = float(uncertainty.mean(dtype=float))
  state = {"key": key, "mean_uncertainty": mean}
  write.write_json(job.locate_state(image.stem), state)
  return mean
