"""From two-channel images to probabilities, tile by tile, one compiled shape.

Tiles of several images share a batch, and the next batch is on its way before
the answers of the last one are fetched. Only images in flight are held.
"""

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from dicexmbd_jax import storage
from dicexmbd_jax.image import evidence, tiling
from dicexmbd_jax.model import unet
from dicexmbd_jax.model.unet import NUM_CLASSES, UNet
from dicexmbd_jax.types import Image, Network, Probabilities

Key = TypeVar("Key")

TILE_SIZES_PX = (128, 256, 384, 512, 640, 768, 1024)
# A view: whether it is mirrored up-down, left-right, and at the diagonal. One
# more square symmetry each, up to all eight.
VIEWS = {
  1: ((False, False, False),),
  4: tuple(itertools.product((False, True), (False, True), (False,))),
  8: tuple(itertools.product((False, True), repeat=3)),
}
MAX_BATCH_BYTES = 4 * 2**30
# The same on a device that tells its memory, as a share of what is free there;
# and the most tiles that are chosen: more would wait for one another.
MEMORY_SHARE = 0.5
MAX_BATCH_TILES = 8
# Planes at full resolution that live at once, per channel of the first level:
# 4 by XLA's own count (memory_analysis, CPU), and two batches are on their way.
NUM_LIVE_PLANES = 8


class DeviceClock:
  """Measures how long each device works on batches.

  A device works from the moment that it has a batch, or is done with the one
  before, until the answer is there. A thread waits for that, so that a program
  that is late to ask does not count.
  """

  def __init__(self) -> None:
    self._busy_s: dict[str, float] = collections.defaultdict(float)
    self._free_at: dict[str, float] = {}
    self._started = time.perf_counter()
    self._watcher = futures.ThreadPoolExecutor(1)

  def watch(self, answer: Array) -> None:
    """Counts the work on an answer that was asked for just now."""
    self._watcher.submit(self._wait, answer, time.perf_counter())

  def _wait(self, answer: Array, since: float) -> None:
    for shard in answer.addressable_shards:
      shard.data.block_until_ready()
      now = time.perf_counter()
      name = f"{shard.device.platform}:{shard.device.id}"
      self._busy_s[name] += now - max(since, self._free_at.get(name, 0.0))
      self._free_at[name] = now

  def close(self) -> None:
    """Waits for all answers that are watched."""
    self._watcher.shutdown()

  def describe(self) -> dict[str, float]:
    """Returns by device the share, 0 to 1, of the time since the beginning."""
    total_s = max(time.perf_counter() - self._started, 1e-9)
    return {
      name: round(min(busy_s / total_s, 1.0), 3)
      for name, busy_s in sorted(self._busy_s.items())
    }


def predict_images(
  images: Iterable[tuple[Key, Image]],
  model: UNet,
  config: Any,
  devices: Sequence[jax.Device] | None = None,
  tell_px: Callable[[int], None] | None = None,
  clock: DeviceClock | None = None,
) -> Iterator[tuple[Key, Probabilities]]:
  """Yields the probabilities of images as soon as all their tiles are back.

  The answer is the network's on the whole image with zeros beyond its border;
  it depends on neither the tiles' size nor their company, up to rounding.

  Args:
    images: pairs of any key and an image, float32 (y, x, 2) in 0..255; taken
      one by one, only as far ahead as two batches reach.
    model: the network; it always runs with its stored statistics, whichever
      mode it is in. A network with more inputs than the image has channels
      gets zeros in the rest (the published one has a third, empty input).
    config: the config's section `predict`: tile_px (0: chosen for each
      image, so that the least is computed), batch_size (0: what the
      devices' memory allows), views.
    devices: a batch has batch_size tiles for each of them; None: as
      list_devices says.
    tell_px: is called with the number of pixels that each batch has finished;
      what it raises ends the work.
    clock: measures the devices' work, if given.

  Yields:
    Key and probabilities, float32 (y, x, 3) in 0..1, in the input's order.

  Raises:
    ValueError: a tile_px that is not a multiple of 2**depth above two halos,
      or an image without pixels.
  """
  devices = devices or list_devices()
  sizes, batch_size = _plan_batches(model, config, devices)
  pieces = _list_pieces(images, model.depth, sizes)
  watch = None if clock is None else clock.watch
  run = functools.partial(_run_ahead, pieces, model, config.views, devices)
  for done, probabilities in run(batch_size, watch):
    answers = np.asarray(probabilities)  # Waits for them.
    if tell_px is not None:
      tell_px(sum(piece.tile.num_px for piece in done))
    # The last batch is filled up: it has more answers than pieces.
    for piece, answer in zip(done, answers, strict=False):
      piece.result.probabilities[piece.tile.core] = answer[
        piece.tile.core_in_tile
      ]
      if piece.is_last:
        yield piece.result.key, piece.result.probabilities


