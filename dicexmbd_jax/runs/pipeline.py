"""All images of a run: read, merged, shown to the network, measured, in step.

    prepare -> first pass -> magnify -> network -> finish

The network and its first pass run in this process, for many images at a time.
The other steps run in the workers, each image's in the same one, a few images
ahead of the network and behind it.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from dicexmbd_jax import chain, memory, storage
from dicexmbd_jax.io import source as source_lib
from dicexmbd_jax.io import write
from dicexmbd_jax.runs.pool import Workers
from dicexmbd_jax.runs.results import ImageResult
from dicexmbd_jax.types import (
  Image,
  ImageSource,
  Levels,
  Network,
  Probabilities,
)

# Of the limit of memory: what the images that wait for one step may take.
_WAITING_SHARE = 0.1
Wait = Callable[[], Any]  # Waits for the answer of a step, or its Exception.


@dataclasses.dataclass(frozen=True)
class ImageOutcome:
  """What became of one image.

  Attributes:
    source: the image.
    result: what the last step told, or why it failed; None: an earlier run did
      it.
    warnings: one line each.
  """

  source: ImageSource
  result: ImageResult | Exception | None
  warnings: tuple[str, ...] = ()


@dataclasses.dataclass
class _Task:
  """An image on its way.

  Attributes:
    source: the image.
    worker: that holds it.
    digest: its hash, where that is not for the worker to make.
    warnings: one line each.
    views: what the first pass looks at.
    shape: rows and columns of what they are parts of.
    image: what the network sees; None where it is not known, and for a
      baseline.
    factor: its magnification.
    seconds: that the network took.
  """

  source: ImageSource
  worker: int
  digest: "futures.Future[str] | None" = None
  warnings: tuple[str, ...] = ()
  views: Sequence[Image] = ()
  shape: tuple[int, int] = (0, 0)
  image: Image | None = None
  factor: float = 1.0
  seconds: float = 0.0


Called = tuple[_Task, Wait]
Answer = tuple[_Task, Levels | None]  # None for a baseline.


class Pipeline:
  """Leads images through all steps.

  An image that fails at a step has its outcome at once, and the others go on.
  """

  def __init__(
    self,
    workers: Workers,
    first_pass: Network | None,
    network: Network | None,
    ahead: int,
    needs_hash: Callable[[ImageSource], bool],
    compile_ahead: Callable[[tuple[int, int]], None] | None = None,
  ):
    """Takes what does the work.

    Args:
      workers: of runs.image_job.ImageJob.
      first_pass: the network, for parts of images; None where magnifications
        are known.
      network: the network; None for a baseline.
      ahead: images that may wait at each step; 0: none. Fewer where they are
        so large that they would fill the memory.
      needs_hash: whether an image may be finished already, which its hash says.
      compile_ahead: compiles the network for images of one shape; is called in
        a thread while the masks' kernels, which the first pass waits for, are.
    """
    self._workers = workers
    self._first_pass = first_pass
    self._network = network
    self._ahead = ahead
    self._needs_hash = needs_hash
    self._outcomes: collections.deque[ImageOutcome] = collections.deque()
    self._compile_ahead = compile_ahead
    self._compiler = futures.ThreadPoolExecutor(1)
    self._compiling: futures.Future | None = None
    # One thread, and hash_source remembers files: an .mcd is hashed once.
    self._hasher = futures.ThreadPoolExecutor(1)

  def run(self, sources: Iterable[ImageSource]) -> Iterator[ImageOutcome]:
    """Yields what became of each image, nearly in order."""
    tasks = self._prepare(sources)
    if self._first_pass is not None:
      tasks = self._magnify(tasks, self._first_pass)
    answers: Iterator[Answer] = ((task, None) for task in tasks)
    if self._network is not None:
      answers = self._predict(tasks, self._network)
    for _ in self._finish(answers):
      while self._outcomes:
        yield self._outcomes.popleft()
    yield from self._outcomes
    self._outcomes.clear()

  def close(self) -> None:
    """Ends what still runs."""
    self._hasher.shutdown(cancel_futures=True)
    self._compiler.shutdown()

  def _prepare(self, sources: Iterable[ImageSource]) -> Iterator[_Task]:
    def call() -> Iterator[Called]:
      for source in sources:
        task = _Task(source, self._workers.assign())
        if source.acquisition is not None:  # Of a file with others.
          task.digest = self._hasher.submit(source_lib.hash_source, source)
        is_hashed = self._needs_hash(source)
        yield task, self._call_hashed(task, "prepare", is_hashed)

    for task, prepared in self._collect(call()):
      task.warnings = prepared.warnings
      task.views, task.image = prepared.views, prepared.image
      task.shape, task.factor = prepared.shape, prepared.factor
      self._note_size(prepared.image)
      if prepared.is_finished:
        self._end(task, None)
      else:
        yield task

  def _magnify(
    self, tasks: Iterable[_Task], first_pass: Network
  ) -> Iterator[_Task]:
    def look() -> Iterator[tuple[_Task, Image]]:
      for task in tasks:
        self._start_compiling(task)
        for view in task.views:
          yield task, view

    def call() -> Iterator[Called]:
      maps: list[Probabilities] = []
      total_s = 0.0
      for task, answer, seconds in chain.run_timed(first_pass, look()):
        maps.append(answer)
        total_s += seconds
        if len(maps) == len(task.views):
          yield task, self._call(task, "magnify", task.views, maps, total_s)
          task.views, maps, total_s = (), [], 0.0

    for task, (factor, image) in self._collect(call()):
      task.factor, task.image = factor, image
      self._note_size(image)
      yield task

  def _start_compiling(self, task: _Task) -> None:
    """Compiles, once, what the network needs if it sees images as they are."""
    if self._compile_ahead is not None and self._compiling is None:
      self._compiling = self._compiler.submit(self._compile_ahead, task.shape)

  def _predict(
    self, tasks: Iterator[_Task], network: Network
  ) -> Iterator[Answer]:
    def show() -> Iterator[tuple[_Task, Any]]:
      for task in tasks:
        image, task.image = task.image, None
        assert image is not None  # Prepared, or magnified.
        if self._compiling is not None:
          # What it could not do, the network itself will tell.
          self._compiling.exception()
        try:  # In the midst of the network, it would end the whole run.
          storage.allocate((*image.shape[:2], 3), np.float32)
        except MemoryError as error:
          self._end(task, error)
          continue
        yield task, image

    for task, probabilities, seconds in chain.run_timed(network, show()):
      task.seconds = seconds
      try:
        yield task, write.round_shares(probabilities, "probabilities")
      except (ValueError, MemoryError) as error:
        self._end(task, error)

  def _finish(self, answers: Iterable[Answer]) -> Iterator[None]:
    def call() -> Iterator[Called]:
      for task, levels in answers:
        values = task.factor, levels, task.seconds
        yield task, self._call_hashed(task, "finish", True, *values)

    for task, finished in self._collect(call()):
      self._end(task, finished)
      yield

  def _note_size(self, image: Image | None) -> None:
    """Lets fewer images wait where they are large: here, they lie in memory."""
    if image is not None:
      room = _WAITING_SHARE * memory.get_limit_gb() * 1e9
      self._ahead = min(self._ahead, int(room // max(image.nbytes, 1)))

  def _call(self, task: _Task, method: str, *values: Any) -> Wait:
    return self._workers.submit(task.worker, method, task.source, *values)

  def _call_hashed(
    self, task: _Task, method: str, is_hashed: bool, *values: Any
  ) -> Wait:
    """Calls with the image's hash, if it is wanted and ours to make."""
    digest = None
    if is_hashed and task.digest is not None:
      error = task.digest.exception()
      if error is not None:
        return lambda: error
      digest = task.digest.result()
    return self._call(task, method, digest, *values)

  def _collect(self, called: Iterator[Called]) -> Iterator[tuple[_Task, Any]]:
    """Yields answers in order, some calls behind; ends images that failed."""
    pending: collections.deque[Called] = collections.deque()
    while True:
      room = max(self._ahead + 1 - len(pending), 0)
      pending.extend(itertools.islice(called, room))
      if not pending:
        return
      task, wait = pending.popleft()
      answer = wait()
      if isinstance(answer, Exception):
        self._end(task, answer)
      else:
        yield task, answer

  def _end(self, task: _Task, result: ImageResult | Exception | None) -> None:
    if isinstance(result, Exception):
      self._call(task, "drop")
    self._workers.release(task.worker)
    self._outcomes.append(ImageOutcome(task.source, result, task.warnings))
