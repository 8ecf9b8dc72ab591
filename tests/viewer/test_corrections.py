import numpy as np
import pandas as pd
import pytest
import viewer_studies

from dicexmbd_jax.io import labels
from dicexmbd_jax.viewer import corrections

AUTHOR = {"user": "ada", "time": "2026-01-31T12:00:00Z"}
LATER = {"user": "bob", "time": "2026-02-01T12:00:00Z"}


def apply(cells, edit):
  changed = cells.copy()
  changed[edit.indices] = edit.values
  return changed


def list_rows(original, corrected):
  table = corrections.find_changes(original, corrected)
  return [tuple(row) for row in table.to_numpy().tolist()]


@pytest.fixture
def cells():
  return viewer_studies.make_cells()


def test_a_line_has_each_pixel_once_and_none_outside():
  line = corrections.draw_line([(-2, 0), (2, 0), (2, 2)], (5, 5))
  assert line.tolist() == [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]


def test_cells_that_touch_are_merged(cells):
  edit = corrections.merge_cells(cells, [(10, 20), (10, 10)])
  merged = apply(cells, edit)
  expected = np.where(cells == 1, 2, cells)
  np.testing.assert_array_equal(merged, expected)
  assert list_rows(cells, merged) == [(2, "merged", "1;2")]


def test_cells_apart_are_joined_along_the_line(cells):
  merged = apply(cells, corrections.merge_cells(cells, [(28, 10), (28, 40)]))
  assert (merged[27:30, 15:30] == 3).all()
  assert (merged == 3).sum() == 150 + 225 + 45
  assert list_rows(cells, merged) == [(3, "merged", "3;4")]


def test_a_line_parts_the_cell_that_it_crosses_most(cells):
  """It starts in the neighbour, and does not reach the far side."""
  edit = corrections.split_cell(cells, [(9.5, 13), (9.5, 22)], 5)
  parted = apply(cells, edit)
  assert (parted[5:10, 15:25] == parted[5, 15]).all()
  assert (parted[10:15, 15:25] == parted[14, 15]).all()
  assert {parted[5, 15], parted[14, 15]} == {2, 5}
  np.testing.assert_array_equal(parted == 1, cells == 1)
  assert list_rows(cells, parted) == [(2, "split", "2"), (5, "split", "2")]


def test_each_piece_of_a_bent_cell_gets_an_id():
  cells = np.zeros((8, 9), np.int32)
  cells[1:7, 1:8] = 1
  cells[1:5, 3:6] = 0  # A U.
  edit = corrections.split_cell(cells, [(3.5, 0), (3.5, 8)], 2)
  parted = apply(cells, edit)
  assert parted[6, 4] == 1
  assert sorted([parted[1, 1], parted[1, 7]]) == [2, 3]


@pytest.mark.parametrize(
  ("edit", "path"),
  [
    (corrections.merge_cells, [(10, 10), (10, 11)]),
    (corrections.merge_cells, [(0, 0), (1, 1)]),
    (corrections.delete_cells, [(0, 0)]),
    (lambda *args: corrections.split_cell(*args, 9), [(0, 0), (3, 3)]),
    (lambda *args: corrections.split_cell(*args, 9), [(10, 10), (10, 10)]),
    (lambda *args: corrections.split_cell(*args, 9), [(4.9, 0), (4.9, 16)]),
    (corrections.delete_cells, [(-5, -5)]),
  ],
)
def test_what_cannot_be_meant_changes_nothing(cells, edit, path):
  found = edit(cells, path)
  assert found.message.startswith("Nothing is")
  np.testing.assert_array_equal(apply(cells, found), cells)


def test_a_click_deletes_a_cell(cells):
  gone = apply(cells, corrections.delete_cells(cells, [(10, 20)]))
  np.testing.assert_array_equal(gone, np.where(cells == 2, 0, cells))
  assert list_rows(cells, gone) == [(2, "deleted", "2")]


def test_changes_are_told_from_the_pixels(cells):
  changed = cells.copy()
  changed[0:3, 40:50] = 5  # Added.
  changed[20:22, 5:15] = 0  # Cell 3 is smaller.
  changed[cells == 4] = 0  # Cell 4 moved: no pixel of it stayed.
  changed[20:25, 20:25] = 4
  assert list_rows(cells, changed) == [
    (3, "redrawn", "3"),
    (4, "redrawn", "4"),
    (5, "added", ""),
  ]
  assert list_rows(cells, cells) == []


def test_a_new_id_in_an_old_place_is_redrawn(cells):
  changed = np.where(cells == 4, 7, cells)
  assert list_rows(cells, changed) == [(7, "redrawn", "4")]


def test_corrections_lie_beside_the_masks(cells, tmp_path):
  merged = apply(cells, corrections.merge_cells(cells, [(10, 10), (10, 20)]))
  args = tmp_path, "ROI1", cells
  corrections.write_corrections(*args, merged, AUTHOR, 0.5)
  masks = labels.read_labels(tmp_path / "masks/ROI1.tiff")
  np.testing.assert_array_equal(masks, cells)
  saved = labels.read_labels(tmp_path / "corrected/ROI1.tiff")
  np.testing.assert_array_equal(saved, merged)
  table = (tmp_path / "corrected/ROI1.csv").read_text()
  assert table == (
    "id,action,from_ids,user,time\n1,merged,1;2,ada,2026-01-31T12:00:00Z\n"
  )


def test_who_changed_what_first_stays(cells, tmp_path):
  args = tmp_path, "ROI1", cells
  first = apply(cells, corrections.merge_cells(cells, [(10, 10), (10, 20)]))
  first[0:3, 40:50] = 5
  corrections.write_corrections(*args, first, AUTHOR)
  second = apply(first, corrections.delete_cells(first, [(25, 10)]))
  second[0, 40] = 0
  table = corrections.write_corrections(*args, second, LATER)
  assert table[["id", "action", "user"]].to_numpy().tolist() == [
    [1, "merged", "ada"],
    [3, "deleted", "bob"],
    [5, "added", "bob"],
  ]
  read = pd.read_csv(tmp_path / "corrected/ROI1.csv").fillna("")
  assert read.to_numpy().tolist() == table.to_numpy().tolist()
  corrections.write_corrections(*args, cells, LATER)
  assert len(pd.read_csv(tmp_path / "corrected/ROI1.csv")) == 0


def test_masks_of_others_are_never_replaced(cells, tmp_path):
  corrections.write_corrections(tmp_path, "ROI1", cells, cells, AUTHOR)
  other = np.where(cells == 1, 0, cells)
  with pytest.raises(ValueError, match=r"masks/ROI1.tiff: found other cells"):
    corrections.write_corrections(tmp_path, "ROI1", other, other, AUTHOR)


def test_ids_beyond_16_bits_are_kept(cells, tmp_path):
  added = cells.copy()
  added[0, 0] = 70_000
  corrections.write_corrections(tmp_path, "ROI1", cells, added, AUTHOR)
  saved = labels.read_labels(tmp_path / "corrected/ROI1.tiff")
  assert saved[0, 0] == 70_000
