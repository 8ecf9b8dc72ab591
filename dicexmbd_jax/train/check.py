"""Looks at a training run's configuration before anything is written."""

import dataclasses
import math
import pathlib
from typing import Annotated, Any

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax.sections import (
  NESTED,
  TEXT,
  Kind,
  Section,
  choice,
  number,
  whole,
)
from dicexmbd_jax.train import (
  augment,
  dataset,
  input_pipeline,
  loop,
  optimizer,
  processes,
  sharding,
)
from dicexmbd_jax.train.workdir import Workdir

Steps = Annotated[int, whole(1)]
Count = Annotated[int, whole(0)]
Strength = Annotated[float, number(0)]
_NUM_CLASSES = 3


def _is_weights(value: Any) -> bool:
  is_list = isinstance(value, list | tuple) and len(value) == _NUM_CLASSES
  return is_list and all(map(number(0).accepts, value))


@dataclasses.dataclass(frozen=True)
class DataSection(Section):
  """One folder of records to train on, as configs/default.py has it."""

  NAME = "train.data"

  path: Annotated[str, TEXT]
  weight: Annotated[float, number(0)]


@dataclasses.dataclass(frozen=True)
class LossSection(Section):
  """The loss, as configs/default.py has it."""

  NAME = "train.loss"

  class_weights: Annotated[Any, Kind("three numbers of 0 or more", _is_weights)]
  dice_weight: Annotated[float, number(0, 1)]


@dataclasses.dataclass(frozen=True)
class TrainSection(Section):
  """Training; configs/default.py says what each value is."""

  NAME = "train"

  data: Annotated[Any, NESTED]
  num_workers: Count
  num_steps: Steps
  num_epochs: Annotated[float | None, number(above=0)]
  batch_size: Steps
  accumulate_steps: Steps
  crop_px: Steps
  shard_above: Annotated[int | None, whole(0)]
  schedule: Annotated[str, choice(*optimizer.SCHEDULES)]
  learning_rate: Annotated[float, number(0)]
  warmup_steps: Count
  plateau_factor: Annotated[float, number(above=0, below=1)]
  plateau_patience: Steps
  weight_decay: Annotated[float, number(0)]
  clip_norm: Annotated[float, number(0)]
  average_decay: Annotated[float, number(0, below=1)]
  report_steps: Steps
  eval_steps: Annotated[int | None, whole(1)]
  checkpoint_steps: Annotated[int | None, whole(1)]
  keep_checkpoints: Steps
  strip_every: Steps
  cells_every: Count
  cells_records: Count
  loss: Annotated[Any, NESTED]
  augment: Annotated[Any, NESTED]

  def __post_init__(self):
    """Raises a ValueError, one line, for a value that cannot be meant."""
    super().__post_init__()
    LossSection.read(self.loss)
    augment.Strengths.read(self.augment)
    for name, source in self.data.items():
      DataSection.read(source, f"train.data.{name}")


def complete_config(config: ConfigDict) -> ConfigDict:
  """Returns the configuration, checked, with what follows from the records.

  num_steps from num_epochs; eval_steps (an epoch) and checkpoint_steps (as
  eval_steps), where they are None.

  Raises:
    ValueError: there is nothing to train on, or a value cannot be meant.
  """
  if not config.get("train", {}).get("data"):
    raise ValueError(
      "--config: found no train.data, expected records to train on"
    )
  TrainSection.read(config.train)
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
  epoch = max(num_records // config.train.batch_size, 1)
  if config.train.num_epochs is not None:
    config.train.num_steps = math.ceil(config.train.num_epochs * epoch)
  if config.train.eval_steps is None:
    config.train.eval_steps = epoch
  if config.train.checkpoint_steps is None:
    config.train.checkpoint_steps = config.train.eval_steps
  return config


def check_config(config: ConfigDict):
  """Raises ValueError, one line, for values that do not go together.

  Args:
    config: from complete_config.
  """
  section = config.train
  check_crop(config)
  if config.model.dtype == "float16":
    # The gradient of a mean over a large batch lies below its range.
    raise ValueError(
      "config.model.dtype: found float16, expected float32 or bfloat16 to train"
    )
  has_validation = input_pipeline.count_records(
    loop.list_sources(config), "validation"
  )
  if section.schedule == "plateau" and not has_validation:
    raise ValueError(
      "config.train.schedule: found 'plateau' and no validation records, "
      "expected records, or schedule constant or cosine"
    )
  sharding.check_batch(section, *processes.count())


def check_crop(config: ConfigDict):
  """Raises ValueError unless the network can halve the crop as it has to."""
  crop_px, multiple = config.train.crop_px, 2**config.model.depth
  if crop_px % multiple:
    raise ValueError(
      f"config.train.crop_px: found {crop_px}, expected a multiple of "
      f"{multiple} (depth of the network)"
    )


def plan_patch_px(config: ConfigDict) -> int:
  """Returns the edge of the records that are there, or are to be built.

  Raises:
    ValueError: as find_patch_px.
  """
  paths = [pathlib.Path(source.path) for source in loop.list_sources(config)]
  if paths and all(path.is_dir() for path in paths):
    return find_patch_px(config)
  records = config.get("records", {})
  patch_px = max(records.get("patch_px", 0), config.train.crop_px)
  tell_unused(patch_px, config.train.crop_px)
  return patch_px


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
    raise ValueError(
      f"config.train.crop_px: found {config.train.crop_px}, expected at most "
      f"{first} as the records have"
    )
  tell_unused(first, config.train.crop_px)
  return first


def tell_unused(patch_px: int, crop_px: int) -> None:
  """Warns where most of the pixels that are read are not trained on.

  Twice the crop's edge leaves room to turn and to shift it.
  """
  if patch_px > 2 * crop_px:
    logging.warning(
      "config.train.crop_px: found %d and records of %d px: %.0f times the "
      "pixels of a crop are read; build records of %d px, or take larger crops",
      *(crop_px, patch_px, (patch_px / crop_px) ** 2, 2 * crop_px),
    )


def check_workdir(workdir: Workdir):
  """Raises ValueError where another model's weights would be overwritten."""
  models = ("params.npz", "best", "last")
  has_model = any((workdir.folder / name).exists() for name in models)
  if has_model and not workdir.has_checkpoints():
    raise ValueError(
      f"--workdir={workdir.name}: found a model without checkpoints, expected "
      "a new folder or that of a run; --checkpoint starts from a model's "
      "weights"
    )
