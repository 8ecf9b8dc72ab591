"""`import_weights`: from a PyTorch state dict to a model folder."""

import pathlib

from absl import logging

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.model import reference_weights, torch_file, weights
from dicexmbd_jax.runs import pool

Path = pathlib.Path


def run(flags) -> int:
  """Runs the command; returns the exit code.

  The configuration is the published code's: its preprocessing, its masks.

  Args:
    flags: state_dict, output.
  """
  path, output = Path(flags.state_dict), Path(flags.output)
  try:
    tensors = torch_file.read_state_dict(path)
    model = reference_weights.build_model(tensors)
    config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
    config.model = reference_weights.describe_network(tensors)
    config.image.preset = "reference"
    config.predict.views = 1
    config.segment = config_lib.drop_fitted(config.segment)
    config.segment.preset = "dice_xmbd"
    if "train" in config:
      del config["train"]  # Of the shipped weights.
    weights.write_model(output, model, config, "float32")
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, path))
    return 2
  logging.info("model folder: %s", output)
  return 0
