"""`train`: from records to model folders, on one device or many.

Exit codes: 0 done; 1 failed (a loss that is not finite, a record that cannot
be read); 2 wrong call; 75 asked to stop and saved: the same call goes on.
"""

import contextlib
import dataclasses
import pathlib

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.model import weights
from dicexmbd_jax.model.unet import UNet, build_model
from dicexmbd_jax.runs import pool
from dicexmbd_jax.train import check, loop, optimizer, processes
from dicexmbd_jax.train import log as log_lib
from dicexmbd_jax.train.checkpoints import Checkpoints
from dicexmbd_jax.train.program import Program, make_program, trace_step
from dicexmbd_jax.train.speed import Profile
from dicexmbd_jax.train.step import TrainState
from dicexmbd_jax.train.workdir import Workdir, open_workdir

Path = pathlib.Path
STOPPED = 75  # sysexits.h: a temporary failure, try again.


@dataclasses.dataclass(frozen=True)
class Request:
  """One call of `train`.

  Attributes:
    checkpoint: the weights to start from; None: random.
    config: the whole configuration.
    file: as its file has it, without what the call overrides.
    profile_steps: FIRST:LAST; None: nothing is recorded.
  """

  checkpoint: str | None
  config: ConfigDict
  file: ConfigDict
  profile_steps: str | None


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: workdir, checkpoint (the weights to start from), config,
      file_config, coordinator, num_processes, process_id, profile_steps.
  """
  try:
    processes.start_processes(
      flags.coordinator, flags.num_processes, flags.process_id
    )
    log_lib.name_process()
    workdir = open_workdir(flags.workdir)
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, flags.workdir))
    return 2
  request = Request(
    flags.checkpoint, flags.config, flags.file_config, flags.profile_steps
  )
  code = 1
  try:
    code = run_in(workdir, request)
  finally:
    try:
      workdir.close()
    except OSError as error:
      logging.error("%s", error)
      code = code or 1
  return code


def run_in(workdir: Workdir, request: Request) -> int:
  """Runs the command in its folder; returns the exit code."""
  try:
    profile = Profile(request.profile_steps, workdir.folder / "profile")
    config = check.complete_config(request.config)
    check.check_config(config)
    check.check_workdir(workdir)
    model = start_model(request.checkpoint, config)
    program = make_program(model, config)
    trace_step(program, config, check.find_patch_px(config))
    checkpoints = Checkpoints(
      workdir.checkpoints,
      config.train.keep_checkpoints,
      loop.hash_records(config),
      after_save=workdir.push if workdir.copies_checkpoints else None,
    )
    state = loop.restore_state(program, config, checkpoints)
    check_steps(state, config)
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, workdir.name))
    return 2
  try:
    logging.info(
      "%s", optimizer.describe_batch(config.train, request.file.train)
    )
    return run_training(program, state, config, checkpoints, workdir, profile)
  except (FloatingPointError, ValueError, OSError) as error:
    logging.error("%s", describe_failure(error, workdir))
    return 1


def check_steps(state: TrainState | None, config: ConfigDict):
  """Raises a ValueError where a run that goes on has done too many steps."""
  wanted = config.train.num_steps
  if state is not None and int(state.step) > wanted:
    raise ValueError(
      f"config.train.num_steps: found {wanted}, expected {int(state.step)} or "
      "more: so many are done"
    )


def run_training(
  program: Program,
  state: TrainState | None,
  config: ConfigDict,
  checkpoints: Checkpoints,
  workdir: Workdir,
  profile: Profile,
) -> int:
  """Trains from the restored state, or from the start; returns the exit code.

  Raises:
    FloatingPointError: as train.train_and_evaluate does.
    ValueError, OSError: records or files that cannot be read or written.
  """
  step = 0
  if state is None:
    state = program.make_state()
  else:
    step = int(state.step)
    logging.info("going on after step %d", step)
  try:
    with log_lib.open_log(workdir, config, step) as log:
      is_done = loop.train_and_evaluate(
        program, state, config, checkpoints, log, profile=profile
      )
  except BaseException:
    with contextlib.suppress(Exception):  # The first error says it.
      checkpoints.close()
    raise
  finally:
    profile.close()
  checkpoints.close()
  if not is_done:
    logging.info("stopped and saved; the same call goes on")
    return STOPPED
  logging.info("weights: %s/best", workdir.name)
  return 0


def describe_failure(error: Exception, workdir: Workdir) -> str:
  """Says in one line what stopped the training."""
  if isinstance(error, FloatingPointError):
    return f"{error}; the state before it is in {workdir.name}/checkpoints"
  return pool.describe_error(error, workdir.name)


def start_model(folder: str | None, config: ConfigDict) -> UNet:
  """Returns the network to train: from a model folder, or random.

  Raises:
    ValueError: the folder holds another network than `config.model`.
  """
  if folder is None:
    return build_model(config.model, config.seed)
  model, trained = weights.read_model(Path(folder), config.model.dtype)
  config_lib.check_model_section(config, trained)
  return model
