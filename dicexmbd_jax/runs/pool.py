"""One function over many images: in this process or in a pool of processes.

`map_images` calls a function on each image; `Workers` keep what they have made
of an image until its next step comes.
"""

import collections
import importlib
import itertools
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from dicexmbd_jax import extras

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(Exception):
  """The process that worked on an image ended without a word."""


def count_workers(num_workers: int | None, num_items: int) -> int:
  """Chooses the number of processes.

  Args:
    num_workers: as asked for; None: one per core, no more than items. 0: all
      in this process.
    num_items: how many images there are.

  Returns:
    0 or more; a single item needs no other process.

  Raises:
    ValueError: num_workers is negative.
  """
  if num_workers is None:
    wanted = min(count_cores(), num_items)
    return wanted if wanted > 1 else 0
  if num_workers < 0:
    raise ValueError(f"num_workers is {num_workers}, expected 0 or more")
  return min(num_workers, num_items)


def count_cores() -> int:
  """Returns the cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # What a scheduler left to us.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def start_beside(module: str, function: str, *arguments: Any) -> None:
  """Calls a function in a process of its own, which nobody waits for.

  It ends with this process at the latest.

  Args:
    module: where the function is; this process need not load it.
    function: its name.
    arguments: picklable.
  """
  multiprocessing.get_context("spawn").Process(
    target=_run_beside,
    args=(os.getpid(), module, function, arguments),
    daemon=True,
  ).start()


def map_images(
  function: Callable[[Item], Result],
  items: Iterable[Item],
  num_workers: int,
) -> Iterator[tuple[Item, Result | Exception]]:
  """Calls a function on every item; one that fails does not stop the others.

  Args:
    function: importable by name (or a functools.partial of such) if there are
      workers; so are the items and results picklable.
    items: taken one by one as there is room: at most two per worker are held,
      so a generator of large arrays stays small.
    num_workers: processes, started afresh (spawn); 0: none, in this process.

  Yields:
    (item, what the function returned or the Exception that it raised), in
    the items' order. An item whose process dies (out of memory, say) is tried
    once more alone and then gets a WorkerDiedError; the others are not lost.
  """
  if num_workers == 0:
    for item in items:
      yield item, _call(function, item)
    return
  queue = iter(items)
  pool = _start_pool(num_workers)
  pending: collections.deque = collections.deque()
  try:
    while True:
      room = 2 * num_workers - len(pending)
      for item in itertools.islice(queue, room):
        pending.append((item, _submit(pool, function, item)))
      if not pending:
        return
      item, future = pending.popleft()
      result = _wait(future)
      if isinstance(result, BrokenProcessPool):
        pool.shutdown()
        result = _call_alone(function, item)
        pool = _start_pool(num_workers)
        pending = collections.deque(
          (other, _submit(pool, function, other) if _is_lost(old) else old)
          for other, old in pending
        )
      yield item, result
  finally:
    pool.shutdown(cancel_futures=True)


class Workers:
  """Processes that each hold an object of their own, whose methods are called.

  An item goes to one worker and comes back to it for each step, so that what is
  large stays where it is. A context manager.
  """

  def __init__(self, num_workers: int, make: Callable[[], Any]):
    """Starts the processes.

    Args:
      num_workers: processes, started afresh (spawn); 0: none, in this process.
      make: makes a worker's object; picklable if there are workers.
    """
    self.num_workers = num_workers
    self._make = make
    self._own = make() if num_workers == 0 else None
    self._pools = [self._start() for _ in range(num_workers)]
    self._loads = [0] * max(num_workers, 1)

  def assign(self) -> int:
    """Returns the worker that holds the fewest items, which gets one more."""
    worker = self._loads.index(min(self._loads))
    self._loads[worker] += 1
    return worker

  def release(self, worker: int) -> None:
    """Says that a worker is done with an item."""
    self._loads[worker] -= 1

  def submit(
    self, worker: int, method: str, *arguments: Any
  ) -> Callable[[], Any]:
    """Lets a worker call a method of its object, after all that came before.

    Returns:
      A function that waits for the answer, or for the Exception that was
      raised, and returns it. A call whose process dies is tried once more, by a
      new object in a process of its own, and then gives a WorkerDiedError.
    """
    if self._own is not None:
      call = getattr(self._own, method)
      answer = _call(lambda values: call(*values), arguments)
      return lambda: answer
    future = _submit(self._pools[worker], _call_method, (method, arguments))
    return lambda: self._wait_or_retry(worker, future, method, arguments)

  def _start(self) -> futures.ProcessPoolExecutor:
    pool = _start_pool(1, self._make)
    _submit_nothing(pool)  # It starts now, not with its first item.
    return pool

  def _wait_or_retry(
    self,
    worker: int,
    future: futures.Future,
    method: str,
    arguments: tuple,
  ) -> Any:
    result = _wait(future)
    if not isinstance(result, BrokenProcessPool):
      return result
    pool = self._pools[worker]
    if isinstance(_wait(_submit_nothing(pool)), BrokenProcessPool):
      pool.shutdown()
      self._pools[worker] = self._start()
    return _call_alone(_call_method, (method, arguments), self._make)

  def __enter__(self) -> "Workers":
    return self

  def __exit__(self, *error: object):
    # What they are at they finish, and Python waits for that when it ends.
    for pool in self._pools:
      pool.shutdown(wait=False, cancel_futures=True)


def describe_error(error: Exception, file: str | os.PathLike) -> str:
  """Says in one line what went wrong with which file.

  Args:
    error: as raised by reading, computing or writing.
    file: the image; named in front unless the message names it.
  """
  if isinstance(error, OSError) and error.strerror:
    error = OSError(f"{error.filename or file}: found {error.strerror}")
  if line := extras.describe_missing(error):
    error = ValueError(line)
  if isinstance(error, MemoryError):
    error = MemoryError(f"found too little memory ({error}), expected more")
  text = " ".join(str(error).split()) or type(error).__name__
  if not isinstance(
    error, ValueError | OSError | MemoryError | WorkerDiedError
  ):
    text = f"found an unexpected {type(error).__name__}: {text}"
  # A path drops one slash of an address.
  file = re.sub(r"^([a-z]\w+):/(?!/)", r"\1://", str(file))
  return text if file in text else f"{file}: {text}"


def _call(function: Callable[[Item], Result], item: Item) -> Result | Exception:
  try:
    return function(item)
  except Exception as error:  # The caller says what became of each image.
    _raise_interrupt(error)
    return error


def _raise_interrupt(error: BaseException) -> None:
  """Raises the KeyboardInterrupt that an error came of, if it did.

  Where a signal comes in the middle of compiled code, what its handler raises
  is made the cause of a SystemError; readers of files may wrap that again.
  """
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, KeyboardInterrupt):
      raise cause
    cause = cause.__cause__


def _call_alone(
  function: Callable[[Item], Result],
  item: Item,
  make: Callable[[], Any] | None = None,
) -> Result | Exception:
  pool = _start_pool(1, make)
  result = _wait(_submit(pool, function, item))
  pool.shutdown()
  if isinstance(result, BrokenProcessPool):
    return WorkerDiedError(
      "found its process dead (killed, or out of memory), expected a result"
    )
  return result


def _start_pool(
  num_workers: int, make: Callable[[], Any] | None = None
) -> futures.ProcessPoolExecutor:
  # Spawned, not forked: JAX and other threads may run in this process.
  return futures.ProcessPoolExecutor(
    num_workers,
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_prepare_worker,
    initargs=(os.getpid(), make),
  )


# What a worker of `Workers` keeps between its calls.
_kept: list[Any] = []


def _call_method(call: tuple[str, tuple]) -> Any:
  method, arguments = call
  return getattr(_kept[0], method)(*arguments)


def _do_nothing(item: None = None) -> None:
  del item


def _submit_nothing(pool: futures.ProcessPoolExecutor) -> futures.Future:
  return _submit(pool, _do_nothing, None)


def _prepare_worker(parent: int, make: Callable[[], Any] | None) -> None:
  """Leaves Ctrl-C to the main process; ends the worker when that is gone.

  A main process that was killed outright cannot end its workers, which would
  wait for work for ever.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_outlive, args=(parent,), daemon=True).start()
  if make is not None:
    _kept.append(make())


def _run_beside(
  parent: int, module: str, function: str, arguments: tuple
) -> None:
  _prepare_worker(parent, None)
  getattr(importlib.import_module(module), function)(*arguments)


def _outlive(parent: int) -> None:
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)


def _submit(
  pool: futures.ProcessPoolExecutor,
  function: Callable[[Item], Result],
  item: Item,
) -> futures.Future:
  try:
    return pool.submit(function, item)
  except BrokenProcessPool as error:
    lost: futures.Future = futures.Future()
    lost.set_exception(error)
    return lost


def _wait(future: futures.Future) -> Any:
  error = future.exception()
  return future.result() if error is None else error


def _is_lost(future: futures.Future) -> bool:
  return future.done() and isinstance(future.exception(), BrokenProcessPool)
