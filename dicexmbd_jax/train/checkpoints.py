"""Checkpoints of a run: written in the background, whole or not at all.

A checkpoint is a folder STEP with the state's arrays, by name, and `about`: the
configuration, which records these are, the position in them (which is the step)
and a checksum of every array. The checksums are of the values, so that they are
the same on any number of devices; Orbax alone does not see all damage.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.train import buckets

Path = pathlib.Path
_Read = TypeVar("_Read")
_MAX_WAIT_S = 60.0  # For a thread that writes, where another has failed.
# What may change when a run goes on. All else would make it another run.
HARMLESS = (
  "records.",
  "predict.",
  "segment.",
  "train.num_steps",
  "train.num_epochs",
  "train.num_workers",
  "train.shard_above",
  "train.checkpoint_steps",
  "train.keep_checkpoints",
  "train.strip_every",
  "train.cells_every",
  "train.cells_records",
)


class NewestAndBest:
  """Which checkpoints stay: Orbax's preservation policy.

  The best is known from the newest checkpoint, and not from a file of its own
  in each, as Orbax has it: a run could not go on where one of them is broken.

  Attributes:
    step: the best one's; None before the first validation.
    loss: its validation loss.
  """

  def __init__(self, num_newest: int):
    self._num_newest = num_newest
    self.step: int | None = None
    self.loss: float | None = None

  def add(self, step: int | None, validation_loss: float | None):
    """Takes a checkpoint's loss; None: it was not validated."""
    if validation_loss is None:
      return
    if self.loss is None or validation_loss < self.loss:
      self.step, self.loss = step, validation_loss

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Returns, for all checkpoints from the oldest on, whether they stay."""
    del context
    num_old = len(checkpoints) - self._num_newest
    return [
      index >= num_old or found.step == self.step
      for index, found in enumerate(checkpoints)
    ]


class Checkpoints:
  """The checkpoints of one run: the newest and the best by validation."""

  def __init__(
    self,
    folder: Path | str,
    num_newest: int,
    records: Mapping[str, str] = MappingProxyType({}),
    after_save: Callable[[], None] | None = None,
  ):
    """Opens the folder; it is made where it is missing.

    Args:
      folder: of the checkpoints, or its address in a bucket of Google's; what a
        killed run left half done in it is removed.
      num_newest: how many are kept beside the best.
      records: hashes of the datasets by their name in `train.data`; where they
        lie may change when a run goes on.
      after_save: called when a checkpoint is written, which is then waited for.
    """
    self._after_save = after_save
    self._records = dict(records)
    is_address = buckets.is_address(folder)
    place = str(folder) if is_address else Path(folder).resolve()
    self._kept = NewestAndBest(num_newest)
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=self._kept, cleanup_tmp_directories=True
    )
    with _name_folder(place):
      self._manager = ocp.CheckpointManager(place, options=self._options)
    self._folder = self._manager.directory

  def has(self, step: int) -> bool:
    """Returns whether there is a checkpoint of a step."""
    return step in self._manager.all_steps()

  def save(
    self,
    step: int,
    state: Any,
    config: ConfigDict,
    validation_loss: float | None = None,
  ):
    """Copies the state and writes it in the background.

    Args:
      step: steps done. A step that is there already is left as it is.
      state: a tree of arrays; it may be donated as soon as this returns.
      config: the whole configuration.
      validation_loss: the lowest one's checkpoint is kept.

    Raises:
      OSError: this checkpoint or the one before cannot be written.
    """
    if self.has(step):
      return
    self._wait()  # For the one before, before it is judged.
    self._kept.add(step, validation_loss)
    arrays = name_arrays(state)
    about = {
      "config": json.loads(config.to_json()),
      "records": self._records,
      "input_pipeline": {"step": step},
      "best": {"step": self._kept.step, "validation_loss": self._kept.loss},
      "arrays": describe_arrays(arrays),
    }
    with _name_folder(self._folder):
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(arrays),
          about=ocp.args.JsonSave(sign(about)),
        ),
        force=True,
      )
    if self._after_save:
      self._wait()
      self._after_save()

  def restore(
    self, shapes: Any, config: ConfigDict, shardings: Any = None
  ) -> Any:
    """Returns the newest whole checkpoint's state, or None.

    One that is damaged is moved away, and the one before is taken.

    Args:
      shapes: the state's shapes and types.
      config: of the run that goes on.
      shardings: where its arrays shall lie; each process reads what its devices
        hold. None: all of it, as NumPy's arrays.

    Raises:
      ValueError: none is whole, or the newest that can be read is of another
        configuration or of other records.
    """
    ways = {} if shardings is None else name_arrays(shardings)
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        about = read_about(self._manager, step)
        self._check_run(about, config)
        check_shapes(about, shapes, self._folder / str(step))
        arrays = read_arrays(self._manager, step, about, ways)
      except DamagedError as error:
        logging.warning("%s; going back to the one before", error)
        continue
      self._kept.add(**about["best"])
      state = fill_shapes(shapes, arrays)
      self._set_aside([other for other in steps if other > step])
      return state
    if steps:
      raise ValueError(
        f"{self._folder}: found no checkpoint that is whole, expected one; to "
        "start anew choose another --workdir"
      )
    return None

  def _check_run(self, about: dict[str, Any], config: ConfigDict):
    """Raises ValueError where a checkpoint is of another run."""
    check_same_config(
      ConfigDict(about["config"]),
      config,
      about.get("records", {}),
      self._records,
    )

  def _set_aside(self, steps: list[int]):
    """Renames damaged checkpoints, so that these steps can be saved again."""
    if not steps:
      return
    self._manager.close()
    if jax.process_index() == 0:
      for step in steps:
        target = self._folder.with_name("broken_checkpoints") / str(step)
        target.parent.mkdir(exist_ok=True)
        if not target.parent.exists():  # Buckets know no empty folders.
          (target.parent / ".keep").write_text("")
        while target.exists():
          target = target.with_name(f"{target.name}_again")
        (self._folder / str(step)).rename(target)
    multihost_utils.sync_global_devices("damaged checkpoints are set aside")
    self._manager = ocp.CheckpointManager(self._folder, options=self._options)

  def close(self):
    """Waits for what is being written.

    Raises:
      OSError: it cannot be written.
    """
    try:
      self._wait()
    finally:
      for thread in threading.enumerate():
        # Where one has failed, Orbax does not wait for the others.
        if type(thread).__module__.startswith("orbax."):
          with contextlib.suppress(Exception):
            thread.join(_MAX_WAIT_S)
      with contextlib.suppress(Exception):  # It is told already.
        self._manager.close()

  def _wait(self):
    with _name_folder(self._folder):
      self._manager.wait_until_finished()


@contextlib.contextmanager
def _name_folder(folder: Path | str) -> Iterator[None]:
  """Turns what the system refused into an OSError that names the folder.

  Tensorstore, below Orbax, raises ValueErrors of several lines.
  """
  if buckets.is_address(folder):
    with buckets.name_address(str(folder), "a bucket that can be written to"):
      yield
    return
  try:
    yield
  except (OSError, ValueError, RuntimeError) as error:
    told = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    if number is None:
      raise
    raise OSError(number, os.strerror(number), str(folder)) from error


class DamagedError(ValueError):
  """A checkpoint that cannot be read whole, by any of the processes."""


def read_about(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """Returns what a checkpoint says about itself.

  Raises:
    DamagedError: it cannot be read, or has not its checksum.
  """

  def read() -> dict[str, Any]:
    wanted = ocp.args.Composite(about=ocp.args.JsonRestore())
    signed = manager.restore(step, args=wanted).about
    if sign(signed["about"]) != signed:
      raise ValueError("wrong checksum of itself")
    return signed["about"]

  return _agree(manager.directory / str(step), read)


def read_arrays(
  manager: ocp.CheckpointManager,
  step: int,
  about: dict[str, Any],
  ways: Mapping[str, jax.sharding.Sharding] = MappingProxyType({}),
) -> dict[str, Any]:
  """Returns a checkpoint's arrays by name.

  Args:
    manager: of the checkpoints.
    step: which one.
    about: from read_about.
    ways: where the arrays shall lie, wherever they lay when they were saved;
      each process reads its part. Those that are not named: whole, of NumPy.

  Raises:
    DamagedError: they cannot be read, or have not their checksums.
  """
  path = manager.directory / str(step)
  wanted = {
    name: jax.ShapeDtypeStruct(
      array["shape"], array["dtype"], sharding=ways[name]
    )
    if name in ways
    else np.empty(array["shape"], array["dtype"])
    for name, array in about["arrays"].items()
  }
  target = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
  arrays = _agree(path, lambda: manager.restore(step, args=target).state)
  # Of all parts together: all processes find the same.
  found = _agree(path, lambda: describe_arrays(arrays))
  if found != about["arrays"]:
    raise DamagedError(f"{path}: found a damaged checkpoint (wrong checksums)")
  return arrays


def _agree(path: Any, read: Callable[[], _Read]) -> _Read:
  """Returns what is read, if all processes can; they call it together.

  Raises:
    DamagedError: one of them cannot.
  """
  failure: Exception | None = None
  try:
    found = read()
  except Exception as error:  # Orbax and what is below it have dozens.
    failure = error
  is_read = np.asarray(failure is None)
  if jax.process_count() > 1:
    is_read = multihost_utils.process_allgather(is_read)
  if is_read.all():
    return found
  text = "another process cannot read it"
  if failure is not None:
    text = " ".join(str(failure).split())[:200]
    text = f"{type(failure).__name__}: {text}"
  raise DamagedError(
    f"{path}: found a damaged checkpoint ({text})"
  ) from failure


def sign(about: dict[str, Any]) -> dict[str, Any]:
  """Returns what a checkpoint says about itself, with its SHA-256."""
  text = json.dumps(about, sort_keys=True)
  return {"about": about, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def describe_arrays(arrays: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns shape, dtype and checksum of arrays, by name."""
  sums = jax.device_get(sum_bits(arrays))
  return {
    name: {
      "shape": list(array.shape),
      "dtype": str(array.dtype),
      "checksum": int(sums[name]),
    }
    for name, array in arrays.items()
  }


