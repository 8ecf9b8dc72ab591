import types

import annotator
import numpy as np
import pandas as pd
import pytest
import simulate_annotator as command
import tifffile

from dicexmbd_jax.io import write


def make_cells(shape):
  y, x = np.indices(shape)
  ids = 1 + (y // 12) * shape[1] + x // 12
  return np.where((y % 12 < 10) & (x % 12 < 10), ids, 0).astype(np.int32)


@pytest.fixture
def folder(tmp_path):
  """Masks of two images."""
  for stem, shape in (("a", (40, 50)), ("b", (36, 60))):
    write.write_labels(tmp_path / "masks" / f"{stem}.tiff", make_cells(shape))
  return tmp_path


def make_flags(folder, **overrides):
  flags = {
    "reference": str(folder / "masks"),
    "nuclei": None,
    "uncertainty_maps": None,
    "regions": None,
    "output": str(folder / "strokes"),
    "budget_px": 101,
    "seed": 0,
  }
  return types.SimpleNamespace(**(flags | overrides))


def read_strokes(folder, name="strokes"):
  paths = sorted((folder / name).glob("*.tiff"))
  return {path.stem: tifffile.imread(path) for path in paths}


def test_strokes_are_the_masks_classes_within_the_budget(folder):
  assert command.run(make_flags(folder)) == 0
  strokes = read_strokes(folder)
  assert [np.count_nonzero(s) for s in strokes.values()] == [51, 50]
  for drawn in strokes.values():
    classes = annotator.classify_pixels(make_cells(drawn.shape))
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[drawn > 0], classes[drawn > 0])


def test_a_second_round_adds_to_the_first(folder):
  command.run(make_flags(folder))
  first = read_strokes(folder)
  assert command.run(make_flags(folder)) == 0
  for stem, drawn in read_strokes(folder).items():
    earlier = first[stem]
    np.testing.assert_array_equal(drawn[earlier > 0], earlier[earlier > 0])
    assert np.count_nonzero(drawn) == 2 * np.count_nonzero(earlier)


def test_the_seed_decides_the_strokes(folder):
  for name, seed in (("one", 1), ("same", 1), ("two", 2)):
    output = str(folder / name)
    assert command.run(make_flags(folder, output=output, seed=seed)) == 0
  one, same, two = (read_strokes(folder, n) for n in ("one", "same", "two"))
  np.testing.assert_array_equal(one["a"], same["a"])
  assert (one["a"] != two["a"]).any()


def test_strokes_go_where_rank_sends_them(folder):
  regions = pd.DataFrame(
    {"image": ["b"], "y_px": 4, "x_px": 20, "height_px": 16, "width_px": 24}
  )
  regions.to_csv(folder / "regions.csv", index=False)
  flags = make_flags(folder, regions=str(folder / "regions.csv"))
  assert command.run(flags) == 0
  strokes = read_strokes(folder)
  assert list(strokes) == ["b"]
  assert np.count_nonzero(strokes["b"]) == 101
  assert np.count_nonzero(strokes["b"][4:20, 20:44]) == 101


@pytest.mark.parametrize("scale", [1, 2])
def test_strokes_follow_the_uncertainty_at_either_scale(folder, scale):
  for stem, shape in (("a", (40, 50)), ("b", (36, 60))):
    unsure = np.zeros((shape[0] * scale, shape[1] * scale), np.uint16)
    unsure[:, : 25 * scale] = 60000
    path = folder / "maps" / f"{stem}.tiff"
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, unsure)
  flags = make_flags(folder, uncertainty_maps=str(folder / "maps"))
  assert command.run(flags) == 0
  for drawn in read_strokes(folder).values():
    share = np.count_nonzero(drawn[:, :27]) / np.count_nonzero(drawn)
    assert share > 0.9


def test_nuclei_that_are_known_are_used(folder):
  for stem, shape in (("a", (40, 50)), ("b", (36, 60))):
    nuclei = np.zeros(shape, np.int32)
    nuclei[13:15, 13:15] = 1
    write.write_labels(folder / "nuclei" / f"{stem}.tiff", nuclei)
  flags = make_flags(folder, nuclei=str(folder / "nuclei"), budget_px=4000)
  assert command.run(flags) == 0
  for drawn in read_strokes(folder).values():
    assert np.argwhere(drawn == 1).min() >= 13
    assert np.count_nonzero(drawn == 1) == 4


def test_one_bad_mask_does_not_stop_the_others(folder, caplog):
  (folder / "masks" / "a.tiff").write_bytes(b"no TIFF")
  assert command.run(make_flags(folder)) == 1
  assert list(read_strokes(folder)) == ["b"]
  assert "a.tiff: found" in caplog.text


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"budget_px": -1}, "--budget_px: found -1"),
    ({"seed": -2}, "--seed: found -2"),
    ({"reference": "nowhere"}, "found no such file or folder"),
    ({"regions": "nowhere.csv"}, "nowhere.csv: found"),
  ],
)
def test_wrong_calls_are_refused(folder, overrides, message, caplog):
  assert command.run(make_flags(folder, **overrides)) == 2
  assert message in caplog.text
  assert not (folder / "strokes").exists()


def test_files_that_do_not_fit_are_named(folder, caplog):
  (folder / "strokes").mkdir()
  tifffile.imwrite(
    folder / "strokes" / "a.tiff", np.full((40, 50), 7, np.uint8)
  )
  tifffile.imwrite(folder / "strokes" / "b.tiff", np.zeros((3, 5), np.uint8))
  assert command.run(make_flags(folder)) == 1
  assert "a.tiff: found the label 7" in caplog.text
  assert "found an annotation of (3, 5)" in caplog.text
