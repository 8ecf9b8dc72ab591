"""The teacher while strokes are painted: fit anew after each, and at once.

What takes the time is kept: features by tile, of tiles in view and around
them, and the rows of strokes by tile, which need no features any more. What is
in view comes first, from its middle on; the rest is made ready in the
background, from the moment that an image is opened. There are fewer trees than
in a teacher that is saved, which is another one: that of `teach fit`.
"""

import collections
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
from jaxtyping import Bool, Int32

from dicexmbd_jax.teach import features as features_lib
from dicexmbd_jax.teach import forest as forest_lib
from dicexmbd_jax.teach.features import Features, Planes
from dicexmbd_jax.teach.forest import Forest
from dicexmbd_jax.teach.teacher import compute_part
from dicexmbd_jax.teach.uncertainty import Uncertainty, measure_uncertainty
from dicexmbd_jax.types import Labels, Probabilities

NUM_TREES = 24
TILE_PX = 192
MAX_VIEW_PX = 1024  # Edge of what is classified at once.
CACHE_BYTES = 1 << 29  # Of features; 20 tiles of two channels.
_MAX_THREADS = 4

Part = tuple[slice, slice]
_Tile = tuple[str, int, int]
# Of a tile: its strokes, and of these the features float32 (n, columns) and the
# classes int32 (n,).
_Painted = tuple[Labels, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class LiveMaps:
  """What the teacher says of a part of an image.

  Attributes:
    part: rows and columns.
    probabilities: of it; 0 where is_known is not.
    uncertainty: of it; the same.
    is_known: where the teacher has looked already.
  """

  part: Part
  probabilities: Probabilities
  uncertainty: Uncertainty
  is_known: Bool[np.ndarray, "y x"]


class LiveTeacher:
  """A teacher of few trees and of the strokes painted so far.

  One thread calls it at a time. Values are those of `teach fit`'s features; the
  forest has fewer trees, so that maps are coarser.
  """

  def __init__(
    self,
    seed: int = 0,
    num_trees: int = NUM_TREES,
    cache_bytes: int = CACHE_BYTES,
  ):
    self.forest: Forest | None = None
    self._seed, self._num_trees = seed, num_trees
    self._cache_bytes = cache_bytes
    self._selection = features_lib.list_features()
    self._halo = features_lib.measure_halo(self._selection)
    self._tiles: collections.OrderedDict[_Tile, Features] = (
      collections.OrderedDict()
    )
    self._painted: dict[_Tile, _Painted] = {}
    self._threads = min(_MAX_THREADS, os.cpu_count() or 1)
    self._pool = futures.ThreadPoolExecutor(self._threads)

  @property
  def num_bytes(self) -> int:
    """Bytes of the features that are kept."""
    return sum(tile.nbytes for tile in self._tiles.values())

  def learn(self, name: str, planes: Planes, strokes: Labels) -> None:
    """Takes an image's strokes in place of its earlier ones; fits nothing.

    Args:
      name: of the image.
      planes: its channels.
      strokes: 0 = none, else the class.
    """
    shape = strokes.shape
    changed = []
    for y, x in self._list_tiles(shape, _cover(shape)):
      inside = strokes[_slice(shape, y, x)]
      before = self._painted.get((name, y, x))
      if before is not None and np.array_equal(before[0], inside):
        continue
      self._painted.pop((name, y, x), None)
      changed += [(y, x)] if inside.any() else []
    for y, x, values in self._compute_tiles(name, planes, changed):
      inside = strokes[_slice(shape, y, x)].copy()
      labels = inside[inside > 0].astype(np.int32)
      self._painted[name, y, x] = inside, values[inside > 0], labels

  def fit(self) -> bool:
    """Fits the forest; returns whether there are two classes to tell apart."""
    # Sorted: the forest must not depend on the order of the strokes.
    painted = [self._painted[tile] for tile in sorted(self._painted)]
    self.forest = None
    if not painted:
      return False
    labels = np.concatenate([labels for _, _, labels in painted])
    if np.unique(labels).size < 2:
      return False
    self.forest = forest_lib.fit_forest(
      np.concatenate([rows for _, rows, _ in painted]),
      labels,
      self._seed,
      self._num_trees,
      self._threads,
    )
    return True

  def classify(self, name: str, planes: Planes, part: Part) -> LiveMaps:
    """Classifies a part of an image; see `look`."""
    *_, maps = self.look(name, planes, part)
    return maps

  def look(self, name: str, planes: Planes, part: Part) -> Iterator[LiveMaps]:
    """Classifies a part of an image, and yields its maps as they fill.

    First comes what needs no new features, then the rest from the middle on;
    the last maps are whole.

    Args:
      name: of the image.
      planes: its channels.
      part: rows and columns, within the image.

    Raises:
      ValueError: nothing was fit yet.
    """
    if self.forest is None:
      raise ValueError("found strokes of fewer than two classes, expected two")
    shape = (part[0].stop - part[0].start, part[1].stop - part[1].start)
    result = np.zeros((*shape, len(forest_lib.CLASSES)), np.float32)
    is_known = np.zeros(shape, bool)
    tiles = self._list_tiles(planes.shape[:2], part)
    known = [one for one in tiles if (name, *one) in self._tiles]
    missing = [one for one in tiles if (name, *one) not in self._tiles]
    batches = [known] if known else []
    for start in range(0, len(missing), self._threads):
      batches.append(missing[start : start + self._threads])
    for batch in batches:
      jobs = []
      for y, x, values in self._compute_tiles(name, planes, batch):
        tile = _slice(planes.shape[:2], y, x)
        inner, target = _overlap(tile, part)
        jobs.append(
          self._pool.submit(self._classify, values[inner], result, target)
        )
        is_known[target] = True
      for job in jobs:
        job.result()
      unsure = np.where(is_known, measure_uncertainty(result), np.float32(0))
      yield LiveMaps(part, result.copy(), unsure, is_known.copy())

  def prepare(self, name: str, planes: Planes, part: Part) -> bool:
    """Computes the features of one tile that a view may need soon.

    Args:
      name: of the image.
      planes: its channels.
      part: rows and columns in view; tiles around them come after those in it.

    Returns:
      Whether there is more to do, within what is kept.
    """
    shape = planes.shape[:2]
    columns = features_lib.count_columns(self._selection, planes.shape[2])
    num_kept = max(1, self._cache_bytes // (4 * columns * TILE_PX**2))
    around = [
      slice(max(0, one.start - TILE_PX), min(size, one.stop + TILE_PX))
      for one, size in zip(part, shape, strict=True)
    ]
    tiles = self._list_tiles(shape, part)
    rest = self._list_tiles(shape, (around[0], around[1]))
    rest = [one for one in rest if one not in tiles]
    wanted = [*tiles, *rest][:num_kept]
    for y, x in reversed(wanted):  # The nearest is let go of last.
      if (name, y, x) in self._tiles:
        self._tiles.move_to_end((name, y, x))
    missing = [one for one in wanted if (name, *one) not in self._tiles]
    if missing:
      self._keep((name, *missing[0]), self._compute(planes, *missing[0]))
    return len(missing) > 1

  def measure(
    self,
    name: str,
    planes: Planes,
    tell: Callable[[float], None] = lambda share: None,
  ) -> Uncertainty:
    """Returns a whole image's uncertainty; keeps no features of it.

    Args:
      name: of the image.
      planes: its channels.
      tell: is called with the share that is done; what it raises ends the call.

    Raises:
      ValueError: nothing was fit yet.
    """
    if self.forest is None:
      raise ValueError("found strokes of fewer than two classes, expected two")
    shape = planes.shape[:2]
    unsure = np.empty(shape, np.float32)

    def measure_tile(corner: tuple[int, int]) -> None:
      values = self._tiles.get((name, *corner))
      if values is None:
        values = self._compute(planes, *corner)
      part = _slice(shape, *corner)
      result = np.empty(
        (*values.shape[:2], len(forest_lib.CLASSES)), np.float32
      )
      self._classify(values, result, _cover(values.shape[:2]))
      unsure[part] = measure_uncertainty(result)

    tiles = self._list_tiles(shape, _cover(shape))
    for start in range(0, len(tiles), self._threads):
      tell(start / len(tiles))
      list(self._pool.map(measure_tile, tiles[start : start + self._threads]))
    return unsure

  def forget(self, name: str) -> None:
    """Lets go of an image's strokes and features."""
    for kept in (self._painted, self._tiles):
      for key in [key for key in kept if key[0] == name]:
        del kept[key]

  def _classify(
    self, values: Features, result: np.ndarray, target: Part
  ) -> None:
    assert self.forest is not None
    result[target] = forest_lib.predict_forest(self.forest, values)

  @staticmethod
  def _list_tiles(shape: tuple[int, ...], part: Part) -> list[tuple[int, int]]:
    """Lists upper left corners of the tiles of a part, from its middle on."""
    starts = [
      range(one.start // TILE_PX * TILE_PX, min(one.stop, size), TILE_PX)
      for one, size in zip(part, shape, strict=True)
    ]
    middle = [(one.start + one.stop - TILE_PX) / 2 for one in part]
    return sorted(
      ((y, x) for y in starts[0] for x in starts[1]),
      key=lambda one: (one[0] - middle[0]) ** 2 + (one[1] - middle[1]) ** 2,
    )

  def _compute_tiles(
    self, name: str, planes: Planes, corners: list[tuple[int, int]]
  ) -> Iterator[tuple[int, int, Features]]:
    """Yields tiles' features: those that are kept first, then the others."""
    known = [one for one in corners if (name, *one) in self._tiles]
    missing = [one for one in corners if (name, *one) not in self._tiles]
    for y, x in known:
      self._tiles.move_to_end((name, y, x))
      yield y, x, self._tiles[name, y, x]
    for start in range(0, len(missing), self._threads):
      batch = missing[start : start + self._threads]
      found = self._pool.map(lambda one: self._compute(planes, *one), batch)
      for (y, x), values in zip(batch, found, strict=True):
        self._keep((name, y, x), values)
        yield y, x, values

  def _compute(self, planes: Planes, y: int, x: int) -> Features:
    part = _slice(planes.shape[:2], y, x)
    return compute_part(planes, self._selection, part, self._halo)

  def _keep(self, key: _Tile, values: Features) -> None:
    self._tiles[key] = values
    while self.num_bytes > self._cache_bytes and len(self._tiles) > 1:
      self._tiles.popitem(last=False)


class Newest:
  """Runs one job at a time in the background; of those waiting, the newest.

  Painting makes jobs faster than they are done: those in between are dropped.
  What fills the time between them is done in steps.
  """

  def __init__(self):
    self._pool = futures.ThreadPoolExecutor(1)
    self._lock = threading.Lock()
    self._waiting: Callable[[], None] | None = None
    self._filler: Callable[[], bool] | None = None
    self._last: futures.Future | None = None

  def submit(self, job: Callable[[], None]) -> None:
    """Runs a job when the present one is done, in place of what waits."""
    with self._lock:
      is_idle = self._waiting is None
      self._waiting = job
    if is_idle:
      self._last = self._pool.submit(self._run)

  def call(self, job: Callable[[], None]) -> None:
    """Runs a job after all others; none takes its place."""
    self._last = self._pool.submit(job)

  def fill(self, step: Callable[[], bool]) -> None:
    """Runs a step again and again behind all jobs, until it returns False.

    It takes the place of an earlier one.
    """
    self._filler = step
    self._pool.submit(self._fill, step)

  def has_waiting(self) -> bool:
    """Whether a newer job waits for the present one."""
    return self._waiting is not None

  def wait(self) -> None:
    """Waits for the last job, not for what fills; raises what it raised."""
    if self._last is not None:
      self._last.result()

  def _run(self) -> None:
    with self._lock:
      job, self._waiting = self._waiting, None
    if job is not None:
      job()

  def _fill(self, step: Callable[[], bool]) -> None:
    if self._filler is step and step():
      self._pool.submit(self._fill, step)


def choose_view(
  shape: tuple[int, int], corners: Int32[np.ndarray, "2 2"] | np.ndarray
) -> Part:
  """Returns what of an image is classified for a view.

  Args:
    shape: of the image.
    corners: the view's upper left and lower right corner, px; may lie outside.

  Returns:
    The view within the image, or its middle where it is larger than
    MAX_VIEW_PX. Where it lies outside, the image's middle.
  """
  part = []
  for axis, size in enumerate(shape):
    low, high = (float(corners[k][axis]) for k in (0, 1))
    start, stop = max(0, int(low)), min(size, int(np.ceil(high)))
    if stop <= start:
      start, stop = 0, size
    if stop - start > MAX_VIEW_PX:
      start = (start + stop - MAX_VIEW_PX) // 2
      stop = start + MAX_VIEW_PX
    part.append(slice(start, stop))
  return part[0], part[1]


def find_place(unsure: Uncertainty, strokes: Labels, edge_px: int) -> Part:
  """Returns the most uncertain square in which nothing is painted yet.

  Args:
    unsure: of the image.
    strokes: of the same size.
    edge_px: of the square.

  Returns:
    The square; where all are painted in, the most uncertain.
  """
  from dicexmbd_jax.teach.rank import find_regions

  found = find_regions(unsure, 20, edge_px)
  free = [one for one in found if not strokes[one.slices].any()]
  return (free or found)[0].slices


def _cover(shape: tuple[int, ...]) -> Part:
  return slice(0, shape[0]), slice(0, shape[1])


def _slice(shape: tuple[int, ...], y: int, x: int) -> Part:
  """Returns a tile's rows and columns."""
  rows, columns = min(y + TILE_PX, shape[0]), min(x + TILE_PX, shape[1])
  return slice(y, rows), slice(x, columns)


def _overlap(tile: Part, part: Part) -> tuple[Part, Part]:
  """Returns where a tile and a part overlap, in either's own pixels."""
  inner, target = [], []
  for one, other in zip(tile, part, strict=True):
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    inner.append(slice(start - one.start, stop - one.start))
    target.append(slice(start - other.start, stop - other.start))
  return (inner[0], inner[1]), (target[0], target[1])
