import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicexmbd_jax.image import tiling
from dicexmbd_jax.image.tiling import Tile


@st.composite
def plans(draw, max_size=90):
  """Any image, stride and halo, and any tile that goes with them."""
  stride = draw(st.sampled_from([1, 2, 4, 8]))
  halo = stride * draw(st.integers(0, 3))
  tile = 2 * halo + stride * draw(st.integers(1, 8))
  shape = draw(st.tuples(*[st.integers(1, max_size)] * 2))
  return shape, tile, halo, stride


def test_an_image_no_larger_than_a_tile_is_one_tile():
  expected = [Tile(0, 0, 0, 5, 0, 16)]
  assert tiling.plan_tiles((5, 16), 16, 4, 4) == expected


def test_larger_images_share_out_their_pixels():
  # Rows: tiles of 12 with halos of 4 advance by 4, from 0 to the end at 20.
  tiles = tiling.plan_tiles((18, 12), 12, 4, 4)
  assert tiles == [
    Tile(0, 0, 0, 8, 0, 12),
    Tile(4, 0, 8, 12, 0, 12),
    Tile(8, 0, 12, 18, 0, 12),
  ]
  assert tiles[2].core == (slice(12, 18), slice(0, 12))
  assert tiles[2].core_in_tile == (slice(4, 10), slice(0, 12))


def test_the_last_tile_ends_with_the_image():
  tiles = tiling.plan_tiles((1, 100), 64, 16, 8)
  assert [(tile.x, tile.left, tile.right) for tile in tiles] == [
    (0, 0, 48),
    (32, 48, 56),
    (40, 56, 100),
  ]


@given(plans())
def test_each_pixel_is_covered_once(plan):
  shape, *_ = plan
  count = np.zeros(shape, int)
  for tile in tiling.plan_tiles(*plan):
    count[tile.core] += 1
  assert (count == 1).all()


@given(plans())
def test_tiles_lie_on_the_grid_with_context_on_all_sides(plan):
  shape, tile_px, halo_px, stride_px = plan
  for tile in tiling.plan_tiles(*plan):
    for origin, start, end, size in (
      (tile.y, tile.top, tile.bottom, shape[0]),
      (tile.x, tile.left, tile.right, shape[1]),
    ):
      assert origin >= 0
      assert origin % stride_px == 0
      assert start < end
      # Core edges on the grid, as the halo's derivation wants them.
      assert start % stride_px == 0
      assert end % stride_px == 0 or end == size
      # The halo, except at the border of the image.
      assert start - origin >= halo_px or origin == start == 0
      inside = origin + tile_px - end
      assert inside >= halo_px or (end == size and inside >= 0)


@given(plans(max_size=40))
def test_no_smaller_number_of_tiles_would_do(plan):
  (rows, _), tile_px, halo_px, stride_px = plan
  num_tiles = len(tiling.plan_tiles((rows, 1), *plan[1:]))
  # The best that fewer tiles reach: each as far right as its halo lets it.
  reached = tile_px - halo_px
  for _ in range(num_tiles - 2):
    reached += tile_px - 2 * halo_px
  padded = -(-rows // stride_px) * stride_px
  assert num_tiles == 1 or reached + halo_px < padded


@given(plans(), st.integers(1, 3))
def test_round_trip_is_the_identity(plan, num_channels):
  shape, tile_px, *_ = plan
  image = np.random.default_rng(0).random(
    (*shape, num_channels), dtype=np.float32
  )
  tiles = tiling.plan_tiles(*plan)
  pixels, valid = tiling.cut_tiles(image, tiles, tile_px)
  assert pixels.shape == (len(tiles), tile_px, tile_px, num_channels)
  assert pixels.dtype == np.float32
  joined = np.full_like(image, np.nan)
  for part, tile in zip(pixels, tiles, strict=True):
    joined[tile.core] = part[tile.core_in_tile]
  np.testing.assert_array_equal(joined, image)


@given(plans())
def test_valid_marks_what_is_image(plan):
  shape, tile_px, *_ = plan
  tiles = tiling.plan_tiles(*plan)
  pixels, valid = tiling.cut_tiles(np.ones((*shape, 1)), tiles, tile_px)
  assert valid.dtype == bool
  np.testing.assert_array_equal(pixels == 1, valid)
  for tile, inside in zip(tiles, valid[..., 0], strict=True):
    assert inside.sum() == min(tile_px, shape[0] - tile.y) * min(
      tile_px, shape[1] - tile.x
    )


@pytest.mark.parametrize(
  ("tile_px", "halo_px", "stride_px", "message"),
  [
    (30, 4, 4, "tile_px: found 30, expected a multiple of 4 above 8"),
    (8, 4, 4, "tile_px: found 8, expected a multiple of 4 above 8"),
    (16, 3, 4, "halo_px: found 3, expected a multiple of 4"),
  ],
)
def test_sizes_that_do_not_fit_are_errors(tile_px, halo_px, stride_px, message):
  with pytest.raises(ValueError, match=message):
    tiling.plan_tiles((9, 5), tile_px, halo_px, stride_px)


@pytest.mark.parametrize("tile_px", [4, 8, 12])
def test_one_tile_needs_no_halo(tile_px):
  [tile] = tiling.plan_tiles((4, 3), tile_px, 4, 4)
  assert tile == tiling.Tile(0, 0, 0, 4, 0, 3)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_an_error(shape):
  with pytest.raises(ValueError, match="at least 1 x 1"):
    tiling.plan_tiles(shape, 16, 4, 4)


def find_reach(depth):
  """How far left of 0 the pixel at 0 looks, by sets instead of arithmetic."""
  pixels = {0}
  for level in range(depth + 1):
    pixels = spread(pixels)
    if level < depth:
      pixels = {pixel // 2 for pixel in pixels}
  for _ in range(depth):
    children = itertools.product(pixels, (0, 1))
    pixels = spread({2 * pixel + child for pixel, child in children})
  return -min(pixels)


def spread(pixels):
  return {pixel + step for pixel in pixels for step in range(-2, 3)}


@pytest.mark.parametrize("depth", range(6))
def test_halo_is_the_receptive_field_on_the_grid(depth):
  stride = 2**depth
  halo = tiling.receptive_halo(depth)
  assert halo % stride == 0
  assert halo - stride < find_reach(depth) <= halo


def test_halo_of_the_default_depth():
  assert tiling.receptive_halo(4) == 96
