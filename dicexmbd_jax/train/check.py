"""Looks at a training run's configuration before anything is written."""

import math
import pathlib
from typing import Any

from ml_collections import ConfigDict

from dicexmbd_jax.train import (
  augment,
  dataset,
  input_pipeline,
  loop,
  optimizer,
  processes,
  sharding,
)

COUNTS = (  # At least 1.
  "num_steps",
  "batch_size",
  "accumulate_steps",
  "crop_px",
  "report_steps",
  "eval_steps",
  "checkpoint_steps",
  "keep_checkpoints",
  "strip_every",
)
NUMBERS = (  # At least 0.
  "warmup_steps",
  "cells_every",
  "cells_records",
  "num_workers",
  "learning_rate",
  "weight_decay",
  "clip_norm",
  "average_decay",
)


def complete_config(config: ConfigDict) -> ConfigDict:
  """Returns the configuration with what follows from the records' number.

  num_steps from num_epochs; eval_steps (an epoch) and checkpoint_steps (as
  eval_steps), where they are None.

  Raises:
    ValueError: there is nothing to train on.
  """
  if not config.get("train", {}).get("data"):
    raise ValueError(
      "--config: found no train.data, expected records to train on"
    )
  config = config.copy_and_resolve_references()
  sources = loop.list_sources(config)
  drawn = [source for source in sources if source.weight]
  if not drawn:
    raise ValueError(
      "config.train.data: found weight 0 everywhere, expected one above it"
    )
  num_records = input_pipeline.count_records(drawn, "train")
  if not num_records:
    paths = ", ".join(source.path for source in drawn)
    raise ValueError(
      f"{paths}: found no record in split 'train', expected some"
    )
  if not _is_number(config.train.batch_size, 1):
    raise ValueError(_describe(config.train, "batch_size", "1 or more"))
  epoch = max(num_records // config.train.batch_size, 1)
  if config.train.num_epochs is not None:
    if not _is_number(config.train.num_epochs, 0):
      raise ValueError(_describe(config.train, "num_epochs", "a number"))
    config.train.num_steps = math.ceil(config.train.num_epochs * epoch)
  if config.train.eval_steps is None:
    config.train.eval_steps = epoch
  if config.train.checkpoint_steps is None:
    config.train.checkpoint_steps = config.train.eval_steps
  return config


def check_config(config: ConfigDict):
  """Raises ValueError, one line, for values that cannot be trained with.

  And for those that the weights would carry and nobody could predict with.

  Args:
    config: from complete_config.
  """
  section = config.train
  for name in COUNTS:
    if not _is_number(section[name], 1) or section[name] != int(section[name]):
      raise ValueError(_describe(section, name, "a whole number above 0"))
  for name in NUMBERS:
    if not _is_number(section[name], 0):
      raise ValueError(_describe(section, name, "a number from 0 on"))
  if section.shard_above is not None and not _is_number(section.shard_above, 0):
    raise ValueError(_describe(section, "shard_above", "a number from 0 on"))
  if section.average_decay >= 1:
    raise ValueError(_describe(section, "average_decay", "less than 1"))
  if section.crop_px % 2**config.model.depth:
    wanted = f"a multiple of {2**config.model.depth} (depth of the network)"
    raise ValueError(_describe(section, "crop_px", wanted))
  if section.schedule not in optimizer.SCHEDULES:
    wanted = ", ".join(optimizer.SCHEDULES)
    raise ValueError(_describe(section, "schedule", wanted))
  if section.schedule == "plateau":
    check_plateau(section, loop.list_sources(config))
  known = augment.Strengths.__dataclass_fields__
  for name in section.augment:
    if name not in known:
      raise ValueError(
        f"config.train.augment.{name}: found no such step, expected "
        f"{', '.join(known)}"
      )
    strength = section.augment[name]
    if not isinstance(strength, bool) and not _is_number(strength, 0):
      raise ValueError(
        f"config.train.augment.{name}: found {strength}, expected a number "
        "from 0 on"
      )
  sharding.check_batch(section, *processes.count())


def find_patch_px(config: ConfigDict) -> int:
  """Returns the edge of the records, into which the crop has to fit.

  Raises:
    ValueError: it does not, or the records differ.
  """
  sources = loop.list_sources(config)
  first, *others = (
    dataset.Records(source.path, "train").patch_px for source in sources
  )
  if any(other != first for other in others):
    raise ValueError(
      f"config.train.data: found records of {[first, *others]} px, expected "
      "one size"
    )
  if config.train.crop_px > first:
    wanted = f"at most {first} as the records have"
    raise ValueError(_describe(config.train, "crop_px", wanted))
  return first


def check_plateau(section: ConfigDict, sources: list[input_pipeline.Source]):
  """Raises ValueError where reduce-on-plateau cannot work."""
  if not 0 < section.plateau_factor < 1:
    raise ValueError(_describe(section, "plateau_factor", "between 0 and 1"))
  if not _is_number(section.plateau_patience, 1):
    raise ValueError(_describe(section, "plateau_patience", "1 or more"))
  if not input_pipeline.count_records(sources, "validation"):
    raise ValueError(
      "config.train.schedule: found 'plateau' and no validation records, "
      "expected records, or schedule constant or cosine"
    )


def check_workdir(workdir: pathlib.Path):
  """Raises ValueError where another model's weights would be overwritten."""
  models = ("params.npz", "best", "last")
  has_model = any((workdir / name).exists() for name in models)
  if has_model and not (workdir / "checkpoints").is_dir():
    raise ValueError(
      f"--workdir={workdir}: found a model without checkpoints, expected a new "
      "folder or that of a run; --checkpoint starts from a model's weights"
    )


def _is_number(value: Any, low: float) -> bool:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and low <= value < math.inf


def _describe(section: ConfigDict, name: str, wanted: str) -> str:
  return f"config.train.{name}: found {section[name]}, expected {wanted}"
