import dataclasses

import numpy as np
import pytest

from dicexmbd_jax.teach import features, teacher_folder
from dicexmbd_jax.teach.forest import fit_forest
from dicexmbd_jax.teach.teacher import (
  Teacher,
  View,
  classify_planes,
  gather_rows,
)

SELECTION = features.list_features((1.0, 3.5))


def make_planes(shape=(90, 113), seed=0):
  generator = np.random.default_rng(seed)
  return generator.gamma(1.0, 20.0, (*shape, 2)).astype(np.float32)


def make_strokes(shape=(90, 113)):
  strokes = np.zeros(shape, np.int32)
  strokes[2, 5:40] = 1
  strokes[50, 60:100] = 2
  strokes[-1, -30:] = 3
  return strokes


@pytest.fixture(scope="module")
def teacher():
  planes = make_planes()
  rows, labels = gather_rows(planes, make_strokes(), SELECTION)
  view = View("all", (), 2, 1, {})
  return Teacher(view, SELECTION, fit_forest(rows, labels, 0), {"seed": 0})


def test_rows_are_the_features_of_the_strokes():
  planes, strokes = make_planes(), make_strokes()
  rows, labels = gather_rows(planes, strokes, SELECTION)
  everything = features.compute_features(planes, SELECTION)
  np.testing.assert_array_equal(rows, everything[strokes > 0])
  np.testing.assert_array_equal(labels, strokes[strokes > 0])


@pytest.mark.parametrize("block_px", [16, 37, 64])
def test_blocks_do_not_change_the_result(teacher, block_px):
  planes = make_planes(seed=1)
  whole, parts = (
    classify_planes(planes, teacher.selection, teacher.forest, edge)
    for edge in (1000, block_px)
  )
  np.testing.assert_array_equal(parts, whole)


def test_strokes_of_another_size():
  with pytest.raises(ValueError, match="found an annotation of \\(90, 113\\)"):
    gather_rows(make_planes((90, 112)), make_strokes(), SELECTION)


def test_a_folder_keeps_the_teacher(teacher, tmp_path):
  teacher_folder.write_teacher(tmp_path / "a", teacher)
  found = teacher_folder.read_teacher(tmp_path / "a")
  assert found.view == teacher.view
  assert found.selection == teacher.selection
  planes = make_planes((20, 20), 2)
  maps = [
    classify_planes(planes, one.selection, one.forest)
    for one in (teacher, found)
  ]
  np.testing.assert_array_equal(*maps)
  teacher_folder.write_teacher(tmp_path / "b", found)
  for name in ("teacher.json", "forest.npz"):
    first, second = ((tmp_path / k / name).read_bytes() for k in "ab")
    assert first == second


def test_broken_folders(teacher, tmp_path):
  with pytest.raises(ValueError, match="teacher.json: found No such file"):
    teacher_folder.read_teacher(tmp_path / "none")
  teacher_folder.write_teacher(tmp_path, teacher)
  (tmp_path / "forest.npz").write_bytes(b"PK")
  with pytest.raises(ValueError, match="forest.npz: found .*teach fit"):
    teacher_folder.read_teacher(tmp_path)
  (tmp_path / "teacher.json").write_text("[]")
  with pytest.raises(ValueError, match="teacher.json: found a list"):
    teacher_folder.read_teacher(tmp_path)


@pytest.mark.parametrize("name", ["schema", "view", "features", "num_columns"])
def test_settings_that_are_missing(teacher, name):
  settings, arrays = teacher_folder.pack_teacher(teacher)
  del settings[name]
  with pytest.raises(ValueError, match="found"):
    teacher_folder.unpack_teacher(settings, arrays)


def test_forests_that_could_not_be_walked(teacher):
  settings, arrays = teacher_folder.pack_teacher(teacher)
  loop = np.where(arrays["children"] > 0, 0, arrays["children"])
  beyond = arrays["columns"] + teacher.forest.num_columns
  for changed in ({"children": loop}, {"columns": beyond}):
    with pytest.raises(ValueError, match="does not fit"):
      teacher_folder.unpack_teacher(settings, arrays | changed)
  view = dataclasses.replace(teacher.view, num_channels=3)
  with pytest.raises(ValueError, match="does not fit"):
    teacher_folder.check_teacher(dataclasses.replace(teacher, view=view))
