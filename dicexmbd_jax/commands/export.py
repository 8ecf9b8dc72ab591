"""`export`: from a training run to a small model folder with its model card."""

import dataclasses
import pathlib

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.model import unet, weights
from dicexmbd_jax.runs import pool

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Request:
  """What to export, and where to.

  Attributes:
    source: a model folder.
    output: the new model folder.
  """

  source: Path
  output: Path

  def __post_init__(self):
    """Raises a ValueError where the weights would be written over."""
    # Nor into the run itself.
    if self.source.resolve().is_relative_to(self.output.resolve()):
      raise ValueError(
        f"{self.output}: found the weights, expected another folder"
      )


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: checkpoint, output.
  """
  try:
    return run_request(Request(Path(flags.checkpoint), Path(flags.output)))
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, flags.checkpoint))
    return 2


def run_request(request: Request) -> int:
  """Writes the model folder.

  Raises:
    ValueError: no weights, or broken files beside them.
    OSError: a file cannot be written.
  """
  source, output = request.source, request.output
  model, config = weights.read_model(source)
  numbers = weights.read_numbers(source)
  write.sweep_temporary(output)
  weights.write_model(output, model, config, numbers=numbers)
  card = describe_model(output, model, config, numbers)
  write.write_text(output / "README.md", card)
  logging.info("model folder: %s", output)
  return 0


def describe_model(
  folder: Path, model: unet.UNet, config: ConfigDict, numbers: dict[str, float]
) -> str:
  """Returns the model card, Markdown: what is known, and nothing else."""
  size = (folder / "params.npz").stat().st_size / 1e6
  lines = [
    f"# {folder.resolve().name}",
    "",
    f"U-Net of width {config.model.width}, depth {config.model.depth}, "
    f"{config.model.in_channels} inputs: {unet.count_parameters(model):,} "
    f"parameters, float16, {size:.1f} MB.",
    "",
    f"- SHA-256 of `params.npz`: `{config_lib.hash_model(folder)}`",
    f"- Preprocessing: `{config.image.preset}`, "
    f"{config.image.pixel_size_um} um per pixel",
    f"- Segmenter: preset `{config.segment.preset}`",
    *describe_training(config, numbers.get("step")),
    *(
      f"- {name}: {value:.6g}"
      for name, value in numbers.items()
      if name != "step"
    ),
    "",
    f"Use: `python -m dicexmbd_jax predict --checkpoint={folder} ...`",
    "",
  ]
  return "\n".join(lines)


def describe_training(config: ConfigDict, step: float | None) -> list[str]:
  """Returns the lines on data and steps that the configuration knows of.

  Args:
    config: of the run.
    step: that the weights are of, where that is known.
  """
  train = config.get("train")
  if train is None or "data" not in train:
    return []
  data = ", ".join(
    f"`{name}` (weight {part.weight})" for name, part in train.data.items()
  )
  return [
    f"- Trained on the records {data}",
    f"- {f'Step {step:g} of ' if step else ''}{train.num_steps} steps, each of "
    f"{train.batch_size} patches of {train.crop_px} px, seed {config.seed}",
  ]