def compile_ahead(model: UNet, config: Any, shape: tuple[int, int]) -> None:
  """Compiles what `predict_images` runs for images of one shape.

  It then need not: all calls of this process share what is compiled.

  Args:
    model: the network.
    config: the config's section `predict`.
    shape: rows and columns of the images.
  """
  devices = list_devices()
  sizes, size = _plan_batches(model, config, devices)
  halo_px = tiling.receptive_halo(model.depth)
  tile_px = tiling.choose_tile(shape, sizes, halo_px, 2**model.depth)
  graph, state, dealt = _deal(model, devices)
  pixels, valid = (
    jax.ShapeDtypeStruct((size, tile_px, tile_px, n), dtype, sharding=dealt)
    for n, dtype in ((2, np.float32), (1, bool))
  )
  predict_tiles.lower(
    graph, state, pixels, valid, config.views, _folds_views(devices)
  ).compile()


def _plan_batches(
  model: UNet, config: Any, devices: Sequence[jax.Device]
) -> tuple[list[int], int]:
  """Returns the edges that tiles may have, and the tiles of a batch, in all."""
  budget = measure_budget(devices)
  sizes = list_tile_sizes(model, config, budget)
  number = choose_batch(model, config, max(sizes), budget)
  return sizes, number * len(devices)


def load_passes(
  model: UNet,
  config: Any,
  first_px: int,
  tell_px: Callable[[int], None] | None = None,
  clock: DeviceClock | None = None,
) -> tuple[Network, Network]:
  """Returns the network as the first pass and as the second one runs it.

  The second one's answers end where the image goes dark, if
  config.nuclear_evidence is above 0; see image.evidence.

  Args:
    model: the network.
    config: the config's section `predict`.
    first_px: edge of the images of the first pass, which sees one view.
    tell_px: of the second pass, as of predict_images.
    clock: of both passes, as of predict_images.

  Returns:
    Two functions, each as predict_images once it knows its model.
  """
  first = config.copy_and_resolve_references()
  fits = first_px > 2 * tiling.receptive_halo(model.depth)
  first.tile_px = first_px if fits else 0
  first.views, first.batch_size = 1, 0
  run = functools.partial(predict_images, clock=clock)
  # Compiling costs a run of few images more than it gains in small tiles.
  small = unet.keep_kernels_whole(model)
  second = functools.partial(run, model=model, config=config, tell_px=tell_px)
  if config.nuclear_evidence:
    shares = config.nuclear_evidence, config.membrane_evidence
    second = functools.partial(_limit_answers, second, shares)
  return functools.partial(run, model=small, config=first), second


def _limit_answers(
  network: Network,
  shares: tuple[float, float],
  images: Iterable[tuple[Key, Image]],
) -> Iterator[tuple[Key, Probabilities]]:
  """Yields a network's answers, as far as the images bear them out."""
  shown = (((key, image), image) for key, image in images)
  for (key, image), probabilities in network(shown):
    yield key, evidence.limit_foreground(probabilities, image, *shares)


def list_devices() -> list[jax.Device]:
  """Returns the devices of this process that a batch is dealt to.

  All accelerators; of CPU devices the first, which uses all cores.
  """
  devices = jax.local_devices()
  return devices[:1] if devices[0].platform == "cpu" else devices


def measure_budget(devices: Sequence[jax.Device]) -> int | None:
  """Returns the bytes that batches may take on each device.

  Returns:
    The least of MEMORY_SHARE of what is free; None where devices do not tell,
    as processors.
  """
  told = [device.memory_stats() or {} for device in devices]
  if not all("bytes_limit" in one for one in told):
    return None
  free = min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in told)
  return int(MEMORY_SHARE * free)


