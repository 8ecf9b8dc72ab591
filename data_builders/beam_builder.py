"""The builder of imc_patches with Apache Beam: an image is a task.

Imports Apache Beam, so only where it was asked for is this imported.
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import (
  PipelineOptions,
  StandardOptions,
)
from apache_beam.runners.portability import fn_api_runner

from data_builders import jobs, parts, shuffle
from data_builders.imc_patches import imc_patches_dataset_builder
from dicexmbd_jax.runs import pool
from dicexmbd_jax.runs.failures import FailureLog

# It tells of every step and type otherwise.
logging.getLogger("apache_beam").setLevel(logging.WARNING)
# What became of each image: lines of JSON, read when all are done.
OUTCOMES = ".outcomes"


class Builder(
  imc_patches_dataset_builder.Builder,
  tfds.core.GeneratorBasedBuilder,
  skip_registration=True,
):
  """Writes the same records as the builder on one machine.

  Two pipelines: images to parts, which stay if it is killed, as on one machine;
  then parts to shards.
  """

  name = "imc_patches"
  # TFDS writes with Beam what _split_generators gives; it sorts in files then.
  _download_and_prepare = tfds.core.GeneratorBasedBuilder._download_and_prepare

  def __init__(self, *, words: Sequence[str] = (), **kwargs: Any):
    """Takes Beam's own flags, such as --runner=FlinkRunner, and the rest.

    Args:
      words: the flags.
      **kwargs: of the builder on one machine.
    """
    self.words = list(words)
    super().__init__(**kwargs)

  def download_and_prepare(self, **kwargs: Any) -> None:
    """Builds as the builder on one machine does, with Beam's runner."""
    shard_bytes = self.request.config.records.shard_mib << 20
    config = make_download_config(self.words, shard_bytes)
    super().download_and_prepare(download_config=config, **kwargs)

  def _make_parts(
    self, plan: jobs.Plan
  ) -> tuple[dict[str, parts.Part], FailureLog]:
    log = FailureLog()
    for stem, file, line in plan.failures:
      log.add(stem, file, ValueError(line))
    folder = self.root / OUTCOMES
    shutil.rmtree(folder, ignore_errors=True)
    make = MakePart(plan.job, str(self.root / parts.FOLDER))
    with beam.Pipeline(
      runner=choose_runner(self.words), options=PipelineOptions(self.words)
    ) as pipeline:
      _ = (
        pipeline
        | beam.Create(plan.items)
        | beam.Reshuffle()  # Else one worker may get them all.
        | beam.ParDo(make)
        | beam.io.WriteToText(str(folder / "images"))
      )
    outcomes = read_outcomes(folder)
    shutil.rmtree(folder)
    found = {}
    for item in plan.items:
      outcome = outcomes[item.pair.stem]
      if isinstance(outcome, parts.Part):
        found[item.pair.stem] = outcome
      else:
        log.add(item.pair.stem, item.pair.image.path, ValueError(outcome))
    return found, log

  def _split_generators(self, dl_manager) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    return {
      split: self._generate_examples(chosen)
      for split, chosen in self._deal_parts().items()
    }

  def _generate_examples(self, chosen: Sequence[parts.Part]) -> Any:
    patch_px = self.request.config.records.patch_px
    return (
      beam.Create(chosen)
      | beam.Reshuffle()
      | beam.FlatMap(parts.read_examples, patch_px)
    )


class MakePart(beam.DoFn):
  """One image to its part, and to a line that says what became of it."""

  def __init__(self, job: jobs.Job, folder: str):
    """Takes what all images share, and a folder that all machines see."""
    self._job = job
    self._folder = folder

  def process(self, item: jobs.Item):
    """Yields the line; an image that fails stops no other."""
    try:
      part = parts.make_part(item, self._job, pathlib.Path(self._folder))
      outcome = dataclasses.asdict(part)
    except Exception as error:  # The report says what became of each image.
      outcome = {
        "error": pool.describe_error(error, parts.blame_file(item, error))
      }
    yield json.dumps([item.pair.stem, outcome])


def read_outcomes(folder: pathlib.Path) -> dict[str, parts.Part | str]:
  """Returns by image its part, or the line that says why it has none."""
  outcomes: dict[str, parts.Part | str] = {}
  for path in folder.glob("images*"):
    for line in path.read_text(encoding="utf-8").splitlines():
      stem, values = json.loads(line)
      if "error" in values:
        outcomes[stem] = values["error"]
      else:
        outcomes[stem] = parts.Part(
          **values | {"shape": tuple(values["shape"])}
        )
  return outcomes


def choose_runner(words: Sequence[str]) -> Any:
  """Returns this machine's runner where no other is asked for, else None.

  What Beam would choose here first fetches a program from the network, and
  falls back to this one.
  """
  asked = PipelineOptions(list(words)).view_as(StandardOptions).runner
  if asked in (None, "DirectRunner"):
    return fn_api_runner.FnApiRunner()
  return None


@dataclasses.dataclass(frozen=True)
class Shards:
  """As many shards as on one machine; TFDS's own rule looks at no size."""

  shard_bytes: int

  def get_number_shards(
    self, total_size: int, num_examples: int, uses_precise_sharding: bool = True
  ) -> int:
    """Returns the number; the name is the one that TFDS calls."""
    del uses_precise_sharding  # Shards of a pipeline differ by a few records.
    return shuffle.count_shards(total_size, num_examples, self.shard_bytes)


class DownloadConfig(tfds.download.DownloadConfig):
  """TFDS's, but for the number of shards."""

  def get_shard_config(self) -> Any:
    """Returns what tells the number of shards."""
    return Shards(self.max_shard_size)


def make_download_config(
  words: Sequence[str], max_shard_size: int
) -> DownloadConfig:
  """Returns how TFDS runs the second pipeline.

  Args:
    words: Beam's own flags.
    max_shard_size: bytes.
  """
  return DownloadConfig(
    beam_runner=choose_runner(words),
    beam_options=PipelineOptions(list(words)),
    max_shard_size=max_shard_size,
  )
