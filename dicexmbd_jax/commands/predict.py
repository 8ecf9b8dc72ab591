"""`predict`: from IMC images to masks, tables, pictures and a report.

The network runs in this process, tiles of several images in a batch; what
follows it (cells, measures, files) runs in a pool of processes.
"""

import collections
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import __version__, predict
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.image import channels, preparation
from dicexmbd_jax.io import images as image_reader
from dicexmbd_jax.io import listing, metadata, panel, source, write
from dicexmbd_jax.masks import segment
from dicexmbd_jax.masks.confidence import measure_doubt
from dicexmbd_jax.model import unet, weights
from dicexmbd_jax.runs import config_check, pool, results, shards, state
from dicexmbd_jax.runs.failures import FailureLog, describe_source
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.types import (
  Image,
  ImageSource,
  LoadedImage,
  Panel,
  Probabilities,
)

Path = pathlib.Path
NETWORK = "network"
Waiting = tuple[ImageSource, Mapping[str, str]]  # An image and its key.


@dataclasses.dataclass(frozen=True)
class Job:
  """A run, checked and ready: what to do, with what, into which folder.

  Attributes:
    shard: the share of the images that is ours; None: all of them.
    sources: the images, of the share alone.
    unlisted: (file, message) of what could not be listed.
    panel: which channels are what; None for two-channel stacks.
    output: the output folder.
    method: "network", or a baseline of segment.METHODS.
    model: the network; None for a baseline.
    model_path: its folder.
    config: the whole configuration.
    pixel_size_um: of all images, or None: as each image's metadata says.
    num_workers: processes, or None: one per core.
    hashes: of panel, config and weights, and what else decides the results:
      one part of each image's key.
  """

  shard: shards.Shard | None
  sources: tuple[ImageSource, ...]
  unlisted: tuple[tuple[Path, str], ...]
  panel: Panel | None
  output: Path
  method: str
  model: unet.UNet | None
  model_path: Path
  config: ConfigDict
  pixel_size_um: float | None
  num_workers: int | None
  hashes: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Prepared:
  """One image, ready for the network.

  Attributes:
    source: where it comes from.
    key: hashes of all that its results depend on.
    loaded: counts and names.
    image: the two channels, on the input grid.
    pixel_size_um: of the input grid.
    seconds: by stage, so far.
  """

  source: ImageSource
  key: Mapping[str, str]
  loaded: LoadedImage
  image: Image
  pixel_size_um: float
  seconds: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Predicted:
  """One image after the network.

  Attributes:
    prepared: what went in.
    maps: probabilities, or the two channels for a baseline; on the network's
      grid.
    network_s: time in the network.
  """

  prepared: Prepared
  maps: Probabilities | Image
  network_s: float


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: images, panel, output, checkpoint, method, pixel_size_um,
      num_workers, overwrite, shard, config.
  """
  started = time.perf_counter()
  failures = FailureLog()
  try:
    job = prepare_job(flags)
    # The record of the run comes before its work, so that a folder that cannot
    # be written to is told at once; and after all else that can be wrong, so
    # that a call that cannot be done leaves an earlier record alone.
    write_started(job, describe_run(job, [], failures, started))
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, ""))
    return 2
  for path, message in job.unlisted:
    failures.add("", path, ValueError(message))
  finished, waiting = split_finished(job, flags.overwrite, failures)
  num_workers = pool.count_workers(job.num_workers, len(waiting))
  finished |= finish_images(job, waiting, num_workers, failures)
  stems = [image.stem for image in job.sources if image.stem in finished]
  record = describe_run(job, stems, failures, started)
  try:
    write_finished(job, stems, failures, record)
  except OSError as error:
    logging.error("%s", pool.describe_error(error, job.output))
    return 1
  failed = failures.describe()
  logging.info("%d images done%s: %s", len(stems), failed, locate_result(job))
  return 1 if failures else 0


def locate_result(job: Job) -> Path:
  """Returns the file to look at first when the run is done."""
  if job.shard:
    return job.shard.locate(job.output)
  return job.output / "report.html"


def write_started(job: Job, record: Mapping[str, Any]):
  """Writes that the run is running.

  Raises:
    OSError: the output folder cannot be written to.
  """
  if job.shard:
    job.shard.locate_failures(job.output).unlink(missing_ok=True)
    shards.write_record(job.output, job.shard, record, job.panel, "running")
  else:
    write.write_json(job.output / "run.json", {**record, "state": "running"})


def write_finished(
  job: Job,
  stems: Sequence[str],
  failures: FailureLog,
  record: Mapping[str, Any],
):
  """Writes what covers all images; of a share, its record and failures.

  Raises:
    OSError: a file cannot be written; names it.
  """
  if job.shard is None:
    results.write_run(job.output, stems, failures, job.panel, record)
    return
  failures.write_file(job.shard.locate_failures(job.output))
  shards.write_record(job.output, job.shard, record, job.panel, "done")


def prepare_job(flags) -> Job:
  """Checks the call and reads what all images share.

  Raises:
    ValueError, OSError: the call cannot be done; one line.
  """
  methods = (NETWORK, *segment.METHODS)
  if flags.method not in methods:
    raise ValueError(
      f"--method: found {flags.method}, expected one of {methods}"
    )
  size = flags.pixel_size_um
  if size is not None:
    metadata.check_pixel_size("--pixel_size_um", size)
  model_path = Path(flags.checkpoint or config_lib.SHIPPED_MODEL)
  trained = config_lib.read_model_config(model_path)
  config_lib.check_model_section(flags.config, trained)
  config_check.check_prediction(flags.config)
  pool.count_workers(flags.num_workers, 0)
  output = Path(flags.output)
  if not flags.overwrite:
    state.check_output(output, [*results.FILES, "images.csv"])
  rows = panel.read_panel(flags.panel) if flags.panel else None
  text = getattr(flags, "shard", None)
  shard = None if text is None else shards.parse_shard(text)
  listed, unlisted = listing.list_images(flags.images)

  def is_ours(name: str) -> bool:
    return shard is None or shard.has(name)

  model = None
  if flags.method == NETWORK:
    model, _ = weights.read_model(model_path, flags.config.model.dtype)
  hashes = {
    "panel": hash_panel(flags.panel),
    "config": config_lib.hash_config(flags.config),
    "model": config_lib.hash_model(model_path) if model else flags.method,
    "pixel_size_um": str(size),
    "version": __version__,
  }
  return Job(
    shard=shard,
    sources=tuple(image for image in listed if is_ours(image.stem)),
    unlisted=tuple(row for row in unlisted if is_ours(row[0].name)),
    panel=rows,
    output=output,
    method=flags.method,
    model=model,
    model_path=model_path,
    config=flags.config,
    pixel_size_um=size,
    num_workers=flags.num_workers,
    hashes=hashes,
  )


def hash_panel(path: str | None) -> str:
  """Returns the SHA-256 of the panel file; "" without one."""
  return source.hash_source(ImageSource("panel", Path(path))) if path else ""


def split_finished(
  job: Job, overwrite: bool, failures: FailureLog
) -> tuple[set[str], list[Waiting]]:
  """Returns the finished images' stems, and what is left to do."""
  finished: set[str] = set()
  waiting: list[Waiting] = []
  for image in job.sources:
    try:
      key = {**job.hashes, "image": source.hash_source(image)}
    except (ValueError, OSError) as error:
      fail_image(job, image, error, failures)
      continue
    if not overwrite and results.is_finished(job.output, image.stem, key):
      finished.add(image.stem)
    else:
      waiting.append((image, key))
  if finished:
    logging.info("%d images are finished already", len(finished))
  return finished, waiting


