"""Records to batches: shuffled, mixed, shared out among JAX processes.

Step t of a run is a pure function of (sources, split, batch size, seed, t): no
random state is carried along. So the state of the pipeline that a checkpoint
keeps is the step alone, and `start_step` goes on exactly there, also in the
middle of an epoch, whatever the number of workers or processes.

Nothing here decodes or augments: that belongs on the device.
"""

import dataclasses
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import grain
import numpy as np

from dicexmbd_jax.train.dataset import Records, count_split

# A quarter of the reading holds the interpreter's lock: four threads would keep
# it busy if the disk never let them wait.
MAX_READ_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Source:
  """One built dataset of a mixture.

  Attributes:
    path: folder with `dataset_info.json`, or a folder with one such below it.
    weight: relative number of patches drawn from it in training; 0: none.
      Evaluation takes every record once and knows no weights.
  """

  path: str
  weight: float


class Batch(TypedDict):
  """What a process feeds to its devices in one step, as it is stored.

  `is_real` is False where the last batch of an evaluation was filled up; all
  arrays are zero there, record_id is empty.
  """

  image: np.ndarray  # f32[b, p, p, 2], 0..255
  target: np.ndarray  # u16[b, p, p, 3], 65535 = 1
  valid: np.ndarray  # u8[b, p, p, 1], 1 = image, 0 = padding
  known: np.ndarray  # u8[b, p, p, 3], 0 = the teacher does not know this class
  is_real: np.ndarray  # bool[b]
  record_id: list[str]


@dataclasses.dataclass(frozen=True)
class Share:
  """Which slice of each global batch this process reads.

  Attributes:
    batch_size: records of the global batch.
    process_index: 0 .. process_count - 1.
    process_count: processes that share each batch.
  """

  batch_size: int
  process_index: int
  process_count: int

  def __post_init__(self):
    if self.process_count < 1:
      raise ValueError(
        f"process_count: got {self.process_count}, expected >= 1"
      )
    if self.batch_size < 1 or self.batch_size % self.process_count:
      raise ValueError(
        f"batch_size: got {self.batch_size}, expected a positive multiple of "
        f"the {self.process_count} processes"
      )
    if not 0 <= self.process_index < self.process_count:
      raise ValueError(
        f"process_index: got {self.process_index}, expected 0 to "
        f"{self.process_count - 1}"
      )

  def list_indices(self, step: int) -> range:
    """Positions in the global sequence of records, for one step."""
    size = self.batch_size // self.process_count
    start = step * self.batch_size + self.process_index * size
    return range(start, start + size)


class BatchReader:
  """Step -> this process's slice of the global batch."""

  def __init__(self, sequence, num_records: int, share: Share, patch_px: int):
    """Takes a `sequence` of records, of which `num_records` are real."""
    self._sequence = sequence
    self._num_records = num_records
    self._share = share
    self._patch_px = patch_px

  def __call__(self, step: int) -> Batch:
    """Reads one batch; rows past the last record stay empty."""
    indices = self._share.list_indices(step)
    size, p = len(indices), self._patch_px
    batch = Batch(
      image=np.zeros((size, p, p, 2), np.float32),
      target=np.zeros((size, p, p, 3), np.uint16),
      valid=np.zeros((size, p, p, 1), np.uint8),
      known=np.zeros((size, p, p, 3), np.uint8),
      is_real=np.array([i < self._num_records for i in indices], bool),
      record_id=[""] * size,
    )
    for row in np.flatnonzero(batch["is_real"]):
      record = self._sequence[indices[row]]
      batch["image"][row] = record["image"]
      batch["target"][row] = record["target"]
      batch["valid"][row] = record["valid"]
      batch["known"][row] = record["known"]
      batch["record_id"][row] = record["record_id"]
    return batch


class Passes:
  """Passes through the records of an evaluation, which are opened once."""

  def __init__(self, stream: grain.IterDataset):
    """Reads nothing yet; each iterator of `stream` is one pass."""
    self._stream = stream
    self._ahead: Any = None

  def read_ahead(self) -> None:
    """Begins to read the next pass, in the background, if that is not done.

    As many batches as wait in a training are kept until the pass is taken.
    """
    if self._ahead is None:
      self._ahead = iter(self._stream)
      self._ahead.start_prefetch()

  def read(self) -> Iterator[Batch]:
    """Yields the batches of one pass, which may be left before its end."""
    self.read_ahead()
    batches, self._ahead = self._ahead, None
    try:
      yield from batches
    finally:
      batches.close()


