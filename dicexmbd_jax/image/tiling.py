"""Tiles of one fixed size that cover images of any size.

The network's answer on an image is what it says on the whole image, with
zeros beyond the image's border. A tile that is to give the same answer needs
the context that the network sees (the halo), cut away afterwards, and must
lie on the network's pooling grid (the stride). A tile at the border of the
image begins at that border: what lies beyond is masked, not made up.

Planning knows shapes only, cutting and stitching know pixels only.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

Tiles = Float32[np.ndarray, "n t t c"]
Valid = Bool[np.ndarray, "n t t 1"]


@dataclasses.dataclass(frozen=True)
class Tile:
  """Where one tile lies, and which part of its answer counts.

  All numbers are pixels of the image. The core runs from `top` and `left` up
  to, not including, `bottom` and `right`; the cores of all tiles of an image
  cover each pixel exactly once.

  Attributes:
    y: first row of the tile, a multiple of the stride.
    x: first column of the tile, a multiple of the stride.
    top: first row of the core.
    bottom: end of the core's rows.
    left: first column of the core.
    right: end of the core's columns.
  """

  y: int
  x: int
  top: int
  bottom: int
  left: int
  right: int

  @property
  def num_px(self) -> int:
    """How many pixels the core has."""
    return (self.bottom - self.top) * (self.right - self.left)

  @property
  def core(self) -> tuple[slice, slice]:
    """The core as a place in the image."""
    return slice(self.top, self.bottom), slice(self.left, self.right)

  @property
  def core_in_tile(self) -> tuple[slice, slice]:
    """The core as a place in the tile."""
    return (
      slice(self.top - self.y, self.bottom - self.y),
      slice(self.left - self.x, self.right - self.x),
    )


def receptive_halo(depth: int) -> int:
  """Returns the context in px that a U-Net of `depth` poolings needs.

  For a core whose edges lie on multiples of 2**depth: then its outermost
  pixels see farthest. Per level two 3x3 convolutions on the way down and two
  on the way up (one block at the bottom), 2x2 pooling, 2x2 transposed
  convolution with stride 2.

  The first pixel of the core, at 0, depends on nothing left of `reach`: each
  block adds two pixels, the way up (followed backwards) halves coordinates,
  the way down doubles them. The result, 2, 8, 22, 46, 94, 190 px for depths
  0 to 5, is rounded up to a multiple of 2**depth.
  """
  reach = -2
  for _ in range(depth):
    reach = reach // 2 - 2
  for _ in range(depth):
    reach = 2 * reach - 2
  return _round_up(-reach, 2**depth)


def check_tile(tile_px: int, depth: int) -> None:
  """Raises a ValueError for tiles of an edge that a U-Net cannot use."""
  try:
    shape = (tile_px + 1, 1)  # Larger than a tile, as images may be.
    plan_tiles(shape, tile_px, receptive_halo(depth), 2**depth)
  except ValueError as error:
    raise ValueError(f"config.predict.{error}") from error


def plan_tiles(
  shape: tuple[int, int], tile_px: int, halo_px: int, stride_px: int
) -> list[Tile]:
  """Covers an image by the fewest tiles of a regular grid, row by row.

  Args:
    shape: rows and columns of the image, at least 1 each.
    tile_px: edge of a tile; a multiple of the stride, larger than two halos
      unless one tile covers the image.
    halo_px: context needed around a core; a multiple of the stride.
    stride_px: tiles begin at multiples of it.

  Returns:
    The tiles. An image that is no larger than a tile is one tile.

  Raises:
    ValueError: an image without pixels, or sizes that do not fit together.
  """
  if min(shape) < 1:
    raise ValueError(f"shape: found {shape}, expected at least 1 x 1 px")
  if halo_px % stride_px:
    raise ValueError(
      f"halo_px: found {halo_px}, expected a multiple of {stride_px}"
    )
  is_small = tile_px <= 2 * halo_px and max(shape) > tile_px
  if tile_px % stride_px or is_small:
    raise ValueError(
      f"tile_px: found {tile_px}, expected a multiple of {stride_px} above "
      f"{2 * halo_px} (two halos of {halo_px} px)"
    )
  rows, columns = (
    _plan_axis(size, tile_px, halo_px, stride_px) for size in shape
  )
  return [
    Tile(y, x, top, bottom, left, right)
    for (y, top, bottom), (x, left, right) in itertools.product(rows, columns)
  ]


def choose_tile(
  shape: tuple[int, int], sizes: Sequence[int], halo_px: int, stride_px: int
) -> int:
  """Returns the edge of tile that covers an image with the fewest pixels.

  Args:
    shape: rows and columns of the image.
    sizes: edges to choose from; of two that cost the same the first is taken.
      At least one is larger than two halos.
    halo_px: as for plan_tiles.
    stride_px: as for plan_tiles.
  """

  def count_px(tile_px: int) -> int:
    tiles = plan_tiles(shape, tile_px, halo_px, stride_px)
    return len(tiles) * tile_px**2

  fitting = [
    tile_px
    for tile_px in sizes
    if tile_px > 2 * halo_px or max(shape) <= tile_px
  ]
  return fitting[0] if len(sizes) == 1 else min(fitting, key=count_px)


def cut_tiles(
  image: Float32[np.ndarray, "y x c"], tiles: Sequence[Tile], tile_px: int
) -> tuple[Tiles, Valid]:
  """Cuts tiles out of an image.

  Returns:
    The tiles, float32 (n, t, t, c), zero outside the image; and which of
    their pixels lie inside the image, bool (n, t, t, 1).
  """
  pixels = np.zeros((len(tiles), tile_px, tile_px, image.shape[-1]), np.float32)
  valid = np.zeros((len(tiles), tile_px, tile_px, 1), bool)
  for index, tile in enumerate(tiles):
    part = image[tile.y : tile.y + tile_px, tile.x : tile.x + tile_px]
    inside = (index, slice(part.shape[0]), slice(part.shape[1]))
    pixels[inside] = part
    valid[inside] = True
  return pixels, valid


def _plan_axis(
  size: int, tile_px: int, halo_px: int, stride_px: int
) -> list[tuple[int, int, int]]:
  """Returns origin, start and end of the core for each tile of one axis."""
  # The last tile is moved back to end with the image: more context, and no
  # work on what lies outside.
  last = max(0, _round_up(size, stride_px) - tile_px)
  if last == 0:  # One tile, which may be smaller than two halos.
    return [(0, 0, size)]
  step = tile_px - 2 * halo_px
  origins = [*range(0, last, step), last]
  starts = [0, *(origin + halo_px for origin in origins[1:])]
  return list(zip(origins, starts, [*starts[1:], size], strict=True))


def _round_up(size: int, multiple: int) -> int:
  return -(-size // multiple) * multiple
