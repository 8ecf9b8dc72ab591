"""What a teacher's files are told to be, and what is refused."""

import json

import h5py
import numpy as np
import pytest

from data_builders import teacher_files, teacher_pairs
from dicexmbd_jax.io import listing, probabilities
from dicexmbd_jax.types import ImageSource
from tests.data_builders.studies import draw_maps, write_tiff

SHAPE = (6, 9)


def write_hdf5(path, pixels, axes):
  with h5py.File(path, "w") as file:
    data = file.create_dataset("exported_data", data=pixels)
    if axes:
      tags = {"axes": [{"key": key} for key in axes]}
      data.attrs["axistags"] = json.dumps(tags)


def read(path):
  return probabilities.read_three_maps(ImageSource("a", path))


@pytest.mark.parametrize("axes", ["yxc", "cyx", "tzyxc", "cxy", ""])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_hdf5_exports_are_read_whatever_their_axes(tmp_path, axes, dtype):
  maps = draw_maps(SHAPE, 0)
  full = 1 if dtype == "f4" else np.iinfo(dtype).max
  stored = (np.rint(maps * full) if full > 1 else maps).astype(dtype)
  order = ["yxc".index(key) for key in axes or "yxc" if key in "yxc"]
  stored = stored.transpose(order)
  if len(axes) == 5:
    stored = stored[None, None]
  write_hdf5(tmp_path / "a.h5", stored, axes)
  found = read(tmp_path / "a.h5")
  assert found.dtype == np.float32 and found.shape == (*SHAPE, 3)
  np.testing.assert_allclose(found, maps, atol=0.51 / max(full, 255))


