"""`predict`: from IMC images to masks, tables, pictures and a report.

The network runs in this process, tiles of several images in a batch; what comes
before it (reading, merging) and after (cells, measures, files) in others, see
runs.pipeline.
"""

import collections
import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import (
  __version__,
  chain,
  magnification,
  predict,
  sections,
  storage,
)
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import listing, metadata, panel, source, write
from dicexmbd_jax.masks import segment
from dicexmbd_jax.model import unet, weights
from dicexmbd_jax.runs import (
  image_job,
  lock,
  pipeline,
  pool,
  results,
  shards,
  state,
)
from dicexmbd_jax.runs.failures import FailureLog, describe_source
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.runs.shelf import Shelf
from dicexmbd_jax.types import ImageSource, Panel

Path = pathlib.Path

_ROUNDS = ("teacher/teacher.json", "curve.csv")  # In a `teach round`'s folder.


@dataclasses.dataclass(frozen=True)
class Request:
  """What to do, with what, into which folder; checked.

  Attributes:
    images: folder, file or glob.
    output: the output folder.
    config: the whole configuration.
    panel_path: which channels are what; None for two-channel stacks.
    model_path: the network's folder.
    method: "network", or a baseline of segment.METHODS.
    pixel_size_um: of all images, or None: as each image's metadata says.
    num_workers: processes, or None: one per core.
    overwrite: whether finished images are done again.
    shard: the share of the images that is ours; None: all of them.
    allow_failures: whether a run counts as done if some images were done.
  """

  images: str
  output: Path
  config: ConfigDict
  panel_path: Path | None = None
  model_path: Path = config_lib.SHIPPED_MODEL
  method: str = chain.NETWORK
  pixel_size_um: float | None = None
  num_workers: int | None = None
  overwrite: bool = False
  shard: shards.Shard | None = None
  allow_failures: bool = False

  def __post_init__(self):
    """Raises a ValueError, one line, where the call cannot be done."""
    methods = (chain.NETWORK, *segment.METHODS)
    if self.method not in methods:
      raise ValueError(
        f"--method: found {self.method}, expected one of {methods}"
      )
    if self.pixel_size_um is not None:
      metadata.check_pixel_size("--pixel_size_um", self.pixel_size_um)
    limit_um = self.config.segment.get("max_growth_um")
    if self.method != chain.NETWORK and limit_um is not None:
      raise ValueError(
        f"--config.segment.max_growth_um: found {limit_um} with --method="
        f"{self.method}, expected none: a baseline's cells have no such limit"
      )
    trained = config_lib.read_model_config(self.model_path)
    config_lib.check_model_section(self.config, trained)
    pool.count_workers(self.num_workers, 0)
    has_rounds = all((self.output / name).exists() for name in _ROUNDS)
    if has_rounds and not (self.output / "run.json").exists():
      raise ValueError(
        f"--output: found results of teach round in {self.output} "
        f"({', '.join(_ROUNDS)}), expected another folder, such as "
        f"{self.output}/predicted"
      )
    if not self.overwrite:
      names = [*results.FILES, "images.csv"]
      if self.panel_path != self.output / "panel.csv":
        names.append("panel.csv")
      state.check_output(self.output, names)


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What is read once for all images.

  Attributes:
    sources: the images, of the share alone.
    unlisted: (file, message) of what could not be listed.
    panel: None for two-channel stacks.
    model: the network; None for a baseline.
    hashes: of panel, config and weights, and what else decides the results:
      one part of each image's key.
    clock: measures the work of the devices that the network runs on.
  """

  sources: tuple[ImageSource, ...]
  unlisted: tuple[tuple[Path, str], ...]
  panel: Panel | None
  model: unet.UNet | None
  hashes: Mapping[str, str]
  clock: predict.DeviceClock


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: images, panel, output, checkpoint, method, pixel_size_um,
      num_workers, overwrite, shard, allow_failures, config.
  """
  try:
    shard = flags.shard
    request = Request(
      images=flags.images,
      output=Path(flags.output),
      config=flags.config,
      panel_path=Path(flags.panel) if flags.panel else None,
      model_path=Path(flags.checkpoint or config_lib.SHIPPED_MODEL),
      method=flags.method,
      pixel_size_um=flags.pixel_size_um,
      num_workers=flags.num_workers,
      overwrite=flags.overwrite,
      shard=None if shard is None else shards.parse_shard(shard),
      allow_failures=flags.allow_failures,
    )
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, ""))
    return 2
  return run_request(request)


def run_request(request: Request) -> int:
  """Does what is asked for; returns the exit code."""
  started = time.perf_counter()
  with contextlib.ExitStack() as until_done:
    try:
      inputs = read_inputs(request)
      until_done.enter_context(
        lock.hold(shards.locate_lock(request.output, request.shard))
      )
      until_done.enter_context(storage.use_scratch(request.output))
    except (ValueError, OSError) as error:
      logging.error("%s", pool.describe_error(error, ""))
      return 2
    return run_images(request, inputs, started)


