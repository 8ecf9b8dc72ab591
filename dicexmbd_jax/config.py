"""Where a run's configuration comes from: weights, --config, --config.a.b=v.

Kept free of JAX and of absl's flags, so that every command starts fast. The
overrides cannot be absl flags: their names are known only once the weights
have been chosen.
"""

import hashlib
import importlib.util
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from ml_collections import ConfigDict

from dicexmbd_jax import sections
from dicexmbd_jax.io import json_file
from dicexmbd_jax.masks import settings

# What a configuration file may have beside what the weights have: they carry
# the sections of their own time. Nothing that makes masks reads these.
SECTIONS = ("seed", "train", "records")
# Sections that describe training; names in them are the trainer's to judge.
_TRAINING = ("train", "records")
# Values that came later, as they are where a model's folder lacks them.
_LATER: dict[str, dict[str, Any]] = {
  "image": {"negative": "refuse"},
  "predict": {
    "views": 1,
    "magnification": 1.0,
    "nuclear_evidence": 0.0,
    "membrane_evidence": 0.1,
  },
  "segment": {"max_growth_um": None},
}
SHIPPED_MODEL = pathlib.Path(__file__).parent / "weights" / "base"


def split_arguments(
  arguments: Sequence[str],
) -> tuple[list[str], str | None, dict[str, Any]]:
  """Takes the configuration's arguments out of a command line.

  Args:
    arguments: the command line.

  Returns:
    The other arguments; the value of --config, or None; the overrides, as
    {"segment.scale": 1} for --config.segment.scale=1. Values are read as YAML.

  Raises:
    ValueError: an override without "=value".
  """
  rest, file, overrides = [], None, {}
  words = iter(arguments)
  for word in words:
    name, has_value, value = word.lstrip("-").partition("=")
    if not word.startswith("-") or name.partition(".")[0] != "config":
      rest.append(word)
      continue
    if not has_value:
      value = next(words, "")
      if not value or value.startswith("--"):
        raise ValueError(f"{word}: found no value, expected {word}=VALUE")
    if name == "config":
      file = value
    else:
      overrides[name.removeprefix("config.")] = read_value(name, value)
  return rest, file, overrides


def read_value(name: str, text: str) -> Any:
  """Returns the value that `text` stands for, as YAML; (a, b) is a tuple.

  Raises:
    ValueError: the text is no YAML.
  """
  is_tuple = re.fullmatch(r"\(.*\)", text)
  try:
    value = yaml.safe_load(f"[{text[1:-1]}]" if is_tuple else text)
  except yaml.YAMLError as error:
    raise ValueError(f"--{name}: found {text!r}, expected a value") from error
  if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value):
    return float(value)  # YAML takes 1.0e-3 for a number, but not 1e-3.
  return tuple(value) if is_tuple else value