def finish_images(
  job: Job, waiting: Sequence[Waiting], num_workers: int, failures: FailureLog
) -> set[str]:
  """Does the images that are left; returns the stems of those that went well.

  Failures are added to `failures`; the other images go on.
  """
  finish = functools.partial(
    finish_image,
    method=job.method,
    config=job.config.to_json(),
    output=job.output,
  )
  prepared = prepare_images(job, waiting, failures)
  predicted: Iterable[Predicted]
  if job.model is None:
    predicted = (
      Predicted(item, image, network_s=0.0) for item, image in prepared
    )
  else:
    predicted = predict_prepared(job, job.model, prepared)
  done = set()
  with Progress(len(waiting)) as progress:
    for item, result in pool.map_images(finish, predicted, num_workers):
      image = item.prepared.source
      if isinstance(result, Exception):
        fail_image(job, image, result, failures)
      else:
        done.add(image.stem)
        progress.tell(f"{image.stem}: {result} cells")
  return done


def prepare_images(
  job: Job, waiting: Sequence[Waiting], failures: FailureLog
) -> Iterator[tuple[Prepared, Image]]:
  """Yields images, and how the network sees them; failures are added."""
  told: collections.Counter[str] = collections.Counter()
  for image, key in waiting:
    try:
      item = prepare_image(image, key, job)
      pixels = preparation.to_network_grid(
        item.image, item.pixel_size_um, job.config.image
      )
    except Exception as error:  # One bad image must not stop the others.
      fail_image(job, image, error, failures)
      continue
    for line in item.loaded.warnings:
      if line not in told:  # What is the panel's fault comes with each image.
        logging.warning("%s: %s", image.stem, line)
    told.update(item.loaded.warnings)
    yield item, pixels
  for line, count in told.items():
    if count > 1:
      logging.warning("%d more: %s", count - 1, line)


def fail_image(
  job: Job, image: ImageSource, error: Exception, failures: FailureLog
):
  """Adds a failure; what an earlier run made of the image goes."""
  failures.add(image.stem, describe_source(image), error)
  results.discard_image(job.output, image.stem)


