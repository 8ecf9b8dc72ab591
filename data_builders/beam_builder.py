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

from data_builders import jobs, parts
from data_builders.imc_patches import imc_patches_dataset_builder
from dicexmbd_jax.runs import pool
from dicexmbd_jax.runs.failures import FailureLog

# It tells of every step and type otherwise.
logging.getLogger("apache_beam").setLevel(logging.WARNING)
# What became of each image: lines of JSON, read when all are done.
OUTCOMES = ".outcomes"


class Builder(imc_patches_dataset_builder.Builder, skip_registration=True):
  """Writes the same records as the builder on one machine.

  Two pipelines: images to parts, which stay if it is killed, as on one machine;
  then parts to shards.
  """

  name = "imc_patches"

  def __init__(self, *, words: Sequence[str] = (), **kwargs: Any):
    """Takes Beam's own flags, such as --runner=FlinkRunner, and the rest.

    Args:
      words: the flags.
      **kwargs: of the builder on one machine.
    """
    self.words = list(words)
    super().__init__(**kwargs)

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

  def _generate_examples(self, chosen: Sequence[parts.Part]) -> Any:
    return (
      beam.Create(chosen) | beam.Reshuffle() | beam.FlatMap(parts.read_part)
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


def make_download_config(
  words: Sequence[str], max_shard_size: int
) -> tfds.download.DownloadConfig:
  """Returns how TFDS runs the second pipeline.

  Args:
    words: Beam's own flags.
    max_shard_size: bytes.
  """
  return tfds.download.DownloadConfig(
    beam_runner=choose_runner(words),
    beam_options=PipelineOptions(list(words)),
    max_shard_size=max_shard_size,
  )
