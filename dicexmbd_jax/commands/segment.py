"""`segment`: from probability maps to masks alone, without the network."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from dicexmbd_jax import __version__, segment
from dicexmbd_jax.commands import batch
from dicexmbd_jax.commands.failures import FailureLog
from dicexmbd_jax.commands.progress import Progress
from dicexmbd_jax.io import listing, source, write
from dicexmbd_jax.io import probabilities as maps_reader
from dicexmbd_jax.masks.settings import resolve_settings
from dicexmbd_jax.types import ImageSource

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Job:
  """What is done to every file; crosses to the worker processes.

  Attributes:
    output: the output folder.
    config: `config.segment`.
    writes_confidence: whether confidence/NAME.csv is written.
    hash: of all that decides the masks, but for the maps.
  """

  output: Path
  config: Mapping[str, Any]
  writes_confidence: bool
  hash: str

  def list_outputs(self, stem: str) -> tuple[Path, ...]:
    """Returns the files that an image gets."""
    files = [
      self.output / "nuclei" / f"{stem}.tiff",
      self.output / "masks" / f"{stem}.tiff",
    ]
    if self.writes_confidence:
      files.append(self.output / "confidence" / f"{stem}.csv")
    return tuple(files)

  def locate_state(self, stem: str) -> Path:
    """Returns the file that says from what an image's masks were made."""
    return self.output / "state" / f"{stem}.json"


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: probabilities, output, num_workers, overwrite, confidence, config.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  failures = FailureLog()
  try:
    job = prepare_job(flags)
    sources, unlisted = listing.list_images(flags.probabilities)
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
  segment_files(job, waiting, num_workers, failures)
  failures.write(job.output)
  num_done = len(sources) + len(unlisted) - len(failures)
  failed = f", {len(failures)} failed, see failures.csv" if failures else ""
  logging.info("%d images done%s: %s", num_done, failed, job.output)
  return 1 if failures else 0


def prepare_job(flags) -> Job:
  """Checks the settings.

  Raises:
    ValueError: a setting is wrong.
  """
  settings = resolve_settings(flags.config.segment)
  made_with = repr((settings, bool(flags.confidence), __version__))
  return Job(
    output=Path(flags.output),
    config=flags.config.segment.to_dict(),
    writes_confidence=bool(flags.confidence),
    hash=hashlib.sha256(made_with.encode()).hexdigest(),
  )


def is_finished(job: Job, image: ImageSource) -> bool:
  """Whether all files of an image are there, made from the same maps."""
  try:
    state = json.loads(job.locate_state(image.stem).read_text())
    if state.get("key") != make_key(job, image):
      return False
  except (OSError, ValueError):
    return False
  return all(path.is_file() for path in job.list_outputs(image.stem))


def make_key(job: Job, image: ImageSource) -> dict[str, str]:
  """Returns what an image's masks depend on."""
  return {"probabilities": source.hash_source(image), "segment": job.hash}


def segment_files(
  job: Job,
  images: Sequence[ImageSource],
  num_workers: int,
  failures: FailureLog,
) -> None:
  """Segments the files; failures are logged, the others go on."""
  function = functools.partial(segment_file, job)
  with Progress(len(images)) as progress:
    for image, result in batch.map_images(function, images, num_workers):
      if isinstance(result, Exception):
        failures.add(image.stem, image.path, result)
        discard_masks(job, image.stem)
      else:
        progress.tell(f"{image.stem}: {result} cells")


def discard_masks(job: Job, stem: str) -> None:
  """Removes an image's files of an earlier run, the state first."""
  confidence = job.output / "confidence" / f"{stem}.csv"
  for path in (job.locate_state(stem), *job.list_outputs(stem), confidence):
    with contextlib.suppress(OSError):
      path.unlink(missing_ok=True)


def segment_file(job: Job, image: ImageSource) -> int:
  """Segments one file and writes its masks; returns the number of cells.

  Raises:
    ValueError: the file cannot be read or holds no probabilities.
    OSError: a file cannot be written; names it.
  """
  key = make_key(job, image)
  probabilities = maps_reader.read_probabilities(image)
  maps_reader.check_scale(probabilities)
  result = segment.segment_image(probabilities, job.config)
  nuclei_path, cells_path, *tables = job.list_outputs(image.stem)
  # An earlier state must not speak for files that are half replaced.
  job.locate_state(image.stem).unlink(missing_ok=True)
  size_um = maps_reader.read_pixel_size(image)
  if size_um is not None:
    size_um *= resolve_settings(job.config).map_scale
  write.write_labels(nuclei_path, result.nuclei, size_um)
  write.write_labels(cells_path, result.cells, size_um)
  for path in tables:
    # Only here: it loads pandas, which masks alone do not need.
    from dicexmbd_jax.masks.confidence import measure_confidence

    write.write_table(path, measure_confidence(probabilities, result.cells))
  write.write_json(job.locate_state(image.stem), {"key": key})
  return len(result.is_border)