def prepare_image(image: ImageSource, key: Mapping[str, str], job: Job):
  """Reads one image and merges its markers to the two channels.

  Raises:
    ValueError: the file or what is in it cannot be used; one line.
  """
  started = time.perf_counter()
  loaded = image_reader.read_image(image, job.panel)
  seconds = {"read": time.perf_counter() - started}
  try:
    merged, warnings = preparation.merge_loaded(loaded, job.config.image)
  except ValueError as error:
    raise ValueError(f"{describe_source(image)}: {error}") from error
  groups = loaded.nuclear, loaded.membrane
  doubts = channels.find_exchanged_groups(loaded.names, *groups)
  doubts += channels.find_weak_groups(
    loaded.stack, *groups, job.config.image.clip_percentile
  )
  seconds["merge"] = time.perf_counter() - started - seconds["read"]
  size = job.pixel_size_um or loaded.pixel_size_um or 1.0
  if loaded.pixel_size_um and abs(size / loaded.pixel_size_um - 1) > 0.01:
    doubts += (
      f"the file has pixels of {loaded.pixel_size_um:g} um; {size:g} um are "
      "taken, as --pixel_size_um says",
    )
  return Prepared(
    source=image,
    key=key,
    loaded=dataclasses.replace(
      loaded, warnings=(*loaded.warnings, *warnings, *doubts)
    ),
    image=merged,
    pixel_size_um=size,
    seconds=seconds,
  )


def predict_prepared(
  job: Job, model: unet.UNet, items: Iterable[tuple[Prepared, Image]]
) -> Iterator[Predicted]:
  """Yields the images with their probabilities, on the network's grid.

  The probabilities are rounded to the 65,536 levels of the file, so that
  `segment` on the file gives the very same masks.
  """
  taken: list[Prepared] = []  # Since the last answer: their time is not ours.

  def take_items() -> Iterator[tuple[Prepared, Image]]:
    for item, pixels in items:
      taken.append(item)
      yield item, pixels

  answers = predict.predict_images(take_items(), model, job.config.predict)
  while True:
    started = time.perf_counter()
    answer = next(answers, None)
    elapsed = time.perf_counter() - started
    if answer is None:
      return
    prepare_s = sum(sum(item.seconds.values()) for item in taken)
    taken.clear()
    item, probabilities = answer
    rounded = np.rint(probabilities * 65535) / np.float32(65535)
    if not item.image[..., 0].any():
      # Thresholds would divide what noise is left in an answer to nothing.
      rounded = np.zeros_like(rounded)
      rounded[..., 2] = 1
    yield Predicted(item, rounded, network_s=max(elapsed - prepare_s, 0.0))


def finish_image(
  predicted: Predicted, method: str, config: str, output: Path
) -> int:
  """Segments and measures one image, writes its files; returns its cells.

  Args:
    predicted: the image with its probabilities.
    method: "network", or a baseline of segment.METHODS.
    config: the whole configuration, JSON: it crosses a process border.
    output: the output folder.

  Raises:
    OSError: a file cannot be written; names it.
  """
  values = ConfigDict(json.loads(config))
  item = predicted.prepared
  started = time.perf_counter()
  shape = item.image.shape[:2]
  is_network = method == NETWORK
  if is_network:
    masks = segment.segment_image(
      predicted.maps, values.segment, shape, values.image.pixel_size_um
    )
  else:
    masks = segment.segment_baseline(
      predicted.maps, method, values.segment, shape
    )
  outputs = results.ImageOutputs(
    stem=item.source.stem,
    row=image_reader.describe_image(item.source, item.loaded),
    loaded=item.loaded,
    image=item.image,
    probabilities=predicted.maps if is_network else None,
    masks=masks,
    model_pixel_um=values.image.pixel_size_um,
    pixel_size_um=item.pixel_size_um,
    doubt=measure_doubt(predicted.maps, masks.cells) if is_network else None,
    seconds={
      **item.seconds,
      "network": predicted.network_s,
      "segment": time.perf_counter() - started,
    },
  )
  results.write_image(output, outputs, item.key)
  return len(masks.is_border)


def describe_run(
  job: Job, stems: Sequence[str], failures: FailureLog, started: float
) -> dict[str, Any]:
  """Returns the record of the run, as run.json has it."""
  return {
    "command": shlex.join(["dicexmbd", *sys.argv[1:]]),
    "finished": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    "num_images": len(stems),
    "num_failed": len(failures),
    "config": config_lib.flatten(job.config),
    "method": job.method,
    "model": {
      "name": job.model_path.name if job.model else job.method,
      "sha256": job.hashes["model"],
    },
    "panel_sha256": job.hashes["panel"],
    "hashes": dict(job.hashes),
    "device": predict.describe_device() if job.model else "CPU",
    "versions": describe_versions(),
    "seconds": {"total": round(time.perf_counter() - started, 3)},
  }


def describe_versions() -> dict[str, str]:
  """Returns the versions of what the result depends on."""
  names = ("jax", "flax", "numpy", "scipy", "scikit-image", "numba", "tifffile")
  return {
    "dicexmbd_jax": __version__,
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in names},
  }
