"""`import_weights`: from a PyTorch state dict to a model folder."""

import dataclasses
import pathlib

from absl import logging

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.model import reference_weights, torch_file, weights
from dicexmbd_jax.runs import pool

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Request:
  """What to read, and where to.

  Attributes:
    state_dict: the PyTorch file.
    output: the model folder.
  """

  state_dict: Path
  output: Path


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: state_dict, output.
  """
  try:
    return run_request(Request(Path(flags.state_dict), Path(flags.output)))
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, flags.state_dict))
    return 2


def run_request(request: Request) -> int:
  """Writes the model folder.

  The configuration is the published code's: its preprocessing, its masks.

  Raises:
    ValueError: no state dict, that of another network, or another model in
      the output folder.
    OSError: a file cannot be written.
  """
  tensors = torch_file.read_state_dict(request.state_dict)
  model = reference_weights.build_model(tensors)
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  config.model = reference_weights.describe_network(tensors)
  config.image.preset = "reference"
  config.predict.views = 1
  with config.predict.ignore_type():  # "auto" suits the shipped weights alone.
    config.predict.magnification = 1.0
  config.segment = config_lib.drop_fitted(config.segment)
  config.segment.preset = "dice_xmbd"
  if "train" in config:
    del config["train"]  # Of the shipped weights.
  weights.check_place(request.output, model, config, "float32")
  write.sweep_temporary(request.output)
  weights.write_model(request.output, model, config, "float32")
  logging.info("model folder: %s", request.output)
  return 0
