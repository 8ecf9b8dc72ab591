"""From two-channel images to probabilities, tile by tile, one compiled shape.

Tiles of several images share a batch, and the next batch is on its way before
the answers of the last one are fetched. Only images in flight are held.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from dicexmbd_jax import storage
from dicexmbd_jax.image import tiling
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
# Planes at full resolution that live at once, per channel of the first level:
# 4 by XLA's own count (memory_analysis, CPU), and two batches are on their way.
NUM_LIVE_PLANES = 8


def predict_images(
  images: Iterable[tuple[Key, Image]],
  model: UNet,
  config: Any,
  devices: Sequence[jax.Device] | None = None,
  tell_px: Callable[[int], None] | None = None,
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
      image, so that the least is computed), batch_size, views.
    devices: a batch has batch_size tiles for each of them; None: as
      list_devices says.
    tell_px: is called with the number of pixels that each batch has finished;
      what it raises ends the work.

  Yields:
    Key and probabilities, float32 (y, x, 3) in 0..1, in the input's order.

  Raises:
    ValueError: a tile_px that is not a multiple of 2**depth above two halos,
      or an image without pixels.
  """
  sizes = list_tile_sizes(model, config)
  pieces = _list_pieces(images, model.depth, sizes)
  devices = devices or list_devices()
  for done, probabilities in _run_ahead(pieces, model, config, devices):
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


def load_passes(
  model: UNet,
  config: Any,
  first_px: int,
  tell_px: Callable[[int], None] | None = None,
) -> tuple[Network, Network]:
  """Returns the network as the first pass and as the second one runs it.

  Args:
    model: the network.
    config: the config's section `predict`.
    first_px: edge of the images of the first pass, which sees one view.
    tell_px: of the second pass, as of predict_images.

  Returns:
    Two functions, each as predict_images once it knows its model.
  """
  first = config.copy_and_resolve_references()
  fits = first_px > 2 * tiling.receptive_halo(model.depth)
  first.tile_px = first_px if fits else 0
  first.views, first.batch_size = 1, 1
  run = functools.partial(predict_images, model=model)
  return (
    functools.partial(run, config=first),
    functools.partial(run, config=config, tell_px=tell_px),
  )


def list_devices() -> list[jax.Device]:
  """Returns the devices of this process that a batch is dealt to.

  All accelerators; of CPU devices the first, which uses all cores.
  """
  devices = jax.local_devices()
  return devices[:1] if devices[0].platform == "cpu" else devices


def list_tile_sizes(model: UNet, config: Any) -> list[int]:
  """Returns the edges of tiles in px that a run may use; each is compiled once.

  Large tiles waste less on halos, but small images on nothing. The largest is
  bounded by memory: a batch's planes at full resolution stay below
  MAX_BATCH_BYTES.
  """
  if config.tile_px:
    # Refused for small images, too, which alone it would do for.
    tiling.check_tile(config.tile_px, model.depth)
    return [config.tile_px]
  halo_px = tiling.receptive_halo(model.depth)
  plane_bytes = 4 * NUM_LIVE_PLANES * model.encoders[0].conv1.out_features
  sizes = [
    tile_px
    for tile_px in TILE_SIZES_PX
    if tile_px % 2**model.depth == 0
    and tile_px**2 * plane_bytes * config.batch_size <= MAX_BATCH_BYTES
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
  config: Any,
  devices: Sequence[jax.Device],
) -> Iterator[tuple[list[_Piece], Array]]:
  """Yields each batch and its answers once the next one is on its way."""
  mesh = jax.sharding.Mesh(np.array(devices), "tiles")
  dealt = NamedSharding(mesh, PartitionSpec("tiles"))
  graph, state = nnx.split(model)
  state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
  size = config.batch_size * len(devices)
  previous = None
  for batch in _list_batches(pieces, size):
    pixels, valid = jax.device_put(_cut_batch(batch, size), dealt)
    answer = predict_tiles(graph, state, pixels, valid, config.views)
    current = batch, answer
    if previous:
      yield previous
    previous = current
  if previous:
    yield previous


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


@functools.partial(jax.jit, static_argnums=(0, 4))
def predict_tiles(
  graph: nnx.GraphDef,
  state: nnx.State,
  pixels: Float[Array, "n t t c"],
  valid: Bool[Array, "n t t 1"],
  num_views: int = 1,
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
  """
  model = nnx.merge(graph, state)
  model.eval()
  if num_views == 1:
    return jax.nn.sigmoid(model(pixels, valid))

  def add_view(total, view):
    logits = model(_turn(pixels, view), _turn(valid, view))
    return total + _turn_back(jax.nn.sigmoid(logits), view), None

  # A scan, so that the network is compiled once and one view is in memory.
  start = jnp.zeros((*pixels.shape[:3], NUM_CLASSES))
  total, _ = jax.lax.scan(add_view, start, jnp.array(VIEWS[num_views]))
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