@pytest.mark.parametrize("axes", ["YXS", "CYX"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_tiff_exports_are_read(tmp_path, axes, dtype):
  maps = draw_maps(SHAPE, 0)
  full = 1 if dtype == "f4" else np.iinfo(dtype).max
  stored = (np.rint(maps * full) if full > 1 else maps).astype(dtype)
  if axes == "CYX":
    stored = np.moveaxis(stored, 2, 0)
  write_tiff(tmp_path / "a.tiff", stored, axes)
  found = read(tmp_path / "a.tiff")
  np.testing.assert_allclose(found, maps, atol=0.51 / max(full, 255))


@pytest.mark.parametrize(
  ("pixels", "words"),
  [
    (draw_maps(SHAPE, 0) * 255, "expected probabilities of 0 to 1"),
    (draw_maps(SHAPE, 0) * np.nan, "expected probabilities of 0 to 1"),
    (draw_maps(SHAPE, 0) * 0.5, "miss a sum of 1 by 0.50"),
    (draw_maps(SHAPE, 0)[..., :2], "found 2 maps"),
  ],
)
def test_what_are_no_probabilities_is_named(tmp_path, pixels, words):
  write_hdf5(tmp_path / "a.h5", pixels, "yxc")
  with pytest.raises(ValueError, match=words) as error:
    read(tmp_path / "a.h5")
  assert str(tmp_path / "a.h5") in str(error.value)


def test_wrong_axistags_are_seen_by_the_size(tmp_path):
  write_hdf5(tmp_path / "a.h5", draw_maps(SHAPE, 0), "xyc")
  maps = read(tmp_path / "a.h5")
  with pytest.raises(ValueError, match="wrong axis order"):
    teacher_files.find_map_scale(maps.shape[:2], SHAPE, tmp_path / "a.h5")


@pytest.mark.parametrize(
  ("maps", "words"),
  [
    ((9, 6), "wrong axis order"),
    ((18, 12), "wrong axis order"),
    ((24, 36), "wrong scale, 4 times"),
    ((3, 5), "wrong scale"),
    ((6, 12), "another size"),
    ((7, 9), "another size"),
  ],
)
def test_sizes_that_do_not_fit_are_explained(tmp_path, maps, words):
  with pytest.raises(ValueError, match=words):
    teacher_files.find_map_scale(maps, SHAPE, tmp_path)


def test_a_square_of_another_scale_is_not_called_turned(tmp_path):
  with pytest.raises(ValueError, match="wrong scale, 2 times"):
    teacher_files.check_mask_size((32, 32), (16, 16), tmp_path)


def test_both_scales_are_told(tmp_path):
  assert teacher_files.find_map_scale((6, 9), SHAPE, tmp_path) == 1
  assert teacher_files.find_map_scale((12, 18), SHAPE, tmp_path) == 2


def test_folders_are_told_by_their_files(tmp_path):
  write_tiff(tmp_path / "p/a.tiff", draw_maps(SHAPE, 0), "YXS")
  write_tiff(tmp_path / "m/a.tiff", np.ones(SHAPE, "u2"), "YX")
  (tmp_path / "m/A_first.tiff").write_bytes(b"II*\0broken")
  assert teacher_files.find_teacher(str(tmp_path / "p")).kind == "maps"
  assert teacher_files.find_teacher(str(tmp_path / "m")).kind == "masks"


def test_truth_has_cells_and_nuclei(tmp_path):
  for name in ("masks", "nuclei"):
    write_tiff(tmp_path / name / "a.tiff", np.ones(SHAPE, "u2"), "YX")
  found = teacher_files.find_teacher(str(tmp_path))
  assert found == teacher_files.TeacherFiles(
    "masks", str(tmp_path / "masks"), str(tmp_path / "nuclei")
  )


def test_pictures_beside_results_are_no_teacher(tmp_path):
  # As `teach round` leaves them.
  write_tiff(tmp_path / "masks/a.tiff", np.ones(SHAPE, "u2"), "YX")
  write_tiff(tmp_path / "probabilities/a.tiff", draw_maps(SHAPE, 0), "YXS")
  for name in ("curve.png", "failures.csv"):
    (tmp_path / name).touch()
  for kind, name in (("masks", "masks"), ("maps", "probabilities")):
    found = teacher_files.find_teacher(str(tmp_path), kind=kind)
    assert found.pattern == str(tmp_path / name)


def test_two_teachers_are_not_chosen_between(tmp_path):
  write_tiff(tmp_path / "masks/a.tiff", np.ones(SHAPE, "u2"), "YX")
  write_tiff(tmp_path / "probabilities/a.tiff", draw_maps(SHAPE, 0), "YXS")
  with pytest.raises(ValueError, match="several teachers.*--teacher_kind"):
    teacher_files.find_teacher(str(tmp_path))
  chosen = teacher_files.find_teacher(str(tmp_path), kind="maps")
  assert chosen.pattern == str(tmp_path / "probabilities")


def pair(tmp_path, images, files):
  for name in files:
    write_tiff(tmp_path / "t" / name, np.ones(SHAPE, "u2"), "YX")
  for name in images:
    write_tiff(tmp_path / "i" / name, np.ones((2, *SHAPE), "u2"), "CYX")
  sources, _ = listing.list_images(tmp_path / "i")
  teacher = teacher_files.TeacherFiles("masks", str(tmp_path / "t"))
  return teacher_pairs.pair_teacher(sources, teacher)


@pytest.mark.parametrize(
  "tail",
  [
    "",
    "_ilastik_s2_Probabilities",
    "_s2_Probabilities",
    "_Probabilities",
    "-probabilities",
    "_ilastik_s2",
    "_cp_masks",  # Not known, but shared by all.
  ],
)
def test_names_fit_with_ilastiks_tails(tmp_path, tail):
  images = ["a_1.ome.tiff", "a_10.tiff"]
  found, failures = pair(
    tmp_path, images, [f"a_1{tail}.tiff", f"a_10{tail}.tiff"]
  )
  assert [one.stem for one in found] == ["a_1", "a_10"]
  assert [one.teacher.stem for one in found] == [f"a_1{tail}", f"a_10{tail}"]
  assert failures == []


def test_whoever_stays_alone_is_named(tmp_path):
  found, failures = pair(
    tmp_path, ["a.tiff", "b.tiff"], ["a.tiff", "c.tiff", "a_masks.tiff"]
  )
  assert found == []
  lines = {(stem, line.split(": ")[1]) for stem, _, line in failures}
  assert {stem for stem, _ in lines} == {"a", "b", "c"}
  assert len([row for row in failures if row[0] == "a"]) == 2
  assert any("found no image c" in line for _, line in lines)
