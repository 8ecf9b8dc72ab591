"""Which labelled images train, and which judge."""

import numpy as np
import pytest

from dicexmbd_jax.finetuning import advice, samples, split
from dicexmbd_jax.types import ImageRecord, ImageSource, LoadedImage


def make_sample(name, cells=None, shape=(40, 60), **parts):
  loaded = LoadedImage(np.zeros((0, 0, 0), np.float32), (), (), (), None)
  record = ImageRecord(
    ImageSource(name, name), loaded, 1.0, image=np.ones((*shape, 2), np.float32)
  )
  if cells is None:
    cells = np.kron(
      np.arange(1, 25).reshape(4, 6), np.ones((10, 10), np.int32)
    ).astype(np.int32)
  return samples.Sample(record, cells=cells, **parts)


def check(sample, labelled="image"):
  return samples.check_sample(sample, labelled)


@pytest.mark.parametrize(
  ("name", "slide"),
  [
    ("Patient1_ROI_003", "Patient1"),
    ("slideA-7", "slideA"),
    ("20210305_NE_mockData5_001", "20210305_NE_mockData5"),
    ("tumour", "tumour"),
    ("7", "7"),
  ],
)
def test_slides_are_told_by_names(name, slide):
  assert split.find_slide(name) == slide


def test_slides_never_part():
  names = [f"P{p}_ROI{i}" for p in range(5) for i in range(3)]
  division = split.divide([check(make_sample(name)) for name in names])
  groups = [
    {name[:2] for name in part} for part in (division.trains, division.judges)
  ]
  assert not groups[0] & groups[1]
  assert len(division.judges) == 3
  assert "by slide" in division.way


def test_images_of_one_slide_are_dealt_singly():
  division = split.divide([check(make_sample(f"ROI{i}")) for i in range(5)])
  assert (len(division.trains), len(division.judges)) == (4, 1)


def test_an_image_without_objects_does_not_judge():
  found = [check(make_sample(f"ROI{i}")) for i in range(5)]
  for i in (0, 1):  # Where cells were deleted, and where none is.
    covered = np.zeros((40, 60), bool)
    covered[:3, :3] = i == 0
    nothing = np.zeros((40, 60), np.int32)
    cells = None if i == 0 else nothing
    found[i] = make_sample(f"ROI{i}", cells, is_covered=covered | (i == 1))
  assert advice.count_labels(found) == 3 * 24
  for seed in range(20):
    (judge,) = split.divide(found, seed).judges
    assert judge not in ("ROI0", "ROI1")
  assert len(split.divide([found[1]] * 4).judges) == 1


def test_images_of_a_slide_each_are_told():
  names = [f"mouse{i}_image1" for i in range(4)]
  division = split.divide([check(make_sample(name)) for name in names])
  assert "a slide of its own" in division.way


@pytest.mark.parametrize("number", [2, 5])
def test_one_image_under_two_names_is_refused(number):
  found = [check(make_sample(f"ROI{i}")) for i in range(number)]
  rng = np.random.default_rng(0)
  for sample in found:
    sample.record.image[:] = rng.random(sample.record.image.shape)
  split.divide(found)
  found[1].record.image[:] = found[0].record.image
  with pytest.raises(ValueError, match="ROI1: found the pixels of ROI0"):
    split.divide(found)


def test_one_image_is_parted_with_a_quarter_of_its_labels():
  division = split.divide([check(make_sample("a"))])
  trains, judges = division.trains["a"], division.judges["a"]
  assert (trains ^ judges).all()
  assert judges[:, -15:].all()
  assert not judges[:, :40].any()


def test_the_rectangle_around_the_labels_is_covered():
  cells = np.zeros((40, 60), np.int32)
  cells[5:9, 10:14], cells[20:25, 30:35] = 1, 2
  covered = check(make_sample("a", cells), "rectangle").is_covered
  assert covered[5:25, 10:35].all()
  assert covered.sum() == 20 * 25
  assert check(make_sample("a", cells), "cells").is_covered.sum() == 41
  whole = check(make_sample("a", cells))
  assert whole.is_covered.all()
  assert "--labelled=rectangle" in whole.doubts[0]


def test_cells_that_all_touch_the_edge_are_told():
  cells = np.kron([[1, 2], [3, 4]], np.ones((20, 30), np.int32))
  sample = check(make_sample("a", cells.astype(np.int32)))
  assert "all 4 cells touch the image's edge" in sample.doubts[0]


def test_masks_of_another_size_are_explained():
  cells = np.ones((60, 40), np.int32)
  with pytest.raises(ValueError, match="rows and columns are swapped"):
    check(make_sample("a", cells))


def test_what_is_not_covered_is_not_trained_on():
  sample = check(make_sample("a"), "image")
  is_used = np.zeros((40, 60), bool)
  is_used[:, :20] = True
  target, known = samples.make_sample_target(sample, (40, 60), is_used)
  assert known[:, :20].all()
  assert not known[:, 21:].any()
  nuclei = samples.Sample(
    sample.record, nuclei=sample.cells * (sample.cells < 3)
  )
  target, known = samples.make_sample_target(
    check(nuclei), (40, 60), np.ones((40, 60), bool)
  )
  assert known[..., 0].all()
  assert not known[20:, :, 1:].any()
