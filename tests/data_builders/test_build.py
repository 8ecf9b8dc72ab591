"""Builds of whole datasets: what comes out, what fails, what goes on."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

from data_builders import build, generate, jobs, parts
from dicexmbd_jax import chain
from dicexmbd_jax.io import listing, panel
from dicexmbd_jax.train import dataset, records
from tests.data_builders import studies

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATCH_PX = 16


def call(study, output, *more, teacher="truth"):
  return build.main(
    [
      f"--images={study / 'img'}",
      f"--teacher={study / teacher}",
      f"--panel={study / 'panel.csv'}",
      f"--output={output}",
      "--num_workers=0",
      f"--config.records.patch_px={PATCH_PX}",
      *more,
    ]
  )


def verify(output):
  return build.main(["--verify", f"--output={output}"])


def read_records(output):
  """Returns split and stored record by id."""
  opened = dataset.open_dataset(str(output))
  return {
    raw["record_id"].decode(): (split, raw)
    for split in opened.info.splits
    for raw in opened.as_data_source(split)
  }


def read_rows(path):
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def check_same(first, second):
  assert first.keys() == second.keys() and first
  for name, (split, raw) in first.items():
    assert second[name][0] == split
    assert raw.keys() == second[name][1].keys()
    for field, value in raw.items():
      np.testing.assert_array_equal(value, second[name][1][field])


def read_shards(folder):
  """Returns the bytes of each shard by its name."""
  shards = folder.rglob("*array_record*")
  return {path.name: path.read_bytes() for path in shards}


def list_times(folder):
  """Returns when each shard was written."""
  shards = folder.rglob("*array_record*")
  return {str(path): path.stat().st_mtime_ns for path in shards}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  return studies.write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def built(study, tmp_path_factory):
  output = tmp_path_factory.mktemp("built")
  assert call(study, output) == 0
  return output


def test_every_pixel_is_in_one_record(built):
  found = read_records(built)
  num_valid = sum(int(raw["valid"].sum()) for _, raw in found.values())
  assert num_valid == sum(y * x for y, x in studies.SHAPES)
  assert len(found) == sum(
    -(-y // PATCH_PX) * -(-x // PATCH_PX) for y, x in studies.SHAPES
  )
  assert {path.name for path in built.iterdir()} <= {
    "build.json",
    "contact_sheet.png",
    "failures.csv",
    "imc_patches",
    "report.csv",
  }


def test_a_record_tells_where_it_comes_from(built):
  raw = read_records(built)["S0_ROI0:16:0"][1]
  record = records.decode_record(raw)
  assert record["source"] == "S0_ROI0.tiff"
  assert record["group"] == "S0_ROI0"
  assert record["origin"] == (16, 0)
  assert record["scale"] == 1
  assert record["valid"].sum() == 4 * 12
  assert "+" in record["target_sha256"]  # Cells and nuclei.
  np.testing.assert_array_equal(
    record["target"][4:], np.broadcast_to((0, 0, 1), (12, 16, 3))
  )


def test_patches_are_what_the_predictor_feeds_bit_for_bit(tmp_path, built):
  study = studies.write_study(tmp_path / "study")
  found = read_records(built)
  config = jobs.make_config(None, {})
  job = make_job(config, panel.read_panel(study / "panel.csv"))
  for source in listing.list_images(study / "img")[0]:
    image = feed_predictor(source, job)
    whole = np.zeros_like(image)
    for _, raw in found.values():
      stem, y, x = raw["record_id"].decode().split(":")
      if stem == source.stem:
        place = whole[int(y) : int(y) + PATCH_PX, int(x) : int(x) + PATCH_PX]
        place[:] = raw["image"][: place.shape[0], : place.shape[1]]
    assert image.max() > 0
    assert whole.tobytes() == image.tobytes()


def test_an_image_is_seen_under_panels_drawn_from_its_own(study, tmp_path):
  """Three membrane markers: of one, then of all, whatever is drawn."""
  study = studies.write_study(tmp_path / "study", shapes=((20, 12),))
  stack = np.stack([studies.draw_stack((20, 12), seed)[1] for seed in range(4)])
  studies.write_tiff(study / "img" / "S0_ROI0.tiff", stack, "CYX")
  rows = [f"Nd14{i},M{i},1,{int(i == 0)},{int(i > 0)}" for i in range(4)]
  head = studies.PANEL.splitlines()[0]
  (study / "panel.csv").write_text("\n".join([head, *rows]) + "\n")
  assert call(study, tmp_path / "one") == 0
  more = "--config.records.num_panels=9"
  assert call(study, tmp_path / "many", more) == 0
  assert verify(tmp_path / "many") == 0
  one, many = read_records(tmp_path / "one"), read_records(tmp_path / "many")
  drawn = {name.partition("+")[2] for name in many} - {""}
  # Of the parts of three markers there are six besides the whole.
  assert (
    drawn == {str(i + 1) for i in range(len(drawn))} and 2 <= len(drawn) <= 6
  )
  for name, (_, raw) in one.items():
    np.testing.assert_array_equal(raw["image"], many[name][1]["image"])
    images = [raw["image"]]
    for i in sorted(drawn):
      other = many[f"{name}+{i}"][1]
      np.testing.assert_array_equal(raw["target"], other["target"])
      np.testing.assert_array_equal(
        raw["image"][..., 0], other["image"][..., 0]
      )
      images.append(other["image"])
    assert len({image.tobytes() for image in images}) == len(images)


def test_few_markers_are_drawn_more_often_than_many():
  rng = np.random.default_rng(0)
  group = (3, 4, 7, 9)
  found = [generate.draw_markers(rng, group) for _ in range(400)]
  sizes = np.bincount([len(one) for one in found], minlength=5)
  assert sizes[0] == 0 and sizes[1] > sizes[2] > sizes[4] > 0
  assert {marker for one in found for marker in one} == set(group)
  assert all(len(set(one)) == len(one) for one in found)
  assert generate.draw_markers(rng, ()) == ()


def test_another_pixel_size_is_predicted_and_built_alike(study, tmp_path):
  more = ("--pixel_size_um=0.5", "--config.records.cut=random")
  assert call(study, tmp_path, *more) == 0
  config = jobs.make_config(None, {})
  job = make_job(config, panel.read_panel(study / "panel.csv"), 0.5)
  sources = {s.stem: s for s in listing.list_images(study / "img")[0]}
  for _, raw in read_records(tmp_path).values():
    record = records.decode_record(raw)
    stem = record["record_id"].split(":")[0]
    image = feed_predictor(sources[stem], job)
    y, x = record["origin"]
    piece = image[y : y + PATCH_PX, x : x + PATCH_PX]
    height, width = piece.shape[:2]
    assert record["image"][:height, :width].tobytes() == piece.tobytes()
    assert record["valid"].sum() == height * width
    assert record["scale"] == 0.5


def make_job(config, rows, pixel_size_um=None):
  """The part of predict's job that its preparation looks at."""
  return types.SimpleNamespace(
    config=config, panel=rows, pixel_size_um=pixel_size_um
  )


