"""What counts where a reference tells a part of an image only."""

import numpy as np

from dicexmbd_jax.scores import known, match

CELLS = np.array(
  [
    [1, 1, 0, 2, 2, 2],
    [1, 1, 0, 2, 2, 2],
    [0, 0, 0, 0, 0, 0],
    [3, 3, 0, 0, 5, 5],
  ],
  np.int32,
)


def test_objects_count_where_half_of_them_is_known():
  is_known = np.zeros(CELLS.shape, bool)
  is_known[:, :4] = True  # A third of cell 2, nothing of cell 5.
  kept = known.keep_known(CELLS, is_known)
  assert set(np.unique(kept)) == {0, 1, 3}
  is_known[:2, 4] = True
  kept = known.keep_known(CELLS, is_known)
  np.testing.assert_array_equal(kept, np.where(CELLS == 5, 0, CELLS))


def test_ids_may_be_of_any_size():
  is_known = np.zeros(CELLS.shape, bool)
  is_known[:, :4] = True
  kept = known.keep_known(CELLS, is_known)
  large = np.where(CELLS > 0, CELLS.astype(np.int64) + 10**13, 0)
  wanted = np.where(kept > 0, large, 0)
  np.testing.assert_array_equal(known.keep_known(large, is_known), wanted)


def test_all_known_changes_nothing_and_nothing_known_clears_all():
  everywhere = np.ones(CELLS.shape, bool)
  np.testing.assert_array_equal(known.keep_known(CELLS, everywhere), CELLS)
  assert not known.keep_known(CELLS, ~everywhere).any()


def test_blocks_add_up_to_the_matching():
  rng = np.random.default_rng(0)
  found = np.kron(rng.permutation(49).reshape(7, 7), np.ones((5, 5), int))
  wanted = np.roll(found, 1, axis=1)
  wanted[wanted % 5 == 0] = 0
  counts = known.count_blocks(
    found.astype(np.int32), wanted.astype(np.int32), 8
  )
  matching = match.match_cells(found, wanted, 0.5)
  assert counts.shape == (25, 3)
  assert counts.sum(0).tolist() == [matching.tp, matching.fp, matching.fn]
  assert known.pool_f1(counts.sum(0)) == matching.f1


def test_blocks_by_hand():
  moved = np.where(CELLS == 3, 0, CELLS)
  counts = known.count_blocks(moved, CELLS, 3)
  assert counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]
  large = np.where(CELLS > 0, CELLS.astype(np.int64) + 10**13, 0)
  np.testing.assert_array_equal(known.count_blocks(moved, large, 3), counts)


def test_pixels_count_where_they_are_known():
  found, wanted = CELLS > 0, CELLS == 2
  is_known = np.zeros(CELLS.shape, bool)
  is_known[:2] = True
  counts = known.count_pixels(found, wanted, is_known, 3)
  assert counts.tolist() == [[0, 4, 0], [6, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_nothing_to_find_is_found():
  assert known.pool_f1(np.zeros(3)) == 1
