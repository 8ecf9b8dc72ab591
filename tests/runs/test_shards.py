"""`predict --shard` and `--merge`: many processes, one output folder."""

import json
import subprocess
import sys
import zipfile

import anndata
import mcd_files
import numpy as np
import pandas as pd
import pytest
import tifffile

from dicexmbd_jax import __main__ as program
from dicexmbd_jax.io import listing, write
from dicexmbd_jax.io import source as source_lib
from dicexmbd_jax.runs import shards, state
from dicexmbd_jax.types import ImageSource

NAMES = ("DNA1_Ir191", "CD45_Sm152")
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Ir191,DNA1_Ir191,1,1,0
Sm152,CD45_Sm152,1,0,1
"""
NUM_IMAGES = 8
# Of a whole run and of merged shares alike; run.json and report.html tell
# times.
TABLES = ("images.csv", "failures.csv")


@pytest.fixture
def study(tmp_path):
  """Eight images of 36 round cells, one file that is no image, a panel."""
  y, x = np.mgrid[:60, :60]
  distance = np.hypot(y % 10 - 4.5, x % 10 - 4.5)
  means = np.stack([20 * (distance < 3), 8 * (abs(distance - 4) < 1)], -1)
  for i in range(NUM_IMAGES):
    counts = np.random.default_rng(i).poisson(means).astype(np.float32)
    write.write_stack(tmp_path / f"study/ROI{i}.ome.tiff", counts, NAMES)
  (tmp_path / "study/BAD.tiff").write_text("this is no image")
  (tmp_path / "panel.csv").write_text(PANEL)
  return tmp_path


def list_words(study, output, *more):
  return [
    "predict",
    f"--images={study / 'study'}",
    f"--output={study / output}",
    "--num_workers=0",
    "--config.predict.tile_px=208",
    *more,
  ]


def call(study, *more, output="out"):
  words = list_words(study, output, f"--panel={study / 'panel.csv'}")
  return program.main([*words, *more])


def find_share(study, stem, count):
  """Returns the share that an image of the study falls into."""
  sources, _ = listing.list_stacks(study / "study", None)
  return shards.assign_shares(sources, count)[stem]


def merge(study, *more, output="out"):
  images, folder = study / "study", study / output
  return program.main(
    ["predict", "--merge", f"--images={images}", f"--output={folder}", *more]
  )


def read_files(folder):
  """Returns what all files of the images hold; times are left out."""
  found = {}
  for path in sorted(folder.glob("*/*")):
    name = path.relative_to(folder).as_posix()
    if path.suffix == ".tiff":
      found[name] = tifffile.imread(path).tobytes()
    elif path.parent.name not in ("state", "shards"):
      found[name] = path.read_bytes()
  return found


def assert_same_cells(path, other):
  found, wanted = anndata.read_h5ad(path), anndata.read_h5ad(other)
  np.testing.assert_array_equal(found.X, wanted.X)
  pd.testing.assert_frame_equal(found.obs, wanted.obs)
  pd.testing.assert_frame_equal(found.var, wanted.var)
  for name in wanted.obsm:
    np.testing.assert_array_equal(found.obsm[name], wanted.obsm[name])
  assert list(found.obsp) == list(wanted.obsp)
  for name in wanted.obsp:
    assert (found.obsp[name] != wanted.obsp[name]).nnz == 0


def assert_same_run(out, whole):
  assert read_files(out) == read_files(whole)
  for name in TABLES:
    assert (out / name).read_bytes() == (whole / name).read_bytes()
  assert_same_cells(out / "cells.h5ad", whole / "cells.h5ad")
  found, wanted = (
    json.loads((folder / "run.json").read_text()) for folder in (out, whole)
  )
  for name in ("num_images", "num_failed", "config", "model", "hashes"):
    assert found[name] == wanted[name], name


def test_four_shares_one_lost_and_repeated_make_what_one_run_makes(
  study, caplog
):
  caplog.set_level("INFO")
  assert call(study, output="whole") == 1
  lost = find_share(study, "ROI0", 4)
  codes = {i: call(study, f"--shard={i}/4") for i in range(4) if i != lost}
  bad = find_share(study, "BAD", 4)
  assert codes == {i: int(i == bad) for i in codes}
  out = study / "out"
  assert not (out / "run.json").exists()

  caplog.clear()
  assert merge(study) == 1
  missing = [
    f"ROI{i}"
    for i in range(NUM_IMAGES)
    if find_share(study, f"ROI{i}", 4) == lost
  ]
  rows = pd.read_csv(out / "failures.csv")
  rows = rows[rows["error"].str.contains("found no result")]
  assert set(rows["image"]) == {*missing, *(["BAD"] if bad == lost else [])}
  assert all(f"--shard={lost}/4" in error for error in rows["error"])
  assert f"run again: --shard={lost}/4" in caplog.text
  images = pd.read_csv(out / "images.csv")
  assert len(images) == NUM_IMAGES - len(missing)
  assert json.loads((out / "run.json").read_text())["num_missing"] == len(rows)

  call(study, f"--shard={lost}/4")
  assert merge(study) == 1  # BAD has failed; nothing is missing.
  run = json.loads((out / "run.json").read_text())
  assert run["num_missing"] == 0
  assert len(run["shards"]) == 4
  assert_same_run(out, study / "whole")
  assert "ROI7" in (out / "report.html").read_text()

  (study / "study/BAD.tiff").unlink()
  assert merge(study) == 0


def test_a_share_that_was_killed_is_missing_until_it_is_repeated(study):
  (study / "study/BAD.tiff").unlink()
  assert [call(study, f"--shard={i}/2") for i in range(2)] == [0, 0]
  share = find_share(study, "ROI3", 2)
  path = study / f"out/shards/{share}-of-2.json"
  record = state.read_sealed(path)
  state.write_sealed(path, {**record, "state": "running"})
  (study / "out/state/ROI3.json").unlink()
  assert merge(study) == 1
  assert pd.read_csv(study / "out/failures.csv")["image"].tolist() == ["ROI3"]
  assert call(study, f"--shard={share}/2") == 0
  assert merge(study) == 0


def test_a_damaged_record_is_refused_in_one_line(study, caplog):
  assert call(study, "--method=distance", "--shard=0/1") == 1
  path = study / "out/shards/0-of-1.json"
  path.write_bytes(path.read_bytes()[:40])
  assert merge(study) == 2
  assert caplog.messages[-1].startswith(f"{path}: found no record of a share")


def test_shares_work_at_the_same_time_in_processes_of_their_own(study):
  (study / "study/BAD.tiff").unlink()
  words = list_words(
    study, "out", f"--panel={study / 'panel.csv'}", "--method=distance"
  )
  processes = [
    subprocess.Popen(
      [sys.executable, "-m", "dicexmbd_jax", *words, f"--shard={i}/2"]
    )
    for i in range(2)
  ]
  assert [process.wait() for process in processes] == [0, 0]
  assert merge(study) == 0
  assert call(study, "--method=distance", output="whole") == 0
  assert_same_run(study / "out", study / "whole")


def test_results_of_another_configuration_are_missing(study):
  (study / "study/BAD.tiff").unlink()
  share = find_share(study, "ROI0", 2)
  words = "--method=distance", f"--shard={1 - share}/2"
  assert call(study, *words) == 0
  words = "--method=distance", f"--shard={share}/2"
  assert call(study, *words, "--config.segment.scale=1") == 0
  assert merge(study) == 1
  rows = pd.read_csv(study / "out/failures.csv")
  assert set(rows["image"]) == {
    f"ROI{i}"
    for i in range(NUM_IMAGES)
    if find_share(study, f"ROI{i}", 2) != share
  }
  assert rows["error"].str.contains("found a result of another config").all()


def test_a_share_without_images_is_done(study):
  assert call(study, "--method=distance", "--shard=999/1000") == 0
  record = json.loads((study / "out/shards/999-of-1000.json").read_text())
  assert record["num_images"] == 0


def test_a_share_whose_images_all_failed_is_enough_if_failures_are_allowed(
  study,
):
  share = find_share(study, "BAD", NUM_IMAGES + 1)
  words = "--method=distance", f"--shard={share}/{NUM_IMAGES + 1}"
  assert call(study, *words) == 1
  assert call(study, *words, "--allow_failures") == 0
  images = ["--allow_failures", f"--images={study / 'study/BAD.tiff'}"]
  assert merge(study, *images) == 1  # None is done.


def make_files(folder, sizes, suffix=".tiff"):
  """Makes a file of each size in bytes; returns the images that they are."""
  folder.mkdir(parents=True)
  for number, size in enumerate(sizes):
    with (folder / f"ROI{number}{suffix}").open("wb") as file:
      file.truncate(size)
  return listing.list_images(folder)[0]


def count_shares(sources, count):
  return np.bincount(
    list(shards.assign_shares(sources, count).values()), minlength=count
  )


def test_images_of_one_size_make_shares_of_one_size(tmp_path):
  sources = make_files(tmp_path / "a", [100] * 17)
  np.testing.assert_array_equal(count_shares(sources, 3), [6, 6, 5])
  np.testing.assert_array_equal(count_shares(sources, 17), 1)
  assert count_shares(sources, 20).max() == 1


def test_shares_have_nearly_as_many_bytes_each(tmp_path):
  sizes = np.random.default_rng(0).lognormal(8, 1, 100).astype(int)
  sources = make_files(tmp_path / "a", sizes)
  found = shards.assign_shares(sources, 7)
  num_bytes = np.zeros(7)
  for number, size in enumerate(sizes):
    num_bytes[found[f"ROI{number}"]] += size
  # What the greedy rule promises: the last image of the fullest share was put
  # where the fewest bytes were.
  assert num_bytes.max() - num_bytes.min() <= sizes.max()
  assert num_bytes.max() < 1.05 * num_bytes.mean()


def test_the_largest_images_do_not_share_a_share(tmp_path):
  sources = make_files(tmp_path / "a", [1000, 10, 1000, 10, 10, 10])
  found = shards.assign_shares(sources, 2)
  assert found == {"ROI0": 0, "ROI2": 1, "ROI1": 0, "ROI3": 1, "ROI4": 0,
                   "ROI5": 1}  # fmt: skip


def test_shares_depend_neither_on_the_place_nor_on_the_order(tmp_path):
  sizes = [5, 7, 7, 100, 3, 0]
  found = shards.assign_shares(make_files(tmp_path / "a", sizes), 3)
  other = make_files(tmp_path / "b/c", sizes)
  assert shards.assign_shares(other[::-1], 3) == found
  selected = [shards.Shard(i, 3).select(other) for i in range(3)]
  stems = sorted(one.stem for share in selected for one in share)
  assert stems == sorted(found)


def test_members_and_acquisitions_count_by_their_own_bytes(tmp_path):
  with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
    for name, size in (("large", 5000), ("small", 50)):
      file.writestr(f"{name}.tiff", bytes(size))
  sources, _ = listing.list_images(tmp_path / "a.zip")
  assert [source_lib.measure_source(one) for one in sources] == [5000, 50]
  blocks = [
    mcd_files.make_block(np.ones((edge, edge, 2), np.float32))
    for edge in (4, 8)
  ]
  mcd_files.write_mcd(tmp_path / "b.mcd", blocks)
  sources, _ = listing.list_images(tmp_path / "b.mcd")
  # X, Y, Z and two channels of four bytes a pixel.
  found = [source_lib.measure_source(one) for one in sources]
  assert found == [16 * 5 * 4, 64 * 5 * 4]


def test_a_file_that_is_gone_counts_as_empty(tmp_path):
  gone = ImageSource("gone", tmp_path / "gone.tiff")
  assert source_lib.measure_source(gone) == 0
  assert shards.assign_shares([gone], 3) == {"gone": 0}


@pytest.mark.parametrize(
  "text", ["", "3", "16/16", "-1/4", "1/0", "0/0", "1/2/3", "a/4", "1.0/4"]
)
def test_shares_that_cannot_be_are_refused_in_one_line(study, caplog, text):
  assert call(study, f"--shard={text}") == 2
  [line] = [record.getMessage() for record in caplog.records]
  assert "--shard" in line
  assert repr(text) in line
  assert not (study / "out").exists()


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ([], "found no shares"),
    (["--shard=0/2"], "found --shard beside it"),
  ],
)
def test_merging_what_is_not_there_is_refused(study, caplog, words, message):
  assert merge(study, *words) == 2
  assert message in caplog.text
  assert not (study / "out").exists()


def test_merging_with_another_panel_is_refused(study, caplog):
  assert call(study, "--method=distance", "--shard=0/1") == 1
  assert merge(study, f"--panel={study / 'panel.csv'}") == 1
  other = study / "other.csv"
  other.write_text(PANEL + "\n")
  assert merge(study, f"--panel={other}") == 2
  assert "found another panel" in caplog.text
