"""`--merge` of shares that worked in folders of their own."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile

from dicexmbd_jax import __main__ as program
from dicexmbd_jax.io import listing, source, write
from dicexmbd_jax.runs import gather, shards, state

STEMS = ["ROI0", "ROI1", "ROI2", "ROI3"]
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Ir191,DNA1_Ir191,1,1,0
Sm152,CD45_Sm152,1,0,1
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """Images, a panel, and the two shares of them, each in its own folder."""
  root = tmp_path_factory.mktemp("gather")
  y, x = np.mgrid[:40, :40]
  distance = np.hypot(y % 10 - 4.5, x % 10 - 4.5)
  means = np.stack([20 * (distance < 3), 8 * (abs(distance - 4) < 1)], -1)
  for number, stem in enumerate(STEMS):
    counts = np.random.default_rng(number).poisson(means).astype(np.float32)
    names = ("DNA1_Ir191", "CD45_Sm152")
    write.write_stack(root / f"img/{stem}.ome.tiff", counts, names)
  (root / "panel.csv").write_text(PANEL)
  for index in range(2):
    folder = root / f"shares/{index}"
    assert predict(root, folder, f"--shard={index}/2") == 0
  assert predict(root, root / "whole") == 0
  return root


@pytest.fixture
def study(shared, tmp_path):
  shutil.copytree(shared, tmp_path / "study")
  return tmp_path / "study"


def predict(root, output, *more, images="img"):
  words = [f"--images={root / images}", f"--panel={root / 'panel.csv'}"]
  words += ["--method=distance", "--num_workers=0", f"--output={output}"]
  return program.main(["predict", *words, *more])


def merge(root, output, *shares, more=()):
  words = [f"--images={root / 'img'}", f"--output={output}", *more]
  words += [f"--shares={share}" for share in shares]
  return program.main(["predict", "--merge", *words])


def export_again(root, stem, edge_px):
  """Replaces an image by one of other tissue: its cells are twice as wide."""
  y, x = np.mgrid[:edge_px, :edge_px]
  distance = np.hypot(y % 20 - 9.5, x % 20 - 9.5)
  means = np.stack([20 * (distance < 3), 8 * (abs(distance - 4) < 1)], -1)
  counts = np.random.default_rng(9).poisson(means).astype(np.float32)
  names = ("DNA1_Ir191", "CD45_Sm152")
  write.write_stack(root / f"img/{stem}.ome.tiff", counts, names)


def find_share(root, stem):
  """Returns which of two shares has an image now."""
  sources, _ = listing.list_images(root / "img")
  return shards.assign_shares(sources, 2)[stem]


def count_cells(output):
  table = pd.read_csv(output / "images.csv")
  stems = table["image"].str.partition(".")[0]
  return dict(zip(stems, table["num_cells"], strict=True))


def list_stems(share):
  """Returns the images that a share's folder has."""
  return sorted(path.stem for path in (share / "masks").iterdir())


def check_whole(root, output):
  """Asserts that a folder has what one run writes."""
  tables = ["images.csv", "failures.csv"]
  tables += [f"intensities/{stem}.csv" for stem in STEMS]
  for name in tables:
    found, wanted = (folder / name for folder in (output, root / "whole"))
    assert found.read_bytes() == wanted.read_bytes(), name
  for stem in STEMS:
    found, wanted = (
      tifffile.imread(folder / f"masks/{stem}.tiff")
      for folder in (output, root / "whole")
    )
    np.testing.assert_array_equal(found, wanted)
  record = json.loads((output / "run.json").read_text())
  assert record["num_images"] == len(STEMS)
  assert record["num_missing"] == 0
  return record


def test_several_folders_make_what_one_run_makes(study):
  folders = [study / "shares/0", study / "shares/1"]
  assert merge(study, study / "out", *folders) == 0
  record = check_whole(study, study / "out")
  told = [(one["folder"], one["shard"]) for one in record["shards"]]
  assert told == [
    (str(folders[0]), "0/2"), (str(folders[1]), "1/2")
  ]  # fmt: skip
  # Again, when all is there; and without the shares' own files.
  assert merge(study, study / "out", *folders) == 0
  for folder in folders:
    shutil.rmtree(folder / "masks")
  assert merge(study, study / "out", *folders) == 0
  check_whole(study, study / "out")


