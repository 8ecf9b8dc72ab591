"""The study on disk, and the command that writes it."""

import csv
import types

import numpy as np
import pytest
import tifffile

from dicexmbd_jax.commands import simulate as command
from dicexmbd_jax.simulate import study

NAMES = ["ROI001.tiff", "ROI002.tiff"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("study")
  for _ in study.simulate_study(path, num_images=2, seed=5, size_px=60):
    pass
  return path


def read_files(folder):
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


def test_writes_stacks_panel_and_truth_only(folder):
  expected = {"panel.csv"}
  for part in ("img", "truth/masks", "truth/nuclei"):
    expected |= {f"{part}/{name}" for name in NAMES}
  assert set(read_files(folder)) == expected


def test_panel_rows_are_the_stacks_channels(folder):
  with (folder / "panel.csv").open() as file:
    rows = list(csv.DictReader(file))
  columns = ["channel", "name", "keep", "nuclear", "membrane_cytoplasm"]
  assert list(rows[0]) == columns
  for name in NAMES:
    with tifffile.TiffFile(folder / "img" / name) as file:
      assert file.series[0].axes == "CYX"
      assert file.series[0].shape == (len(rows), 60, 60)
      assert file.series[0].dtype == np.uint16
      for row in rows:
        assert f'Name="{row["channel"]}' in file.ome_metadata
  assert sum(int(row["nuclear"]) for row in rows) >= 2
  assert any(row["keep"] == "0" for row in rows)


def test_truth_fits_the_stacks_and_itself(folder):
  for name in NAMES:
    masks = tifffile.imread(folder / "truth" / "masks" / name)
    nuclei = tifffile.imread(folder / "truth" / "nuclei" / name)
    assert masks.shape == nuclei.shape == (60, 60)
    assert masks.dtype == nuclei.dtype == np.uint16
    assert (masks[nuclei > 0] == nuclei[nuclei > 0]).all()
    assert masks.max() > 0


def test_images_of_a_study_differ(folder):
  first, second = (
    tifffile.imread(folder / "truth" / "masks" / name) for name in NAMES
  )
  assert not np.array_equal(first, second)


def test_an_image_depends_on_seed_and_index_alone(folder, tmp_path):
  list(study.simulate_study(tmp_path, num_images=1, seed=5, size_px=60))
  short, long = read_files(tmp_path), read_files(folder)
  for name in ("panel.csv", "truth/masks/ROI001.tiff"):
    assert short[name] == long[name]
  planes = [tifffile.imread(f / "img" / NAMES[0]) for f in (tmp_path, folder)]
  np.testing.assert_array_equal(*planes)


def test_another_seed_is_another_study(folder, tmp_path):
  list(study.simulate_study(tmp_path, num_images=1, seed=6, size_px=60))
  assert read_files(tmp_path)["panel.csv"] != read_files(folder)["panel.csv"]
  first, second = (
    tifffile.imread(f / "truth" / "masks" / NAMES[0])
    for f in (tmp_path, folder)
  )
  assert not np.array_equal(first, second)


@pytest.mark.parametrize("wrong", ["num_images", "seed", "size_px"])
def test_refuses_arguments_out_of_range(tmp_path, wrong):
  arguments = {"num_images": 1, "seed": 0, "size_px": 20, wrong: -1}
  with pytest.raises(ValueError, match=f"{wrong}: found -1, expected at least"):
    list(study.simulate_study(tmp_path / "new", **arguments))
  assert not (tmp_path / "new").exists()


def make_flags(output, **changes):
  values = {"num_images": 1, "seed": 0, "size_px": 24, **changes}
  return types.SimpleNamespace(output=str(output), **values)


def test_command_writes_and_writes_again(tmp_path):
  output = tmp_path / "deep" / "study"
  assert command.run(make_flags(output)) == 0
  stack = output / "img" / "ROI001.tiff"
  wanted = tifffile.imread(stack)
  stack.write_bytes(b"cut off")
  assert command.run(make_flags(output)) == 0
  np.testing.assert_array_equal(tifffile.imread(stack), wanted)


@pytest.mark.parametrize("name", ["panel.csv", "img/ROI001.tiff"])
def test_a_study_of_somebody_is_left_alone(tmp_path, name, caplog):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_text("mine")
  assert command.run(make_flags(tmp_path)) == 2
  (record,) = caplog.records
  assert "and no truth/, so not a simulated study" in record.getMessage()
  assert path.read_text() == "mine"
  assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_a_study_of_another_seed_is_left_alone(tmp_path, caplog):
  assert command.run(make_flags(tmp_path)) == 0
  before = read_files(tmp_path)
  assert command.run(make_flags(tmp_path, seed=1)) == 2
  assert "panel.csv of another seed, expected a new" in caplog.text
  assert read_files(tmp_path) == before


def test_command_names_an_output_it_cannot_write(tmp_path, caplog):
  (tmp_path / "file").write_text("in the way")
  assert command.run(make_flags(tmp_path / "file" / "study")) == 2
  (record,) = caplog.records
  assert "file" in record.getMessage()
  assert "expected a folder to write to" in record.getMessage()


def test_command_names_a_flag_out_of_range(tmp_path, caplog):
  assert command.run(make_flags(tmp_path, num_images=0)) == 2
  (record,) = caplog.records
  assert record.getMessage() == (
    "simulate: --num_images: found 0, expected at least 1"
  )
