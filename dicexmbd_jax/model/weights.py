"""Reading and writing model weights.

A model is a folder of three files: `config.json` (the configuration that the
weights were made with), `params.npz` (parameters, by their path in the
network) and, where it is shipped, `README.md` (the model card). A training
run's workdir is one. A checkpoint of it, WORKDIR/checkpoints/STEP, is read too.
"""

import json
import pathlib
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.io.arrays import read_arrays
from dicexmbd_jax.model import unet

Path = pathlib.Path


def write_model(
  folder: Path, model: nnx.Module, config: ConfigDict, dtype="float16"
):
  """Writes a model folder.

  Args:
    folder: made if missing; files in it are replaced.
    model: its parameters and BatchNorm statistics are written.
    config: the whole configuration of the run.
    dtype: of the parameters. The statistics stay float32: a variance of
      inputs up to 255 does not fit float16.
  """
  arrays: dict[str, Any] = {}
  for path, leaf in nnx.to_flat_state(nnx.state(model)):
    value = np.asarray(leaf[...])
    is_param = isinstance(leaf, nnx.Param)
    arrays["/".join(map(str, path))] = value.astype(
      dtype if is_param else value.dtype
    )
  folder = Path(folder)
  with (
    write.replace_file(folder / "params.npz") as temporary,
    temporary.open("wb") as file,
  ):
    np.savez_compressed(file, **arrays)
  write.write_json(folder / "config.json", json.loads(config.to_json()))


def read_model(
  folder: Path, dtype: str | None = None
) -> tuple[unet.UNet, ConfigDict]:
  """Reads a model folder.

  Args:
    folder: what `write_model` wrote, or a checkpoint of a training run.
    dtype: of the computation; None: as the configuration has it.

  Returns:
    The network in evaluation mode, parameters float32, and the configuration.

  Raises:
    ValueError: the folder is no model folder, or weights and configuration do
      not belong together.
  """
  folder = Path(folder)
  config = config_lib.read_model_config(folder)
  if dtype is not None:
    config.model.dtype = dtype
  if config_lib.is_checkpoint(folder):
    # Orbax takes half a second to load: only where it is needed.
    from dicexmbd_jax.train import checkpoints

    return checkpoints.read_model(folder, config), config
  path = folder / "params.npz"
  arrays = read_arrays(path, "parameters")
  return unet.fill_model(config.model, arrays, path), config