def test_a_folder_of_folders_or_links_stands_for_these(study):
  (study / "links").mkdir()
  for index in range(2):
    (study / f"links/x{index}").symlink_to(study / f"shares/{index}")
  assert merge(study, study / "out", study / "links") == 0
  check_whole(study, study / "out")
  assert merge(study, study / "shares") == 0  # The output has them itself.
  check_whole(study, study / "shares")


def test_shares_copied_over_one_another_are_one_output(study):
  for index in range(2):
    shutil.copytree(
      study / f"shares/{index}", study / "out", dirs_exist_ok=True
    )
  assert merge(study, study / "out") == 0
  check_whole(study, study / "out")


def test_batches_of_files_are_shares_of_their_own(study):
  for number, stem in enumerate(STEMS):
    folder = study / f"batch{number}"
    folder.mkdir()
    (folder / f"{stem}.ome.tiff").symlink_to(study / f"img/{stem}.ome.tiff")
    output = study / f"batches/{number}"
    words = {"images": folder.name}
    assert predict(study, output, "--shard=0/1", **words) == 0
  assert merge(study, study / "out", study / "batches") == 0
  assert len(check_whole(study, study / "out")["shards"]) == len(STEMS)


def test_a_lost_folder_and_damage_are_missing_and_told(study, caplog):
  assert merge(study, study / "out", study / "shares/1") == 1
  assert "2 images are missing; run again: --shard=0/2" in caplog.text
  stem = list_stems(study / "shares/0")[0]
  mask = study / f"shares/0/masks/{stem}.tiff"
  mask.write_bytes(mask.read_bytes()[:-10])
  allow = ["--allow_failures"]  # Missing is more than failed.
  assert merge(study, study / "out", study / "shares", more=allow) == 1
  rows = pd.read_csv(study / "out/failures.csv")
  assert rows["image"].tolist() == [stem]
  assert "found a result with damaged masks" in rows["error"][0]
  # A second try of the share, in another folder.
  assert predict(study, study / "again", "--shard=0/2") == 0
  folders = [study / "shares", study / "again"]
  assert merge(study, study / "out", *folders) == 0
  check_whole(study, study / "out")


def test_an_image_that_failed_is_allowed_if_it_is_asked_for(study):
  bad = study / "img/BAD.tiff"
  bad.write_bytes((study / "img/ROI0.ome.tiff").read_bytes()[:300])
  for index in range(2):
    output = study / f"new/{index}"
    words = f"--shard={index}/2", "--allow_failures"
    assert predict(study, output, *words) == 0
  assert merge(study, study / "out", study / "new") == 1
  more = ["--allow_failures"]
  assert merge(study, study / "out", study / "new", more=more) == 0
  rows = pd.read_csv(study / "out/failures.csv")
  assert rows["image"].tolist() == ["BAD"]
  assert len(pd.read_csv(study / "out/images.csv")) == len(STEMS)


def test_a_second_merge_takes_what_the_shares_made_of_a_new_image(study):
  assert merge(study, study / "out", study / "shares") == 0
  assert count_cells(study / "out")["ROI1"] == 16
  export_again(study, "ROI1", 40)
  for index in range(2):
    assert predict(study, study / f"shares/{index}", f"--shard={index}/2") == 0
  assert merge(study, study / "out", study / "shares") == 0
  assert merge(study, study / "new", study / "shares") == 0
  assert count_cells(study / "out") == count_cells(study / "new")
  assert count_cells(study / "out")["ROI1"] == 4
  for kind, suffix in (("masks", ".tiff"), ("intensities", ".csv")):
    found, wanted = (
      study / folder / kind / f"ROI1{suffix}" for folder in ("out", "new")
    )
    assert found.read_bytes() == wanted.read_bytes()
  # Nothing is new: the files stay. What a lost folder had is there already.
  before = (study / "out/masks/ROI1.tiff").stat()
  assert merge(study, study / "out", study / "shares") == 0
  assert (study / "out/masks/ROI1.tiff").stat().st_ino == before.st_ino
  shutil.rmtree(study / f"shares/{find_share(study, 'ROI1')}")
  assert merge(study, study / "out", study / "shares") == 0
  assert count_cells(study / "out") == count_cells(study / "new")


def test_an_image_replaced_since_its_share_was_done_is_missing(study, caplog):
  assert merge(study, study / "out", study / "shares") == 0
  before = find_share(study, "ROI1")
  path = study / "img/ROI1.ome.tiff"
  content = path.read_bytes()
  path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # Of one size.
  assert find_share(study, "ROI1") == before
  for output in ("out", "new"):
    caplog.clear()
    assert merge(study, study / output, study / "shares") == 1
    assert "found a result of another image" in caplog.text
    assert f"run again: --shard={before}/2" in caplog.text
    assert "ROI1" not in count_cells(study / output)