def name_arrays(state: Any) -> dict[str, Any]:
  """Returns the arrays of a tree by path: "params.head.kernel.value"."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in leaves
  }


def check_shapes(about: dict[str, Any], shapes: Any, path: Path):
  """Raises a ValueError where a checkpoint lacks an array of these shapes."""
  for name, wanted in name_arrays(shapes).items():
    array = about["arrays"].get(name)
    found = tuple(array["shape"]) if array else "nothing"
    if found != wanted.shape:
      raise ValueError(
        f"{path}: {name}: found {found}, expected {wanted.shape}"
      )


def fill_shapes(shapes: Any, arrays: dict[str, Any]) -> Any:
  """Returns the tree of these shapes with the arrays of the same names."""
  leaves = [arrays[name] for name in name_arrays(shapes)]
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


@jax.jit
def sum_bits(arrays: dict[str, Any]) -> dict[str, jax.Array]:
  """Returns each array's sum of bit patterns, modulo 2**32.

  Whole numbers: the order of the summands, so the devices, do not matter.
  """

  def sum_array(values: jax.Array) -> jax.Array:
    if values.dtype.itemsize == 4:
      values = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return values.astype(jnp.uint32).sum(dtype=jnp.uint32)

  return jax.tree.map(sum_array, arrays)


def check_same_config(
  saved: ConfigDict,
  config: ConfigDict,
  saved_records: Mapping[str, str] = MappingProxyType({}),
  records: Mapping[str, str] = MappingProxyType({}),
):
  """Raises ValueError where a run would go on as another one.

  Args:
    saved: the run's configuration.
    config: the one to go on with.
    saved_records: hashes of the run's datasets by name; empty where it did not
      keep them: then their paths are compared.
    records: hashes of those that are there now.
  """
  complete = config_lib.add_later(json.loads(saved.to_json()))
  before = config_lib.flatten(ConfigDict(complete))
  now = config_lib.flatten(ConfigDict(json.loads(config.to_json())))
  for name, found in records.items():
    place = f"train.data.{name}.path"
    if found != saved_records.get(name, found):
      raise ValueError(
        f"config.{place}: found other records in {now.get(place)} than those "
        f"the run in this workdir was trained on ({before.get(place)}), "
        "expected the same; choose another --workdir for another run"
      )
  changed = [
    name
    for name in sorted(before | now)
    if before.get(name) != now.get(name)
    and not name.startswith(HARMLESS)
    and not _is_place(name, saved_records.keys() & records.keys())
  ]
  if changed:
    values = "; ".join(
      f"{name}: found {now.get(name)}, expected {before.get(name)}"
      for name in changed
    )
    raise ValueError(
      f"--config: {values}, as the run in this workdir has it; choose another "
      "--workdir for another run"
    )


def _is_place(name: str, compared: Set[str]) -> bool:
  """Whether a setting is only the place of records that were compared."""
  place = re.fullmatch(r"train\.data\.(.+)\.path", name)
  return place is not None and place[1] in compared