def feed_predictor(source, job):
  """Returns what `predict` gives to the network where it magnifies nothing."""
  record = chain.read_record(source, job.panel, job.pixel_size_um)
  record = chain.merge_record(record, job.config.image)
  return chain.magnify_record(record, job.config).maps


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_no_record(study, built, tmp_path, num_workers):
  assert call(study, tmp_path, f"--num_workers={num_workers}") == 0
  check_same(read_records(built), read_records(tmp_path))
  assert read_shards(built) == read_shards(tmp_path)


def test_no_size_of_a_split_needs_tensorflow(
  study, built, tmp_path, monkeypatch
):
  # From this size on TFDS sorts in files of TensorFlow's.
  monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 0)
  was_imported = "tensorflow" in sys.modules
  assert call(study, tmp_path) == 0
  assert ("tensorflow" in sys.modules) == was_imported
  assert read_shards(built) == read_shards(tmp_path)


@pytest.mark.parametrize("place", ["write_part", "read_record"])
def test_a_killed_build_goes_on(study, built, tmp_path, place, capsys):
  code = (
    "import os, signal, sys\n"
    "from data_builders import build, parts\n"
    f"plain, left = parts.{place}, [2]\n"
    "def die(*words):\n"
    "  if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
    "  left[0] -= 1\n"
    "  return plain(*words)\n"
    f"parts.{place} = die\n"
    "build.main(sys.argv[1:])\n"
  )
  arguments = [
    f"--images={study / 'img'}",
    f"--teacher={study / 'truth'}",
    f"--panel={study / 'panel.csv'}",
    f"--output={tmp_path}",
    "--num_workers=0",
    f"--config.records.patch_px={PATCH_PX}",
  ]
  killed = subprocess.run(
    [sys.executable, "-c", code, *arguments],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    check=False,
  )
  assert killed.returncode == -signal.SIGKILL
  with pytest.raises(ValueError, match="dataset_info"):
    dataset.open_dataset(str(tmp_path))
  assert len(list((tmp_path / ".parts").glob("*.part"))) >= 2
  capsys.readouterr()
  assert build.main(arguments) == 0
  kept = {"write_part": 2, "read_record": len(studies.SHAPES)}[place]
  assert f"{kept} images were done before" in capsys.readouterr().out
  check_same(read_records(built), read_records(tmp_path))
  assert not list(tmp_path.rglob("incomplete*"))