def test_images_older_than_their_results_are_not_read(study, monkeypatch):
  def refuse(one):
    raise AssertionError(f"{one.path} is read")

  monkeypatch.setattr(source, "hash_source", refuse)
  for path in (study / "shares").rglob("state/*.json"):
    path.touch()  # The study is a copy, newer than what it is a copy of.
  assert merge(study, study / "out", study / "shares") == 0


@pytest.mark.parametrize("edge_px", [40, 120])
def test_a_new_image_is_the_one_that_its_share_has_now(study, edge_px):
  before = find_share(study, "ROI1")
  export_again(study, "ROI1", edge_px)
  now = find_share(study, "ROI1")
  assert now != before  # Of another size; its old share is run last.
  for index in (now, 1 - now):
    assert predict(study, study / f"shares/{index}", f"--shard={index}/2") == 0
  assert merge(study, study / "out", study / "shares") == 0
  assert count_cells(study / "out")["ROI1"] == (edge_px // 20) ** 2


@pytest.mark.parametrize("is_apart", [True, False])
def test_an_image_that_fails_now_is_not_taken_from_an_earlier_merge(
  study, is_apart
):
  out = study / "out"
  folders = [study / f"shares/{i}" if is_apart else out for i in range(2)]
  for index, folder in enumerate(folders):
    assert predict(study, folder, f"--shard={index}/2") == 0
  assert merge(study, out, *folders) == 0
  path = study / "img/ROI1.ome.tiff"
  path.write_bytes(path.read_bytes()[:700])
  codes = [
    predict(study, folder, f"--shard={index}/2")
    for index, folder in enumerate(folders)
  ]
  assert sorted(codes) == [0, 1]
  assert merge(study, out, *folders) == 1
  rows = pd.read_csv(out / "failures.csv")
  assert rows["image"].tolist() == ["ROI1"]
  assert "truncated" in rows["error"][0]
  assert "ROI1" not in count_cells(out)
  assert not (out / "masks/ROI1.tiff").exists()
  # It is whole again.
  export_again(study, "ROI1", 40)
  for index, folder in enumerate(folders):
    assert predict(study, folder, f"--shard={index}/2") == 0
  assert merge(study, out, *folders) == 0
  assert count_cells(out)["ROI1"] == 4


def test_files_are_copied_where_there_are_no_links(study, monkeypatch):
  def refuse(*args):
    raise OSError(18, "Invalid cross-device link")

  monkeypatch.setattr(os, "link", refuse)
  assert merge(study, study / "out", study / "shares") == 0
  check_whole(study, study / "out")


def test_files_are_linked_where_they_can_be(study):
  assert merge(study, study / "out", study / "shares") == 0
  assert (study / "out/masks/ROI0.tiff").stat().st_nlink == 2
  link = study / "link"
  link.symlink_to(study / "out/masks/ROI0.tiff")
  gather.link_file(link, study / "other")
  assert not (study / "other").is_symlink()


def test_a_merge_keeps_no_maps_of_another_method(study):
  for stem in STEMS:  # As a merge of shares with a network left them.
    write.write_text(study / f"out/probabilities/{stem}.tiff", "maps")
    write.write_text(study / f"out/state/{stem}.json", "{}")
  assert merge(study, study / "out", study / "shares") == 0
  assert not list((study / "out/probabilities").iterdir())
  assert len(list((study / "out/masks").iterdir())) == len(STEMS)


@pytest.mark.parametrize(
  ("shares", "message"),
  [("img", "img: found no shares"), ("nowhere", "nowhere: found no shares")],
)
def test_folders_without_shares_are_refused(study, caplog, shares, message):
  assert merge(study, study / "out", study / shares) == 2
  assert caplog.messages[-1].startswith(str(study / message))
  assert not (study / "out").exists()


def test_another_programs_output_is_not_written_over(study, caplog):
  write.write_text(study / "out/masks/ROI0.tiff", "CellProfiler's")
  assert merge(study, study / "out", study / "shares") == 2
  assert "of another program" in caplog.text


def list_segment(root, output, *more):
  words = [f"--probabilities={root / 'maps'}", f"--output={output}"]
  return program.main(["segment", "--num_workers=0", *words, *more])


@pytest.fixture
def maps(study):
  random = np.random.default_rng(0)
  for stem in STEMS:
    values = random.dirichlet([1, 1, 1], (32, 32)).astype(np.float32)
    folder = study / "maps"
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(
      folder / f"{stem}.tiff",
      np.moveaxis(values, -1, 0),
      photometric="minisblack",
    )
  return study


def test_segment_has_shares_and_merges_them(maps, caplog):
  assert list_segment(maps, maps / "all", "--confidence") == 0
  for index in range(2):
    output = maps / f"parts/{index}"
    assert list_segment(maps, output, "--confidence", f"--shard={index}/2") == 0
    assert len(list((output / "masks").iterdir())) == 2
    assert not (output / "failures.csv").exists()
  out = maps / "joined"
  words = "--merge", f"--shares={maps / 'parts'}"
  assert list_segment(maps, out, *words) == 0
  for kind in ("masks", "nuclei", "confidence"):
    paths = sorted((maps / "all" / kind).iterdir())
    assert len(paths) == len(STEMS)
    for path in paths:
      assert (out / kind / path.name).read_bytes() == path.read_bytes()
  stem = list_stems(maps / "parts/1")[0]
  (maps / f"parts/1/state/{stem}.json").unlink()
  shutil.rmtree(out)
  assert list_segment(maps, out, *words, "--allow_failures") == 1
  assert "run again: --shard=1/2" in caplog.text
  assert pd.read_csv(out / "failures.csv")["image"].tolist() == [stem]


def test_a_second_merge_of_segment_takes_new_maps_and_tells_failures(maps):
  words = "--merge", f"--shares={maps / 'parts'}"
  path = maps / "maps/ROI2.tiff"

  def segment_shares():
    return [
      list_segment(maps, maps / f"parts/{index}", f"--shard={index}/2")
      for index in range(2)
    ]

  assert segment_shares() == [0, 0]
  assert list_segment(maps, maps / "joined", *words) == 0
  path.write_bytes((maps / "maps/ROI3.tiff").read_bytes())
  assert segment_shares() == [0, 0]
  assert list_segment(maps, maps / "joined", *words) == 0
  found, wanted = (maps / f"joined/masks/ROI{k}.tiff" for k in (2, 3))
  assert found.read_bytes() == wanted.read_bytes()
  path.write_bytes(path.read_bytes()[:500])
  assert sorted(segment_shares()) == [0, 1]
  assert list_segment(maps, maps / "joined", *words) == 1
  rows = pd.read_csv(maps / "joined/failures.csv")
  assert rows["image"].tolist() == ["ROI2"]


def test_a_merge_keeps_no_confidence_of_other_cells(maps):
  words = "--merge", f"--shares={maps / 'parts'}"
  for more, count in (("--confidence",), len(STEMS)), ((), 0):
    for index in range(2):
      output = maps / f"parts/{index}"
      assert list_segment(maps, output, f"--shard={index}/2", *more) == 0
    assert list_segment(maps, maps / "joined", *words) == 0
    assert len(list((maps / "joined/confidence").iterdir())) == count


def test_segment_tells_failures_of_shares(maps):
  bad = maps / "maps/ROI0.tiff"
  bad.write_bytes(bad.read_bytes()[:500])
  codes = [list_segment(maps, maps / "o", f"--shard={i}/2") for i in range(2)]
  assert sorted(codes) == [0, 1]
  for index in range(2):
    words = f"--shard={index}/2", "--allow_failures"
    assert list_segment(maps, maps / "o", *words) == 0
  assert list_segment(maps, maps / "o", "--merge") == 1
  assert list_segment(maps, maps / "o", "--merge", "--allow_failures") == 0
  assert pd.read_csv(maps / "o/failures.csv")["image"].tolist() == ["ROI0"]


def test_shares_of_another_command_are_refused(maps, caplog):
  assert list_segment(maps, maps / "o", "--shard=0/1") == 0
  assert merge(maps, maps / "out", maps / "o") == 2
  assert "found a share of another command" in caplog.text
  assert list_segment(maps, maps / "o", "--merge", "--shard=0/1") == 2
  assert "found --shard beside it" in caplog.text


def test_a_damaged_table_of_failures_is_told(study, caplog):
  path = study / "shares/0/shards/0-of-2.failures.csv"
  path.write_text("x\n1\n")
  assert merge(study, study / "out", study / "shares") == 2
  assert caplog.messages[-1].startswith(f"{path}: found a damaged table")
  assert state.locate(study / "out", "ROI0").exists() is False