def read_config_file(path: str | pathlib.Path) -> ConfigDict:
  """Returns `get_config()` of a Python configuration file.

  Raises:
    ValueError: there is no such file, its code fails, or it has no get_config()
      that returns a ConfigDict.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"--config: found no file {path}")
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise ValueError(f"--config: {path}: expected a Python file (*.py)")
  module = importlib.util.module_from_spec(spec)
  # Configurations import one another as `configs.name`.
  sys.path.insert(0, str(path.resolve().parent.parent))
  try:
    spec.loader.exec_module(module)
    # In here, since it may import others.
    get_config = getattr(module, "get_config", None)
    config = get_config and get_config()
  except Exception as error:  # Whatever the file's own code raises.
    text = " ".join(str(error).split())
    raise ValueError(
      f"--config: {path}: found {type(error).__name__}: {text}"
    ) from error
  finally:
    sys.path.pop(0)
  if get_config is None:
    raise ValueError(f"--config: {path}: expected a function get_config()")
  if not isinstance(config, ConfigDict):
    raise ValueError(
      f"--config: {path}: found a get_config() that returns "
      f"{type(config).__name__}, expected a ConfigDict"
    )
  return config


def find_model(folder: str | os.PathLike) -> pathlib.Path:
  """Returns the model folder that is meant: of a training run, its best/.

  Args:
    folder: a model folder, or the workdir of a training run.

  Raises:
    ValueError: the run has no best/ yet.
  """
  folder = pathlib.Path(folder)
  best = folder / "best"
  if (best / "config.json").is_file():
    return best
  is_run = (folder / "checkpoints").is_dir()
  if is_run and not (folder / "params.npz").exists():
    raise ValueError(
      f"{folder}: found a training run without best/, expected {best}, which "
      "its first validation writes"
    )
  return folder


def read_model_config(folder: pathlib.Path) -> ConfigDict:
  """Returns the configuration that the weights in `folder` were made with.

  Raises:
    ValueError: there is no model in the folder, or one that nobody can predict
      with.
  """
  try:
    values = json_file.read_json(pathlib.Path(folder) / "config.json")
    config = ConfigDict(add_later(values))
  except (OSError, ValueError, TypeError, RecursionError) as error:
    raise ValueError(
      f"{folder}: found no readable config.json, expected a model folder "
      "(config.json, params.npz); a training run has two, best/ and last/"
    ) from error
  _check_from(str(folder), config)
  return config


def add_later(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a configuration with the values that came after it was written."""
  return {
    name: {**_LATER[name], **section} if name in _LATER else section
    for name, section in values.items()
  }


def hash_model(folder: pathlib.Path) -> str:
  """Returns the SHA-256 of the parameter file, hexadecimal.

  Raises:
    OSError: there is no model, or it cannot be read.
  """
  return hashlib.sha256((folder / "params.npz").read_bytes()).hexdigest()


def resolve_config(
  base: ConfigDict, file: str | None, overrides: Mapping[str, Any]
) -> ConfigDict:
  """Returns `base`, changed by a file and then by single values.

  Raises:
    ValueError: the file or an override names no value of the configuration,
      or has one that cannot be meant.
  """
  config = base.copy_and_resolve_references()
  overrides = _part_sections(overrides)
  changes = ConfigDict()
  if file is not None:
    changes = read_config_file(file).copy_and_resolve_references()
    check_names(changes, config, file)
  if "segment.preset" in overrides or "preset" in changes.get("segment", ()):
    # A preset that is named stands for all its values, not for some of them
    # and the rest as fitted to the weights.
    config.segment = drop_fitted(config.segment)
  if file is not None:
    _update(config, changes)
    _check_from(f"--config: {file}", config)
  for name in overrides:
    _add_source(config, name)
  for name, value in overrides.items():
    *parents, last = name.split(".")
    section: Any = config
    for parent in parents:
      section = section.get(parent) if isinstance(section, ConfigDict) else None
    if not isinstance(section, ConfigDict) or last not in section:
      known = section if isinstance(section, ConfigDict) else config
      raise ValueError(
        f"--config.{name}: found no such value, expected one of "
        f"{', '.join(sorted(known))}"
      )
    if isinstance(value, list | tuple) and isinstance(
      section[last], list | tuple
    ):
      value = type(section[last])(value)  # JSON and YAML know lists alone.
    _set(section, last, value)
  check_config(config)
  return config


def _part_sections(overrides: Mapping[str, Any]) -> dict[str, Any]:
  """Returns overrides value by value: a section's others stay as they are."""
  parted: dict[str, Any] = {}
  for name, value in overrides.items():
    if name in _SECTIONS and isinstance(value, Mapping):
      parted |= {f"{name}.{key}": one for key, one in value.items()}
    else:
      parted[name] = value
  return parted


def _add_source(config: ConfigDict, name: str):
  """Adds records to train on under a new name, as train.data.mine.path has."""
  found = re.fullmatch(r"train\.data\.([^.]+)\.path", name)
  data = config.get("train", {}).get("data")
  if found and data is not None and found[1] not in data:
    data[found[1]] = {"path": "", "weight": 1.0}