def run_images(request: Request, inputs: Inputs, started: float) -> int:
  """Does the images that are left and what covers all; returns the exit code.

  Args:
    request: the call.
    inputs: what it read.
    started: when it began, on time.perf_counter's clock.
  """
  failures = FailureLog()
  describe = functools.partial(describe_run, request, failures, started)
  try:
    # The record of the run comes before its work, so that a folder that cannot
    # be written to is told at once; and after all else that can be wrong, so
    # that a call that cannot be done leaves an earlier record alone.
    write_record(request, inputs, describe(inputs, []), "running")
    shards.sweep_temporary(
      request.output, request.shard, inputs.sources, results.FILES
    )
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, ""))
    return 2
  for path, message in inputs.unlisted:
    failures.add("", path, ValueError(message))
  finished: set[str] = set()
  try:
    with contextlib.closing(Shelf()) as told:
      finish_images(request, inputs, failures, finished, told)
      stems = [one.stem for one in inputs.sources if one.stem in finished]
      record = describe(inputs, stems)
      write_finished(request, inputs, stems, failures, record, told)
  except KeyboardInterrupt:  # Ctrl-C, or SIGTERM.
    write_stopped(request, inputs, describe, finished)
    raise
  except (OSError, ValueError) as error:
    logging.error("%s", pool.describe_error(error, request.output))
    with contextlib.suppress(OSError):  # As where the disk is full.
      write_stopped(request, inputs, describe, finished)
    return 1
  failed = failures.describe()
  logging.info(
    "%d images done%s: %s", len(stems), failed, locate_result(request)
  )
  # Whether any was done shows in the merge alone.
  is_enough = request.allow_failures and (stems or request.shard)
  return 1 if failures and not is_enough else 0


def write_stopped(
  request: Request,
  inputs: Inputs,
  describe: Callable[[Inputs, Sequence[str]], Mapping[str, Any]],
  finished: set[str],
) -> None:
  """Writes that the run did not come to its end, and which images are done.

  Raises:
    OSError: the output folder cannot be written to.
  """
  # A worker may have finished images that were not told of any more.
  stems = [one.stem for one in inputs.sources]
  written = results.list_finished(request.output, stems, inputs.hashes)
  record = describe(inputs, sorted({*finished, *written}))
  write_record(request, inputs, record, "stopped")


def locate_result(request: Request) -> Path:
  """Returns the file to look at first when the run is done."""
  if request.shard:
    return request.shard.locate(request.output)
  return request.output / "report.html"


def write_record(
  request: Request, inputs: Inputs, record: Mapping[str, Any], state_word: str
):
  """Writes that the run is running, or was stopped.

  Raises:
    OSError: the output folder cannot be written to.
  """
  output, shard = request.output, request.shard
  if shard:
    shard.locate_failures(output).unlink(missing_ok=True)
    shards.write_record(output, shard, record, inputs.panel, state_word)
  else:
    write.write_json(output / "run.json", {**record, "state": state_word})


def write_finished(
  request: Request,
  inputs: Inputs,
  stems: Sequence[str],
  failures: FailureLog,
  record: Mapping[str, Any],
  told: Shelf,
):
  """Writes what covers all images; of a share, its record and failures.

  Raises:
    OSError: a file cannot be written; names it.
    ValueError: a finished image's file was damaged meanwhile; names it.
  """
  output, shard = request.output, request.shard
  if shard:
    failures.write_file(shard.locate_failures(output))
    shards.write_record(output, shard, record, inputs.panel, "done")
    return
  names = [image.stem for image in inputs.sources]
  unlisted = [path for path, _ in inputs.unlisted]
  state.retire_files(output, results.FILES, names, unlisted)
  results.write_run(output, stems, failures, inputs.panel, record, told)


def read_inputs(request: Request) -> Inputs:
  """Reads what all images share, and lists them.

  Raises:
    ValueError, OSError: the call cannot be done; one line.
  """
  path, model_path = request.panel_path, request.model_path
  rows = panel.read_panel(path) if path else None
  listed, unlisted = shards.take(
    request.shard, *listing.list_stacks(request.images, rows)
  )
  model = None
  if request.method == chain.NETWORK:
    model, _ = weights.read_model(model_path, request.config.model.dtype)
  return Inputs(
    sources=tuple(listed),
    unlisted=tuple(unlisted),
    panel=rows,
    model=model,
    hashes={
      "panel": source.hash_source(ImageSource("panel", path)) if path else "",
      "config": config_lib.hash_config(request.config),
      "model": config_lib.hash_model(model_path) if model else request.method,
      "pixel_size_um": str(request.pixel_size_um),
      "version": f"{__version__}, masks {segment.REVISION}",
    },
    clock=predict.DeviceClock(),
  )


