import numpy as np
import pytest

from dicexmbd_jax.masks import blocks
from dicexmbd_jax.masks.blocks import Window


@pytest.mark.parametrize("shape", [(1, 1), (5, 17), (16, 8), (9, 9)])
@pytest.mark.parametrize("block", [1, 4, 8, 100])
def test_blocks_cover_every_pixel_once(shape, block):
  covered = np.zeros(shape, int)
  for window in blocks.cut_blocks(shape, block):
    covered[window.slices] += 1
  assert (covered == 1).all()


def test_window_arithmetic():
  window = Window(2, 5, 0, 4)
  outer = window.expand(3, (6, 10))
  assert outer == Window(0, 6, 0, 7)
  assert window.shape == (3, 4)
  plane = np.arange(60).reshape(6, 10)
  inside = plane[outer.slices][window.find_inside(outer)]
  np.testing.assert_array_equal(inside, plane[window.slices])
  assert window.list_open_sides((6, 10)).tolist() == [True, True, False, True]
  assert outer.list_open_sides((6, 10)).tolist() == [False] * 3 + [True]


def test_windows_share_what_lies_in_both():
  one = Window(2, 5, 0, 4)
  assert one.intersect(Window(4, 9, 1, 3)) == Window(4, 5, 1, 3)
  assert one.intersect(Window(5, 9, 0, 4)) is None
  assert one.intersect(Window(2, 5, 4, 9)) is None


def test_margins_grow_and_then_blocks_until_all_is_known():
  shape = (80, 40)
  plane = np.arange(3200, dtype=np.int32).reshape(shape)
  sizes, retries = [], []

  def solve(window, is_open, is_retry):
    """Knows only what lies 5 pixels from its open sides."""
    retries.append(is_retry)
    sizes.append(window.shape)
    solved = plane[window.slices].copy()
    above, below, left, right = is_open
    if above:
      solved[:5] = -1
    if below:
      solved[-5:] = -1
    if left:
      solved[:, :5] = -1
    if right:
      solved[:, -5:] = -1
    return solved

  result = blocks.solve_blocks(shape, 20, solve)
  np.testing.assert_array_equal(result, plane)
  # Two blocks of 20 together have a margin of 20 // 8 = 2, single ones then 4;
  # of those of 40, with 8, the rows next to the seam are known.
  assert sizes == [(42, 40)] * 2 + [(28, 24)] * 4 + [(48, 40)] * 2
  assert retries == [False] * 2 + [True] * 6


def test_the_whole_plane_is_the_last_resort():
  def solve(window, is_open, is_retry):
    return np.full(window.shape, -1 if is_open.any() else 7, np.int32)

  assert (blocks.solve_blocks((9, 30), 4, solve) == 7).all()