def test_a_build_that_is_killed_at_its_end_is_built(
  study, tmp_path, monkeypatch, caplog
):
  def die(folder, **_):
    assert folder.name == parts.FOLDER
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(build, "shutil", types.SimpleNamespace(rmtree=die))
    assert call(study, tmp_path) == 130
  assert (tmp_path / parts.FOLDER).is_dir()
  assert call(study, tmp_path) == 0
  assert "is built already" in caplog.text
  assert not (tmp_path / parts.FOLDER).exists()


def test_a_finished_build_is_not_built_again(study, tmp_path, caplog):
  assert call(study, tmp_path) == 0
  before = sorted(
    f.stat().st_mtime_ns for f in tmp_path.rglob("*array_record*")
  )
  assert call(study, tmp_path) == 0
  assert "is built already" in caplog.text
  assert call(study, tmp_path, "--config.records.patch_px=8") == 2
  assert "found a dataset of other files" in caplog.text
  files = sorted(f.stat().st_mtime_ns for f in tmp_path.rglob("*array_record*"))
  assert files == before
  assert (
    call(study, tmp_path, "--config.records.patch_px=8", "--overwrite") == 0
  )
  assert len(read_records(tmp_path)) > 9


def test_broken_files_cost_themselves_alone(tmp_path, caplog):
  study = studies.write_study(tmp_path, [(16, 16)] * 8)
  masks = study / "truth/masks"
  (study / "img/S0_ROI0.tiff").unlink()
  (masks / "S0_ROI1.tiff").unlink()
  studies.write_tiff(masks / "S1_ROI2.tiff", np.ones((16, 24), "u2"), "YX")
  studies.write_tiff(masks / "S1_ROI3.tiff", np.ones((32, 32), "u2"), "YX")
  for name in (study / "img/S2_ROI4.tiff", masks / "S2_ROI5.tiff"):
    name.write_bytes(name.read_bytes()[:300])
  studies.write_tiff(masks / "S3_ROI6_mask.tiff", np.ones((16, 16), "u2"), "YX")
  assert call(study, tmp_path / "out") == 1
  lines = {}
  for row in read_rows(tmp_path / "out/failures.csv"):
    lines[row["image"]] = lines.get(row["image"], "") + row["error"]
  assert "found no image S0_ROI0" in lines["S0_ROI0"]
  assert "found no teacher" in lines["S0_ROI1"]
  assert "16 x 24 px (y, x), expected 16 x 16" in lines["S1_ROI2"]
  assert "wrong scale, 2 times the image" in lines["S1_ROI3"]
  assert "truncated" in lines["S2_ROI4"]
  assert "truncated" in lines["S2_ROI5"]
  assert "found another teacher of the same image" in lines["S3_ROI6"]
  assert set(lines) == {f"S{i // 2}_ROI{i}" for i in range(7)}
  rows = read_rows(tmp_path / "out/report.csv")
  assert [r["image"] for r in rows if r["state"] == "done"] == ["S3_ROI7"]
  assert {r["image"] for r in rows if r["state"] == "failed"} == set(lines)
  assert len(read_records(tmp_path / "out")) == 1
  assert "Traceback" not in caplog.text


def test_maps_twice_as_fine_are_averaged(tmp_path):
  study = studies.write_study(tmp_path, [(16, 12)], teacher="maps")
  assert call(study, tmp_path / "out", teacher="probabilities") == 0
  (_, raw), *_ = read_records(tmp_path / "out").values()
  maps = np.rint(studies.draw_maps((16, 12), 0, 2) * 65535) / 65535
  means = maps.reshape(16, 2, 12, 2, 3).mean(axis=(1, 3))
  target = records.decode_record(raw)["target"]
  np.testing.assert_allclose(target[:, :12], means, atol=1e-5)
  (row,) = read_rows(tmp_path / "out/report.csv")
  assert (row["kind"], row["map_scale"]) == ("maps", "2")