def finish_images(
  request: Request,
  inputs: Inputs,
  failures: FailureLog,
  finished: set[str],
  told: Shelf,
):
  """Does the images that are left.

  Args:
    request: the call.
    inputs: what it read.
    failures: gets the images that fail.
    finished: gets the stems of the others.
    told: gets the cells of those done now, unless they are a share.
  """
  plan = image_job.RunPlan(
    config=request.config,
    panel=inputs.panel,
    pixel_size_um=request.pixel_size_um,
    method=request.method,
    output=request.output,
    hashes=inputs.hashes,
    overwrite=request.overwrite,
    is_share=request.shard is not None,
  )
  make = functools.partial(image_job.ImageJob, plan)
  sources = list_in_order(request, inputs)
  num_workers = pool.count_workers(request.num_workers, len(sources))
  with (
    pool.Workers(num_workers, make) as workers,
    Progress(len(sources)) as progress,
    contextlib.closing(make_pipeline(request, inputs, workers)) as line,
  ):
    warnings: collections.Counter[str] = collections.Counter()
    num_before = 0
    for outcome in line.run(sources):
      image = outcome.source
      tell_warnings(image, outcome.warnings, warnings)
      if isinstance(outcome.result, Exception):
        fail_image(request, image, outcome.result, failures)
        progress.tell(f"{image.stem} failed", is_failure=True)
        continue
      finished.add(image.stem)
      if outcome.result is None:
        num_before += 1
        progress.skip()
      else:
        if outcome.result.cells is not None:
          told.put(image.stem, outcome.result.cells)
        progress.tell(f"{image.stem}: {outcome.result.num_cells} cells")
  for text, count in warnings.items():
    if count > 1:
      logging.warning("%d more: %s", count - 1, text)
  if num_before:
    logging.info("%d images were finished already", num_before)


def list_in_order(request: Request, inputs: Inputs) -> list[ImageSource]:
  """Returns the images; those that may be finished already come last.

  They are looked at while the others are done.
  """
  may_be_finished = functools.partial(has_state, request)
  return sorted(inputs.sources, key=may_be_finished)


def has_state(request: Request, image: ImageSource) -> bool:
  """Whether an earlier run may have done an image."""
  path = state.locate(request.output, image.stem)
  return not request.overwrite and path.exists()


def make_pipeline(
  request: Request, inputs: Inputs, workers: pool.Workers
) -> pipeline.Pipeline:
  """Returns what leads the images through all steps."""
  config, num_workers = request.config, workers.num_workers
  first_pass = network = compile_ahead = None
  is_open = config.predict.magnification == sections.AUTO
  if inputs.model is not None:
    first_pass, network = predict.load_passes(
      inputs.model,
      config.predict,
      magnification.WINDOW_PX,
      None,
      inputs.clock,
    )
    compile_ahead = functools.partial(
      predict.compile_ahead, inputs.model, config.predict
    )
  return pipeline.Pipeline(
    workers,
    first_pass if is_open else None,
    network,
    ahead=num_workers,
    needs_hash=functools.partial(has_state, request),
    compile_ahead=compile_ahead,
  )


def tell_warnings(
  image: ImageSource, warnings: Sequence[str], told: collections.Counter[str]
):
  """Logs an image's warnings that none had before: the panel's come each time.

  Args:
    image: that they are of.
    warnings: one line each.
    told: counts them.
  """
  for line in warnings:
    if line not in told:
      logging.warning("%s: %s", image.stem, line)
  told.update(warnings)


def fail_image(
  request: Request, image: ImageSource, error: Exception, failures: FailureLog
):
  """Adds a failure; what an earlier run made of the image goes."""
  failures.add(image.stem, describe_source(image), error)
  results.discard_image(request.output, image.stem)


def describe_run(
  request: Request,
  failures: FailureLog,
  started: float,
  inputs: Inputs,
  stems: Sequence[str],
) -> dict[str, Any]:
  """Returns the record of the run, as run.json has it."""
  is_network = inputs.model is not None
  return {
    "command": shlex.join(["dicexmbd", *sys.argv[1:]]),
    "finished": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    "num_images": len(stems),
    "num_failed": len(failures),
    "config": config_lib.flatten(request.config),
    "method": request.method,
    "model": {
      "name": name_model(request.model_path) if is_network else request.method,
      "sha256": inputs.hashes["model"],
    },
    "panel_sha256": inputs.hashes["panel"],
    "hashes": dict(inputs.hashes),
    "device": predict.describe_device() if is_network else "CPU",
    "devices_busy": inputs.clock.describe(),
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


def name_model(folder: Path) -> str:
  """Returns a model folder's name, and of best/ and last/ the run's before."""
  folder = folder.resolve()
  is_of_run = folder.name in ("best", "last")
  return f"{folder.parent.name}/{folder.name}" if is_of_run else folder.name
