"""Reading and writing model weights.

A model is a folder: `config.json` (the configuration that the weights were made
with), `params.npz` (parameters, by their path in the network) and, where they
are known, `validation.json` (what a training run measured of these weights) and
`README.md` (the model card).
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import json_file, write
from dicexmbd_jax.io.arrays import read_arrays
from dicexmbd_jax.model import unet

Path = pathlib.Path
CONFIG, NUMBERS = "config.json", "validation.json"


def write_model(
  folder: Path,
  model: nnx.Module,
  config: ConfigDict,
  dtype: str = "float16",
  numbers: Mapping[str, float] | None = None,
):
  """Writes a model folder, whole or not at all.

  Whoever reads it at any time, also after this was killed, finds the model
  before, this one, or no model; never weights beside another configuration or
  beside another's numbers.

  Args:
    folder: made if missing; the model in it is replaced.
    model: its parameters and BatchNorm statistics are written.
    config: the whole configuration of the run.
    dtype: of the parameters. The statistics stay float32: a variance of
      inputs up to 255 does not fit float16.
    numbers: what the run measured of these weights.
  """
  folder = Path(folder)
  (folder / NUMBERS).unlink(missing_ok=True)
  if not _has_config(folder, config):
    # Without it there is no model, until all is there.
    (folder / CONFIG).unlink(missing_ok=True)
  arrays = list_arrays(model, dtype)
  with (
    write.replace_file(folder / "params.npz") as temporary,
    temporary.open("wb") as file,
  ):
    np.savez_compressed(file, **arrays)
  write_config(folder, config)
  if numbers:
    write.write_json(folder / NUMBERS, numbers)


def check_place(
  folder: Path, model: nnx.Module, config: ConfigDict, dtype: str = "float16"
):
  """Refuses a folder in which `write_model` would replace another model.

  Args:
    folder: may be missing.
    model: as `write_model` would get it.
    config: likewise.
    dtype: likewise.

  Raises:
    ValueError: a config.json is there, and not with this very model.
  """
  folder = Path(folder)
  if not (folder / CONFIG).exists():  # No model, or one that was not finished.
    return
  if not _has_config(folder, config) or not _has_arrays(
    folder, list_arrays(model, dtype)
  ):
    raise ValueError(
      f"{folder}: found another {CONFIG} or its weights, expected a new folder"
    )


def list_arrays(model: nnx.Module, dtype: str | None = None) -> dict[str, Any]:
  """Returns parameters and statistics by their path, as in "head/kernel".

  Args:
    model: the network.
    dtype: of the parameters; None: as they are.
  """
  arrays: dict[str, Any] = {}
  for path, leaf in nnx.to_flat_state(nnx.state(model)):
    value = np.asarray(leaf[...])
    if dtype and isinstance(leaf, nnx.Param):
      value = value.astype(dtype)
    arrays["/".join(map(str, path))] = value
  return arrays


def write_config(folder: Path, config: ConfigDict):
  """Writes the configuration of a model folder, or replaces it."""
  write.write_json(Path(folder) / CONFIG, json.loads(config.to_json()))


def _has_config(folder: Path, config: ConfigDict) -> bool:
  try:
    found = json_file.read_json(folder / CONFIG)
  except (OSError, ValueError):
    return False
  return found == json.loads(config.to_json())


def _has_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> bool:
  try:
    found = read_arrays(folder / "params.npz", "parameters")
  except ValueError:
    return False
  return found.keys() == arrays.keys() and all(
    np.array_equal(found[name], arrays[name]) for name in arrays
  )


def read_numbers(folder: Path) -> dict[str, float]:
  """Returns what a training run measured of a model; {}: nothing is known.

  Raises:
    ValueError: the file is damaged.
  """
  path = Path(folder) / NUMBERS
  if not path.exists():
    return {}
  found = json_file.read_json(path)
  try:
    return {name: float(value) for name, value in found.items()}
  except (TypeError, ValueError) as error:
    raise ValueError(f"{path}: found {error}, expected numbers") from error


def read_model(
  folder: Path, dtype: str | None = None
) -> tuple[unet.UNet, ConfigDict]:
  """Reads a model folder.

  Args:
    folder: what `write_model` wrote.
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
  path = folder / "params.npz"
  arrays = read_arrays(path, "parameters")
  return unet.fill_model(config.model, arrays, path), config