def test_the_published_layout_needs_no_more_than_its_folder(tmp_path):
  maps = np.rint(studies.draw_maps((16, 16), 0) * 65535).astype("u2")
  studies.write_tiff(
    tmp_path / "combined2_image/a.tiff", studies.draw_stack((16, 16), 0), "CYX"
  )
  name = "probability/a_ilastik_s2_Probabilities.tiff"
  studies.write_tiff(tmp_path / name, maps, "YXS")
  words = [f"--images={tmp_path}", f"--output={tmp_path / 'out'}"]
  assert build.main([*words, "--config.records.patch_px=16"]) == 0
  assert list(read_records(tmp_path / "out")) == ["a:0:0"]


def test_an_empty_split_is_told(tmp_path, caplog):
  study = studies.write_study(tmp_path, [(8, 8)] * 2)
  assert call(study, tmp_path / "out") == 0
  filled = set(dataset.open_dataset(str(tmp_path / "out")).info.splits)
  for split in ("train", "validation", "test"):
    assert (f"split {split} is empty" in caplog.text) == (split not in filled)
  assert len(filled) < 3


def test_a_group_never_parts(tmp_path, built):
  study = studies.write_study(tmp_path, [(8, 8)] * 12)
  more = ("--config.records.group_pattern=^(S\\d+)_", "--config.records.salt=x")
  assert call(study, tmp_path / "out", *more) == 0
  splits = {}
  for split, raw in read_records(tmp_path / "out").values():
    splits.setdefault(raw["group"].decode(), set()).add(split)
  assert sorted(splits) == [f"S{i}" for i in range(6)]
  assert all(len(found) == 1 for found in splits.values())
  assert verify(tmp_path / "out") == 0


@pytest.mark.parametrize(
  ("more", "words"),
  [
    (["--teacher=nowhere"], "nowhere"),
    (["--config.records.stride_px=99"], "stride_px"),
    (["--config.records.cut=best"], "cut"),
    (["--config.records.num_panels=0"], "num_panels"),
    (["--config.records.shares.train=0.9"], "sum"),
    (["--groups=missing.csv"], "missing.csv"),
    (["--num_workers=-1"], "num_workers"),
    (["--config.records.no_such=1"], "no_such"),
  ],
)
def test_wrong_calls_are_told_in_one_line(study, tmp_path, more, words, caplog):
  assert call(study, tmp_path, *more) == 2
  assert words in caplog.text
  levels = [line.levelname for line in caplog.records]
  assert levels.count("ERROR") == 1


def test_verify_finds_a_sound_dataset_sound(built, capfd):
  assert verify(built) == 0
  assert "sound" in capfd.readouterr().out
  assert (built / "contact_sheet.png").stat().st_size > 1000


@pytest.mark.parametrize("damage", ["count", "bytes", "missing"])
def test_verify_finds_damage(study, tmp_path, damage, capfd):
  assert call(study, tmp_path) == 0
  file = next(tmp_path.rglob("*train.array_record*"))
  if damage == "missing":
    file.unlink()
  elif damage == "bytes":
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    file.write_bytes(data)
  else:
    report = tmp_path / "report.csv"
    rows = report.read_text().splitlines()
    report.write_text("\n".join(rows[:-1]) + "\n")
  assert verify(tmp_path) == 1
  output = capfd.readouterr()
  assert "problems" in output.out and "Traceback" not in output.err


def test_verify_needs_a_dataset(tmp_path):
  assert verify(tmp_path) == 2


def test_masks_of_nuclei_alone_leave_cytoplasm_unknown(study, tmp_path):
  teacher = str(study / "truth" / "nuclei")
  words = (f"--teacher={teacher}", "--teacher_kind=nuclei")
  assert call(study, tmp_path, *words) == 0
  for _, raw in read_records(tmp_path).values():
    record = records.decode_record(raw)
    is_nucleus = record["target"][..., 0] == 1
    inside = record["valid"][..., 0] == 1
    assert record["known"][..., 0].all()
    np.testing.assert_array_equal(
      record["known"][..., 1][inside], is_nucleus[inside]
    )


def test_a_build_leaves_no_temporary_file(tmp_path, monkeypatch):
  study = studies.write_study(tmp_path / "study", [(16, 16)])
  scratch, output = tmp_path / "tmp", tmp_path / "out"
  left = [
    output / "imc_patches/incomplete.ABC123_1.0.0",
    output / ".scratch.0123abcd.tmp",
  ]
  for folder in (scratch, *left):
    folder.mkdir(parents=True)
  monkeypatch.setattr("tempfile.tempdir", str(scratch))
  assert call(study, output, "--config.records.patch_px=16") == 0
  assert not list(scratch.iterdir())
  names = {path.name for path in output.rglob("*")}
  assert not [name for name in names if name.startswith((".", "incomplete"))]
