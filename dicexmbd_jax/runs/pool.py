"""One function over many images: in this process or in a pool of processes."""

import collections
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

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
    wanted = min(_count_cores(), num_items)
    return wanted if wanted > 1 else 0
  if num_workers < 0:
    raise ValueError(f"num_workers is {num_workers}, expected 0 or more")
  return min(num_workers, num_items)


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


def describe_error(error: Exception, file: str | os.PathLike) -> str:
  """Says in one line what went wrong with which file.

  Args:
    error: as raised by reading, computing or writing.
    file: the image; named in front unless the message names it.
  """
  if isinstance(error, OSError) and error.strerror:
    error = OSError(f"{error.filename or file}: found {error.strerror}")
  if isinstance(error, MemoryError):
    error = MemoryError(f"found too little memory ({error}), expected more")
  text = " ".join(str(error).split()) or type(error).__name__
  if not isinstance(
    error, ValueError | OSError | MemoryError | WorkerDiedError
  ):
    text = f"found an unexpected {type(error).__name__}: {text}"
  return text if str(file) in text else f"{file}: {text}"


def _count_cores() -> int:
  if hasattr(os, "sched_getaffinity"):  # What a scheduler left to us.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _call(function: Callable[[Item], Result], item: Item) -> Result | Exception:
  try:
    return function(item)
  except Exception as error:  # The caller says what became of each image.
    return error


def _call_alone(
  function: Callable[[Item], Result], item: Item
) -> Result | Exception:
  pool = _start_pool(1)
  result = _wait(_submit(pool, function, item))
  pool.shutdown()
  if isinstance(result, BrokenProcessPool):
    return WorkerDiedError(
      "found its process dead (killed, or out of memory), expected a result"
    )
  return result


def _start_pool(num_workers: int) -> futures.ProcessPoolExecutor:
  # Spawned, not forked: JAX and other threads may run in this process.
  return futures.ProcessPoolExecutor(
    num_workers,
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_prepare_worker,
    initargs=(os.getpid(),),
  )


def _prepare_worker(parent: int) -> None:
  """Leaves Ctrl-C to the main process; ends the worker when that is gone.

  A main process that was killed outright cannot end its workers, which would
  wait for work for ever.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


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
