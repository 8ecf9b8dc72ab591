"""Corrections of the viewer as labels of a part of an image."""

import dataclasses

import numpy as np
import pytest
import tifffile
from test_split import make_sample

from dicexmbd_jax.finetuning import reading
from dicexmbd_jax.types import ImageSource

HEAD = "id,action,from_ids,user,time\n"


@pytest.fixture
def corrected(tmp_path):
  """Cells 1 2 3 4; 1 was redrawn, 9 merged of 2 and 3, 4 was there."""
  for name in ("masks", "corrected"):
    (tmp_path / name).mkdir()
  before = np.kron([[1, 2, 3, 4, 5]], np.ones((4, 4), np.uint16))
  after = np.kron([[1, 9, 9, 4, 0]], np.ones((4, 4), np.uint16))
  tifffile.imwrite(tmp_path / "masks" / "a.tiff", before.astype(np.uint16))
  path = tmp_path / "corrected" / "a.tiff"
  tifffile.imwrite(path, after.astype(np.uint16))
  cells = after.astype(np.int32)
  return path, make_sample("a", cells, cells.shape)


def test_corrected_cells_count_and_deleted_ones_are_background(corrected):
  path, sample = corrected
  path.with_suffix(".csv").write_text(
    HEAD + "9,merged,2;3,me,t\n5,deleted,5,me,t\n"
  )
  covered = reading.add_corrections(sample, path).is_covered[0]
  assert covered.reshape(5, 4).all(1).tolist() == [
    False,
    True,
    True,
    False,
    True,
  ]
  assert covered.sum() == 12


def test_without_the_masks_before_deletions_are_told(corrected):
  path, sample = corrected
  (path.parents[1] / "masks" / "a.tiff").unlink()
  path.with_suffix(".csv").write_text(HEAD + "5,deleted,5,me,t\n")
  sample = reading.add_corrections(sample, path)
  assert not sample.is_covered.any()
  assert "were deleted" in sample.doubts[0]


@pytest.mark.parametrize("change", ["numbers", "size"])
def test_masks_made_anew_tell_nothing_of_what_was_deleted(corrected, change):
  path, sample = corrected
  path.with_suffix(".csv").write_text(
    HEAD + "9,merged,2;3,me,t\n5,deleted,5,me,t\n"
  )
  place = path.parents[1] / "masks" / "a.tiff"
  before = tifffile.imread(place)
  new = np.where(before > 0, 6 - before, 0) if change == "numbers" else before.T
  tifffile.imwrite(place, new.astype(np.uint16))
  found = reading.add_corrections(sample, path)
  assert found.is_covered[0].reshape(5, 4).all(1).tolist() == [
    False, True, True, False, False
  ]  # fmt: skip
  assert "found other cells than those that were corrected" in found.doubts[0]


def test_an_image_that_was_checked_counts_whole(corrected):
  path, sample = corrected
  path.with_suffix(".csv").write_text(
    HEAD + "0,checked,,me,t\n9,merged,2;3,me,t\n"
  )
  assert reading.add_corrections(sample, path).is_covered.all()


def test_masks_without_a_table_are_whole(corrected):
  path, sample = corrected
  assert reading.add_corrections(sample, path) is sample


def test_a_broken_table_is_one_line(corrected):
  path, sample = corrected
  path.with_suffix(".csv").write_text("id,action\n1,redrawn\n")
  with pytest.raises(ValueError, match="expected a table of corrections"):
    reading.add_corrections(sample, path)


def test_a_marker_that_shows_other_places_is_told():
  rng = np.random.default_rng(0)
  signal = np.kron(rng.uniform(0, 50, (12, 12)), np.ones((4, 4)))
  stack = np.stack([signal, 2 * signal, rng.uniform(0, 50, signal.shape)], -1)
  record = make_sample("a").record
  loaded = dataclasses.replace(
    record.loaded,
    stack=stack.astype(np.float32),
    names=("DNA1", "DNA2", "X"),
    nuclear=(0, 1, 2),
  )
  record = dataclasses.replace(record, loaded=loaded)
  (line,) = reading.compare_markers(record)
  assert "nuclear markers disagree: X" in line


def test_maps_of_a_teacher_are_probabilities_of_the_image_size(tmp_path):
  path = tmp_path / "a.tiff"
  source = ImageSource("a", path)
  whole = np.full((4, 6, 3), 1 / 3, np.float32)
  tifffile.imwrite(path, whole)
  np.testing.assert_array_equal(reading.read_maps(source, (2, 3)), whole)
  with pytest.raises(ValueError, match="found 4 x 6 px .* expected 5 x 6"):
    reading.read_maps(source, (5, 6))
  tifffile.imwrite(path, whole * 0.5)
  with pytest.raises(ValueError, match="miss a sum of 1 by 0.50 on average"):
    reading.read_maps(source, (4, 6))