def choose_batch(
  model: UNet, config: Any, tile_px: int, budget: int | None
) -> int:
  """Returns the number of tiles at once on each device.

  Args:
    model: the network.
    config: the config's section `predict`; its batch_size, unless that is 0.
    tile_px: edge of the largest tiles.
    budget: of measure_budget; without one, 1: a processor's cores share a tile.
  """
  if config.batch_size:
    return config.batch_size
  if budget is None:
    return 1
  # Views lie beside one another on devices that tell their memory.
  tile_bytes = tile_px**2 * _count_pixel_bytes(model) * config.views
  return min(max(budget // tile_bytes, 1), MAX_BATCH_TILES)


def _count_pixel_bytes(model: UNet) -> int:
  return 4 * NUM_LIVE_PLANES * model.encoders[0].conv1.out_features


def list_tile_sizes(
  model: UNet, config: Any, budget: int | None = None
) -> list[int]:
  """Returns the edges of tiles in px that a run may use; each is compiled once.

  Large tiles waste less on halos, but small images on nothing. The largest is
  bounded by memory: a batch's planes at full resolution stay below the budget.

  Args:
    model: the network.
    config: the config's section `predict`.
    budget: of measure_budget; None: MAX_BATCH_BYTES.
  """
  if config.tile_px:
    # Refused for small images, too, which alone it would do for.
    tiling.check_tile(config.tile_px, model.depth)
    return [config.tile_px]
  halo_px = tiling.receptive_halo(model.depth)
  num_tiles = config.batch_size or 1
  most_bytes = MAX_BATCH_BYTES
  if budget is not None:
    num_tiles, most_bytes = num_tiles * config.views, budget
  sizes = [
    tile_px
    for tile_px in TILE_SIZES_PX
    if tile_px % 2**model.depth == 0
    and tile_px**2 * _count_pixel_bytes(model) * num_tiles <= most_bytes
  ]
  if max(sizes, default=0) <= 2 * halo_px:  # Two halos do not fit.
    sizes.append(max(512, 4 * halo_px))
  return sizes


@dataclasses.dataclass(frozen=True)
class _Result:
  """Where the tiles of one image are put together."""

  key: Any
  probabilities: Probabilities


@dataclasses.dataclass(frozen=True)
class _Piece:
  """One tile to predict."""

  result: _Result
  image: Image
  tile: tiling.Tile
  tile_px: int
  is_last: bool


def _list_pieces(
  images: Iterable[tuple[Key, Image]], depth: int, sizes: Sequence[int]
) -> Iterator[_Piece]:
  halo_px = tiling.receptive_halo(depth)
  for key, image in images:
    shape = image.shape[:2]
    tile_px = tiling.choose_tile(shape, sizes, halo_px, 2**depth)
    tiles = tiling.plan_tiles(shape, tile_px, halo_px, 2**depth)
    result = _Result(key, storage.allocate((*shape, NUM_CLASSES), np.float32))
    for tile in tiles:
      yield _Piece(result, image, tile, tile_px, is_last=tile is tiles[-1])


def _list_batches(
  pieces: Iterator[_Piece], batch_size: int
) -> Iterator[list[_Piece]]:
  """Yields the pieces in batches of one tile size, in order."""
  for _, group in itertools.groupby(pieces, key=lambda piece: piece.tile_px):
    while batch := list(itertools.islice(group, batch_size)):
      yield batch


def _run_ahead(
  pieces: Iterator[_Piece],
  model: UNet,
  num_views: int,
  devices: Sequence[jax.Device],
  size: int,
  watch: Callable[[Array], None] | None = None,
) -> Iterator[tuple[list[_Piece], Array]]:
  """Yields each batch and its answers once the next one is on its way.

  Args:
    pieces: tiles, in order.
    model: the network.
    num_views: of each tile.
    devices: that a batch is dealt to.
    size: tiles in a batch, a multiple of the number of devices.
    watch: is given each answer as soon as it is asked for.
  """
  graph, state, dealt = _deal(model, devices)
  is_folded = _folds_views(devices)
  previous = None
  for batch in _list_batches(pieces, size):
    pixels, valid = jax.device_put(_cut_batch(batch, size), dealt)
    answer = predict_tiles(graph, state, pixels, valid, num_views, is_folded)
    if watch is not None:
      watch(answer)
    current = batch, answer
    if previous:
      yield previous
    previous = current
  if previous:
    yield previous


def _deal(
  model: UNet, devices: Sequence[jax.Device]
) -> tuple[nnx.GraphDef, nnx.State, NamedSharding]:
  """Lays a network on all devices; the last result is how a batch is dealt."""
  mesh = jax.sharding.Mesh(np.array(devices), "tiles")
  if devices[0].platform == "cpu":
    model = unet.transform_kernels(model)
  graph, state = nnx.split(model)
  state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
  return graph, state, NamedSharding(mesh, PartitionSpec("tiles"))


def _folds_views(devices: Sequence[jax.Device]) -> bool:
  """Whether all views of a tile are seen at once.

  An accelerator is filled by all of them; a processor is by one, whose planes
  stay in its cache. Where the memory is not known, neither is room.
  """
  is_known = measure_budget(devices) is not None
  return is_known and devices[0].platform != "cpu"


def _cut_batch(
  batch: Sequence[_Piece], batch_size: int
) -> tuple[tiling.Tiles, tiling.Valid]:
  """Stacks the pieces' tiles, filled up with empty ones to the batch's size."""
  parts = [
    tiling.cut_tiles(piece.image, [piece.tile], piece.tile_px)
    for piece in batch
  ]
  empty = [np.zeros_like(part) for part in parts[0]]
  parts += [(empty[0], empty[1])] * (batch_size - len(batch))
  pixels, valid = zip(*parts, strict=True)
  return np.concatenate(pixels), np.concatenate(valid)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def predict_tiles(
  graph: nnx.GraphDef,
  state: nnx.State,
  pixels: Float[Array, "n t t c"],
  valid: Bool[Array, "n t t 1"],
  num_views: int = 1,
  is_folded: bool = False,
) -> Float[Array, "n t t 3"]:
  """Returns the probabilities of a batch of tiles, float32 in 0..1.

  With several views the tiles are seen mirrored as well, and the answers'
  mean is taken. A tile's edge is a multiple of the network's stride, so that
  the mirrored poolings meet the same pixels in every tile of an image.

  Args:
    graph: the network's structure, as nnx.split gives it.
    state: its parameters and statistics; arguments, so that another
      checkpoint of the same network is not compiled again.
    pixels: values 0..255, zero outside the image.
    valid: which pixels lie inside the image.
    num_views: 1, 4 or 8, see VIEWS.
    is_folded: whether all views of a tile are seen at once, beside one
      another in the batch, in place of one after the other.
  """
  model = nnx.merge(graph, state)
  model.eval()
  if num_views == 1:
    return jax.nn.sigmoid(model(pixels, valid))

  def add_view(total, view):
    logits = model(_turn(pixels, view), _turn(valid, view))
    return total + _turn_back(jax.nn.sigmoid(logits), view), None

  views = jnp.array(VIEWS[num_views])
  if is_folded:
    # A tile's views follow one another, so that they stay on its device.
    seen = jax.vmap(_turn, (None, 0), 1)
    pixels, valid = (
      x.reshape(-1, *x.shape[2:])
      for x in (seen(pixels, views), seen(valid, views))
    )
    answers = jax.nn.sigmoid(model(pixels, valid))
    answers = answers.reshape(-1, num_views, *answers.shape[1:])
    return jax.vmap(_turn_back, (1, 0), 1)(answers, views).mean(1)

  # A scan, so that the network is compiled once and one view is in memory.
  start = jnp.zeros((*pixels.shape[:3], NUM_CLASSES))
  total, _ = jax.lax.scan(add_view, start, views)
  return total / num_views


def _turn(x: Array, view: Bool[Array, "3"]) -> Array:
  """Mirrors tiles as the view says."""
  x = jnp.where(view[0], x[:, ::-1], x)
  x = jnp.where(view[1], x[:, :, ::-1], x)
  return jnp.where(view[2], x.swapaxes(1, 2), x)


def _turn_back(x: Array, view: Bool[Array, "3"]) -> Array:
  x = jnp.where(view[2], x.swapaxes(1, 2), x)
  x = jnp.where(view[1], x[:, :, ::-1], x)
  return jnp.where(view[0], x[:, ::-1], x)


def describe_device() -> str:
  """Returns the kind and number of the devices that the network runs on."""
  devices = list_devices()
  return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
