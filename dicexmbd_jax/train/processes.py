"""One program in several processes, and being asked to stop."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

AUTOMATIC = "auto"


def start_processes(
  coordinator: str | None,
  num_processes: int | None = None,
  process_id: int | None = None,
):
  """Joins the other processes of the run; does nothing without coordinator.

  Args:
    coordinator: host:port of process 0, which the others can reach; "auto":
      SLURM, TPU pods and Kubernetes tell all three themselves.
    num_processes: how many there are.
    process_id: 0 to num_processes - 1.

  Raises:
    ValueError: the three do not belong together, or no cluster was found.
  """
  if coordinator is None:
    if num_processes is not None or process_id is not None:
      raise ValueError(
        "--num_processes, --process_id: found no --coordinator, expected "
        f"HOST:PORT or {AUTOMATIC}"
      )
    return
  # Without this, CPU processes compute but cannot exchange gradients.
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  if coordinator == AUTOMATIC:
    _initialize()
    return
  if num_processes is None or process_id is None:
    raise ValueError(
      f"--coordinator={coordinator}: expected also --num_processes and "
      "--process_id"
    )
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f"--process_id: found {process_id}, expected 0 to {num_processes - 1}"
    )
  _initialize(coordinator, num_processes, process_id)


def _initialize(*arguments):
  try:
    jax.distributed.initialize(*arguments)
  except (ValueError, RuntimeError) as error:
    text = " ".join(str(error).split())
    raise ValueError(
      f"--coordinator: found no way to the other processes: {text}"
    ) from error


def is_main() -> bool:
  """Returns whether this is the process that writes what all found."""
  return jax.process_index() == 0


def count() -> tuple[int, int]:
  """Returns the number of devices and of processes of the run."""
  return jax.device_count(), jax.process_count()


def describe_process() -> str:
  """Returns "process 1 of 2", counted from 0; "" where there is one."""
  if jax.process_count() == 1:
    return ""
  return f"process {jax.process_index()} of {jax.process_count()}"


class StopRequest:
  """Whether the run was asked to stop, by SIGTERM or Ctrl-C.

  A single process looks at its own signals; several agree on the step, since
  the notice reaches them at different times.
  """

  def __init__(self):
    self._has_peers = jax.process_count() > 1
    self._is_asked = False
    if not self._has_peers:
      signal.signal(signal.SIGTERM, self._remember)
      signal.signal(signal.SIGINT, self._remember)

  def _remember(self, number: int, frame: FrameType | None):
    self._is_asked = True
    signal.signal(number, signal.SIG_DFL)  # Asked twice: at once.

  def is_due(self, step: int) -> bool:
    """Returns whether this step is the last; all processes call it."""
    if self._has_peers:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._is_asked