def make_passes(
  sources: Sequence[Source],
  split: str,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  num_workers: int = 0,
) -> Passes:
  """Opens the records of an evaluation.

  A pass goes through the sources in their order, its last batch filled up, with
  the same number of batches for every process.

  Args:
    sources: the datasets, all of one patch size.
    split: "train", "validation" or "test".
    batch_size: records of the global batch, over all processes.
    process_index: this process gets slice `process_index` of every batch.
    process_count: number of processes; divides `batch_size`.
    num_workers: as of make_batches.

  Raises:
    ValueError: as make_batches.
  """
  share = Share(batch_size, process_index, process_count)
  parts = [Records(source.path, split) for source in sources]
  num_records = sum(len(part) for part in parts)
  reader = BatchReader(
    _chain(parts), num_records, share, _check_patch_sizes(parts)
  )
  steps = grain.MapDataset.range(math.ceil(num_records / batch_size))
  return Passes(_stream(steps.map(reader), num_workers))


def make_batches(
  sources: Sequence[Source],
  split: str,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  num_workers: int = 0,
) -> Iterator[Batch]:
  """Streams the batches of one process's training, without end.

  Each source is shuffled anew in each of its epochs, by `seed`, and the sources
  are interleaved by their weights.

  Args:
    sources: the datasets, all of one patch size.
    split: "train", "validation" or "test".
    batch_size: records of the global batch, over all processes.
    seed: of the order, >= 0.
    start_step: batches to skip, without reading them.
    process_index: this process gets slice `process_index` of every batch.
    process_count: number of processes; divides `batch_size`.
    num_workers: processes that read; 0 reads in threads of this one. The
      batches do not depend on it. More than 0 needs parsed absl flags, and a
      main module that can be imported.

  Raises:
    ValueError: a dataset is missing or broken, patch sizes differ, or an
      argument is out of range. Here, not at the first batch.
  """
  share = Share(batch_size, process_index, process_count)
  if start_step < 0:
    raise ValueError(f"start_step: got {start_step}, expected >= 0")
  if num_workers < 0:
    raise ValueError(f"num_workers: got {num_workers}, expected >= 0")
  parts = [Records(source.path, split) for source in sources]
  patch_px = _check_patch_sizes(parts)
  sequence = _mix_shuffled(sources, parts, seed)
  reader = BatchReader(sequence, sys.maxsize, share, patch_px)
  steps = grain.MapDataset.range(start_step, sys.maxsize // batch_size)
  return iter(_stream(steps.map(reader), num_workers))


def count_records(sources: Sequence[Source], split: str) -> int:
  """Number of records of a split over all sources.

  A split that a dataset does not have counts as empty.

  Raises:
    ValueError: a dataset is missing or broken.
  """
  return sum(count_split(source.path, split) for source in sources)


def _check_patch_sizes(parts: Sequence[Records]) -> int:
  """Returns the one patch size of all sources."""
  if not parts:
    raise ValueError("sources: got none, expected at least one dataset")
  if len({part.patch_px for part in parts}) > 1:
    found = ", ".join(f"{part.path}: {part.patch_px} px" for part in parts)
    raise ValueError(f"sources: patch sizes differ ({found}); expected one")
  return parts[0].patch_px


def _mix_shuffled(
  sources: Sequence[Source], parts: Sequence[Records], seed: int
):
  if seed < 0:
    raise ValueError(f"seed: got {seed}, expected >= 0")
  for source, part in zip(sources, parts, strict=True):
    if not (math.isfinite(source.weight) and source.weight >= 0):
      raise ValueError(
        f"{source.path}: weight is {source.weight}, expected 0 or more"
      )
    if source.weight and not len(part):
      raise ValueError(
        f"{part.path}: split {part.split!r} is empty; expected records to "
        "train on"
      )
  if not any(source.weight for source in sources):
    raise ValueError("sources: every weight is 0, expected one above it")
  # grain adds the epoch to the seed, so seeds are spread: neighbouring ones
  # would share epochs among runs and sources.
  seeds = np.random.SeedSequence(seed).generate_state(len(parts))
  drawn = [
    (
      grain.MapDataset.source(part).shuffle(seed=int(own_seed)).repeat(),
      source.weight,
    )
    for source, part, own_seed in zip(sources, parts, seeds, strict=True)
    if source.weight
  ]
  shuffled, weights = zip(*drawn, strict=True)
  return grain.MapDataset.mix(shuffled, weights)


def _chain(parts: Sequence[Records]):
  filled = [part for part in parts if len(part)]
  if not filled:
    return ()
  return grain.MapDataset.concatenate(
    [grain.MapDataset.source(part) for part in filled]
  )


def _stream(batches, num_workers: int) -> grain.IterDataset:
  num_threads = count_read_threads(num_workers)
  stream = batches.to_iter_dataset(
    # Twice as many batches as threads: none waits for the slowest. At 16
    # patches of 512 x 512 each batch is about 75 MB.
    grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=2 * num_threads
    )
  )
  if num_workers:
    stream = stream.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers)
    )
  return stream


def count_read_threads(num_workers: int) -> int:
  """Returns the threads that read in each process; the cores are shared."""
  if hasattr(os, "sched_getaffinity"):  # What a scheduler left to us.
    cores = len(os.sched_getaffinity(0))
  else:
    cores = os.cpu_count() or 1
  return max(1, min(MAX_READ_THREADS, cores // max(1, num_workers)))