def _update(config: ConfigDict, changes: ConfigDict) -> None:
  """Changes values as `_set` does, those of sections one by one."""
  for name, value in changes.items():
    known = config.get(name)
    if isinstance(value, ConfigDict) and isinstance(known, ConfigDict):
      _update(known, value)
    else:
      _set(config, name, value)


def _set(section: ConfigDict, name: str, value: Any) -> None:
  """Changes a value; to one of another type too, for others to refuse.

  A ConfigDict would make 0.0 of false where a number was.
  """
  if isinstance(value, bool) and isinstance(section.get(name), float):
    with section.unlocked():
      del section[name]  # What is there makes a number of it.
      section[name] = value
    return
  try:
    section[name] = value
  except TypeError:
    with section.ignore_type():
      section[name] = value


def check_config(config: ConfigDict) -> None:
  """Raises a ValueError, one line, for what nobody can predict with.

  Args:
    config: its sections image, model, predict and segment are looked at; those
      of training by the trainer and the record builder.
  """
  seed, wanted = config.get("seed", 0), sections.whole(0)
  if not wanted.accepts(seed):
    raise ValueError(
      f"config.seed: found {sections.show(seed)}, expected {wanted.text}"
    )
  for name, read in _SECTIONS.items():
    section = config.get(name)
    if not isinstance(section, ConfigDict):
      raise ValueError(
        f"config.{name}: found {sections.show(section)}, expected a section"
      )
    read(section)
  if config.predict.tile_px:
    # Late: NumPy would make every start slower.
    from dicexmbd_jax.image import tiling

    tiling.check_tile(config.predict.tile_px, config.model.depth)


_SECTIONS: dict[str, Callable[[Any], Any]] = {
  "image": sections.ImageSection.read,
  "model": sections.ModelSection.read,
  "predict": sections.PredictSection.read,
  "segment": settings.resolve_settings,
}


def _check_from(source: str, config: ConfigDict):
  """Raises a ValueError that names where the configuration is from."""
  try:
    check_config(config)
  except ValueError as error:
    raise ValueError(f"{source}: {error}") from error


def check_names(changes: ConfigDict, known: ConfigDict, file: str) -> None:
  """Raises a ValueError where a file sets a value that there is not.

  Args:
    changes: what the file gives.
    known: the configuration that it changes.
    file: for the message.
  """
  for section, values in changes.items():
    if section not in known and section not in SECTIONS:
      names = sorted({*SECTIONS, *known})
      raise ValueError(_refuse_name(file, section, names))
    if section in _TRAINING or not isinstance(values, ConfigDict):
      continue
    names = sorted(known[section])
    for name in values:
      if name not in names:
        raise ValueError(_refuse_name(file, f"{section}.{name}", names))


def _refuse_name(file: str, name: str, names: Sequence[str]) -> str:
  return (
    f"--config: {file}: found config.{name}, expected one of {', '.join(names)}"
  )


def drop_fitted(section: ConfigDict) -> ConfigDict:
  """Returns `config.segment` with nothing but its preset."""
  return ConfigDict(
    {
      name: value if name == "preset" else None
      for name, value in section.items()
    }
  )


def check_model_section(config: ConfigDict, trained: ConfigDict):
  """Raises ValueError where the network asked for is not the one trained.

  The number type of the computation may differ.
  """
  for name, value in trained.model.items():
    if name != "dtype" and config.model[name] != value:
      raise ValueError(
        f"config.model.{name}: found {config.model[name]}, expected {value} "
        "as the weights have it"
      )


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
  """Returns {"section.name": value} of all values."""
  flat: dict[str, Any] = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat


def hash_config(config: ConfigDict) -> str:
  """Returns a SHA-256 of all values, hexadecimal; their order is ignored."""
  text = json.dumps(flatten(config), sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()
