"""`predict` as its users call it: results, restarts, and wrong input."""

import errno
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
from flax import nnx

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.image import preparation
from dicexmbd_jax.io import write
from dicexmbd_jax.model import weights

NAMES = ("DNA1_Ir191", "CD45_Sm152", "Ki67_Er168")
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Ir191,DNA1_Ir191,1,1,0
Sm152,CD45_Sm152,1,0,1
Er168,Ki67_Er168,1,0,0
"""
FOLDERS = (
  "probabilities",
  "nuclei",
  "masks",
  "intensities",
  "regionprops",
  "neighbors",
  "overlays",
)


def make_stack(shape=(70, 50), seed=0):
  """Counts of round nuclei with a ring of membrane on a grid of 10 px."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[: shape[0], : shape[1]]
  distance = np.hypot(y % 10 - 4.5, x % 10 - 4.5)
  means = [20 * (distance < 3), 8 * (abs(distance - 4) < 1), 1 + 0 * distance]
  return rng.poisson(np.stack(means, -1)).astype(np.float32)


@pytest.fixture
def study(tmp_path):
  """A folder of three images and a panel."""
  for i, shape in enumerate([(70, 50), (64, 64), (33, 90)]):
    write.write_stack(
      tmp_path / f"study/ROI{i}.ome.tiff", make_stack(shape, i), NAMES
    )
  (tmp_path / "panel.csv").write_text(PANEL)
  return tmp_path


def call(study, model, *more, images="study", output="out"):
  return program.main(
    [
      "predict",
      f"--images={study / images}",
      f"--panel={study / 'panel.csv'}",
      f"--output={study / output}",
      f"--checkpoint={model}",
      "--num_workers=0",
      *more,
    ]
  )


def read_failures(folder):
  return pd.read_csv(folder / "failures.csv")


def read_results(folder):
  """Returns the bytes or pixels of every file that a run must reproduce."""
  found = {}
  for kind in FOLDERS:
    for path in sorted((folder / kind).iterdir()):
      name = f"{kind}/{path.name}"
      is_tiff = path.suffix == ".tiff"
      found[name] = (
        tifffile.imread(path).tobytes() if is_tiff else path.read_bytes()
      )
  return found


def test_negative_values_after_compensation(study, model_folder):
  """Refused, unless the call says otherwise; the tables have them as read."""
  path = study / "study/ROI1.ome.tiff"
  stack = make_stack((64, 64), 1)
  stack[..., 2] -= 0.25
  write.write_stack(path, stack, NAMES)
  images = "study/ROI1.ome.tiff"
  assert call(study, model_folder, images=images) == 1
  (error,) = read_failures(study / "out")["error"]
  assert "negative of 4096 pixels" in error
  assert "--config.image.negative=clip" in error
  more = "--config.image.negative=clip"
  assert call(study, model_folder, more, images=images) == 0
  assert len(read_failures(study / "out")) == 0
  masks = tifffile.imread(study / "out/masks/ROI1.tiff")
  counts = pd.read_csv(study / "out/intensities/ROI1.csv")
  expected = stack[masks == 3].mean(0)
  np.testing.assert_allclose(counts.iloc[2, 1:].astype(float), expected)
  assert counts[NAMES[2]].min() < 0.8
  more = "--config.image.negative=other"
  assert call(study, model_folder, more, images=images) == 2


def test_every_file_is_there_and_they_agree(study, model_folder):
  assert call(study, model_folder) == 0
  out = study / "out"
  for kind in FOLDERS:
    assert {path.stem for path in (out / kind).iterdir()} == {
      "ROI0", "ROI1", "ROI2"
    }  # fmt: skip
  masks = tifffile.imread(out / "masks/ROI0.tiff")
  nuclei = tifffile.imread(out / "nuclei/ROI0.tiff")
  maps = tifffile.imread(out / "probabilities/ROI0.tiff")
  assert masks.shape == nuclei.shape == (70, 50)
  assert masks.dtype == np.uint16
  assert maps.shape == (70, 50, 3)
  assert maps.dtype == np.uint16
  ids = np.unique(masks[masks > 0])
  assert 25 <= len(ids) <= 40  # 35 cells were drawn.
  np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
  assert (masks[nuclei > 0] == nuclei[nuclei > 0]).all()
  stack = make_stack()
  counts = pd.read_csv(out / "intensities/ROI0.csv")
  assert list(counts) == ["Object", *NAMES]
  expected = stack[masks == 3].mean(0)
  np.testing.assert_allclose(counts.iloc[2, 1:].astype(float), expected)
  regions = pd.read_csv(out / "regionprops/ROI0.csv")
  is_border = np.isin(
    ids, np.concatenate([masks[0], masks[-1], masks[:, 0], masks[:, -1]])
  )
  np.testing.assert_array_equal(regions["is_border"], is_border)
  images = pd.read_csv(out / "images.csv")
  assert list(images["image"]) == ["ROI0.tiff", "ROI1.tiff", "ROI2.tiff"]
  assert images["doubt"].between(0, 1).all()
  assert len(read_failures(out)) == 0
  assert "ROI2" in (out / "report.html").read_text()
  run = json.loads((out / "run.json").read_text())
  assert run["num_images"] == 3
  assert run["model"]["sha256"] == config_lib.hash_model(model_folder)
  assert list(run["devices_busy"]) == ["cpu:0"]
  assert 0 < run["devices_busy"]["cpu:0"] <= 1


def test_anndata_holds_all_cells(study, model_folder):
  import anndata

  assert call(study, model_folder) == 0
  cells = anndata.read_h5ad(study / "out/cells.h5ad")
  numbers = [
    tifffile.imread(path).max() for path in (study / "out/masks").iterdir()
  ]
  assert cells.n_obs == sum(numbers)
  assert list(cells.var_names) == list(NAMES)
  regions = pd.read_csv(study / "out/regionprops/ROI0.csv")
  np.testing.assert_allclose(
    cells.obsm["spatial"][:5],
    regions.loc[:4, ["centroid-1", "centroid-0"]].to_numpy(float),
  )


def test_panel_of_the_tables_reads_files_without_names(study, model_folder):
  text = "name,keep,nuclear,membrane_cytoplasm\nB,0,0,0\nB,1,1,0\nC,1,0,1\n"
  (study / "panel.csv").write_text(text)
  (study / "plain").mkdir()
  planes = np.random.default_rng(0).poisson(4, (3, 40, 50)).astype(np.uint16)
  tifffile.imwrite(study / "plain/A.tiff", planes, photometric="minisblack")
  more = {"images": "plain"}
  assert call(study, model_folder, "--method=distance", **more) == 0
  panel = f"--panel={study / 'out/panel.csv'}"
  more["output"] = "again"
  assert call(study, model_folder, "--method=distance", panel, **more) == 0
  written = pd.read_csv(study / "out/panel.csv")
  assert list(written["name"]) == ["B_2", "B", "C"]
  assert list(written["keep"]) == [0, 1, 1]
  tables = [
    (study / folder / "intensities/A.csv").read_bytes()
    for folder in ("out", "again")
  ]
  assert tables[0] == tables[1]


def test_panel_of_the_tables_reads_the_same_images(study, model_folder):
  """Of steinbock's columns; a panel that lies there already stays."""
  text = PANEL.replace("Ki67_Er168,1", "Ki67_Er168,0")
  (study / "panel.csv").write_text(text)
  assert call(study, model_folder, images="study/ROI2.ome.tiff") == 0
  written = (study / "out/panel.csv").read_text()
  assert written.splitlines() == [
    "channel,name,keep,nuclear,membrane_cytoplasm",
    "Ir191,DNA1_Ir191,1,1,0",
    "Sm152,CD45_Sm152,1,0,1",
    "Er168,Ki67_Er168,0,0,0",
  ]
  (study / "other").mkdir()
  (study / "other/panel.csv").write_text(written.replace("Ki67_Er168", "Ki"))
  more = (f"--panel={study / 'other/panel.csv'}", "--method=distance")
  images = {"images": "study/ROI2.ome.tiff", "output": "other"}
  assert call(study, model_folder, *more, **images) == 0
  assert "Er168,Ki,0" in (study / "other/panel.csv").read_text()
  (study / "third").mkdir()
  (study / "third/panel.csv").write_text("anything")
  assert call(study, model_folder, output="third") == 2


@pytest.mark.parametrize(
  "more",
  [
    (),
    ("--config.predict.magnification=1.3", "--config.segment.max_growth_um=1"),
    ("--pixel_size_um=0.7", "--config.predict.magnification=auto"),
    ("--config.image.pixel_size_um=0.5", "--config.segment.max_growth_um=1"),
  ],
)
def test_segment_repeats_the_masks_from_the_probabilities(
  study, model_folder, more
):
  assert call(study, model_folder, *more) == 0
  settings = [word for word in more if word.startswith("--config.segment")]
  code = program.main(
    [
      "segment",
      f"--probabilities={study / 'out/probabilities'}",
      f"--output={study / 'again'}",
      "--config.segment.preset=touching",
      "--num_workers=0",
      *settings,
    ]
  )
  assert code == 0
  for path in (study / "out/masks").iterdir():
    np.testing.assert_array_equal(
      tifffile.imread(path), tifffile.imread(study / "again/masks" / path.name)
    )


@pytest.mark.parametrize(
  "more",
  [
    ("--config.segment.preset=steinbock",),
    ("--config.segment.preset=dice_xmbd", "--pixel_size_um=0.5"),
    ("--config.segment.map_scale=2", "--config.predict.magnification=1.3"),
    ("--config.segment.map_scale=1", "--config.image.pixel_size_um=0.5"),
  ],
)
def test_segment_repeats_the_masks_of_every_setting(study, model_folder, more):
  image = {"images": "study/ROI0.ome.tiff"}
  preset = "--config.segment.preset=touching"
  assert call(study, model_folder, preset, *more, **image) == 0
  words = [word for word in more if word.startswith("--config.segment")]
  words += [f"--probabilities={study / 'out/probabilities'}"]
  words += [f"--output={study / 'again'}", "--num_workers=0"]
  assert program.main(["segment", preset, *words]) == 0
  for kind in ("masks", "nuclei"):
    first, second = (
      tifffile.imread(study / folder / kind / "ROI0.tiff")
      for folder in ("out", "again")
    )
    np.testing.assert_array_equal(first, second)


def test_segment_takes_the_settings_of_another_model(study, model_folder):
  model = study / "model"
  shutil.copytree(model_folder, model)
  config = json.loads((model / "config.json").read_text())
  config["segment"] |= {"max_growth_um": 4.0, "scale": 1}
  (model / "config.json").write_text(json.dumps(config))
  assert call(study, model) == 0
  words = [f"--probabilities={study / 'out/probabilities'}"]
  words += ["--num_workers=0", f"--output={study / 'again'}"]
  assert program.main(["segment", f"--checkpoint={model}", *words]) == 0
  masks = sorted((study / "out/masks").iterdir())
  assert len(masks) == 3
  for path in masks:
    again = study / "again/masks" / path.name
    assert again.read_bytes() == path.read_bytes()
  words[-1] = f"--output={study / 'shipped'}"
  assert program.main(["segment", *words]) == 0
  for path in masks:
    shipped = study / "shipped/masks" / path.name
    assert shipped.read_bytes() != path.read_bytes()


def test_a_baseline_keeps_no_maps_of_the_network(study, model_folder):
  assert call(study, model_folder) == 0
  out = study / "out"
  assert len(list((out / "probabilities").iterdir())) == 3
  assert call(study, model_folder, "--method=propagation") == 0
  assert not list((out / "probabilities").iterdir())
  assert len(list((out / "masks").iterdir())) == 3


@pytest.mark.parametrize("panel", [(), ("--panel=",)])
def test_a_run_in_which_all_images_fail_is_written(
  study, model_folder, panel, caplog
):
  (study / "broken").mkdir()
  (study / "broken/BAD.tiff").write_text("this is no image")
  assert call(study, model_folder, *panel, images="broken") == 1
  assert "BAD.tiff: found a truncated or unreadable TIFF" in caplog.text
  assert read_failures(study / "out")["image"].tolist() == ["BAD"]
  assert (study / "out/report.html").exists()


def test_a_baseline_has_no_limit_of_growth(study, model_folder, caplog):
  more = ("--method=propagation", "--config.segment.max_growth_um=0.3")
  assert call(study, model_folder, *more) == 2
  assert "max_growth_um: found 0.3 with --method=propagation" in caplog.text


def test_whole_numbers_do_where_the_magnification_is_chosen(
  study, model_folder
):
  words = ("touching", "0", "auto")
  names = (
    "segment.preset",
    "segment.min_nucleus_peak",
    "predict.magnification",
  )
  more = [f"--config.{n}={w}" for n, w in zip(names, words, strict=True)]
  assert call(study, model_folder, *more) == 0


def test_neither_workers_nor_tiles_nor_strips_change_anything(
  study, model_folder, cut_finely
):
  assert call(study, model_folder, output="one") == 0
  assert call(study, model_folder, "--num_workers=2", output="two") == 0
  tiles = ["--config.predict.tile_px=32", "--config.predict.batch_size=3"]
  assert call(study, model_folder, *tiles, output="three") == 0
  first = read_results(study / "one")
  assert first == read_results(study / "two")
  third = read_results(study / "three")
  exact = [name for name in first if not name.startswith("probabilities")]
  assert all(first[name] == third[name] for name in exact)
  with cut_finely():
    assert call(study, model_folder, output="four") == 0
  assert first == read_results(study / "four")


def test_masks_lie_on_the_input_grid(study, model_folder):
  coarse = make_stack()
  fine = coarse.repeat(2, 0).repeat(2, 1)
  write.write_stack(study / "fine/A.tiff", fine, NAMES, pixel_size_um=0.5)
  assert call(study, model_folder, images="fine") == 0
  assert tifffile.imread(study / "out/masks/A.tiff").shape == (140, 100)
  maps = tifffile.imread(study / "out/probabilities/A.tiff")
  assert maps.shape == (70, 50, 3)
  fine_cells = tifffile.imread(study / "out/masks/A.tiff").max()
  assert call(study, model_folder, "--pixel_size_um=1", output="flag") == 0
  assert 25 <= fine_cells <= 40
  size = pd.read_csv(study / "out/images.csv")["pixel_size_um"]
  assert list(size) == [0.5]


def test_magnification_is_told_and_leaves_the_masks_grid(study, model_folder):
  more = ["--config.predict.magnification=0.5"]
  assert call(study, model_folder, *more) == 0
  out = study / "out"
  assert tifffile.imread(out / "masks/ROI0.tiff").shape == (70, 50)
  assert tifffile.imread(out / "probabilities/ROI0.tiff").shape == (35, 25, 3)
  images = pd.read_csv(out / "images.csv")
  assert list(images["magnification"]) == [0.5, 0.5, 0.5]
  run = json.loads((out / "run.json").read_text())
  assert run["magnification"] == {"0.5": 3}
  assert "0.5 times as large" in (out / "report.html").read_text()


def test_a_finished_run_does_nothing_again(study, model_folder, caplog):
  assert call(study, model_folder) == 0
  out = study / "out"
  before = {p: p.stat().st_mtime_ns for p in out.glob("masks/*")}
  assert call(study, model_folder) == 0
  assert before == {p: p.stat().st_mtime_ns for p in out.glob("masks/*")}
  assert call(study, model_folder, "--overwrite") == 0
  after = {p: p.stat().st_mtime_ns for p in out.glob("masks/*")}
  assert all(after[path] > before[path] for path in before)


@pytest.mark.parametrize("what", ["image", "panel", "config", "missing file"])
def test_what_changed_is_done_again(study, model_folder, what):
  assert call(study, model_folder) == 0
  out = study / "out"
  before = {p.stem: p.stat().st_mtime_ns for p in out.glob("masks/*")}
  more = []
  changed = {"ROI0", "ROI1", "ROI2"}
  if what == "image":
    stack = make_stack((64, 64), seed=9)
    write.write_stack(study / "study/ROI1.ome.tiff", stack, NAMES)
    changed = {"ROI1"}
  elif what == "panel":
    (study / "panel.csv").write_text(PANEL.replace("1,0,0", "1,0,1"))
  elif what == "config":
    more = ["--config.segment.regularisation=0.1"]
  else:
    (out / "neighbors/ROI2.csv").unlink()
    changed = {"ROI2"}
  assert call(study, model_folder, *more) == 0
  after = {p.stem: p.stat().st_mtime_ns for p in out.glob("masks/*")}
  assert {stem for stem in after if after[stem] > before[stem]} == changed


def test_an_image_that_fails_keeps_nothing_of_an_earlier_run(
  study, model_folder
):
  assert call(study, model_folder) == 0
  (study / "study/ROI1.ome.tiff").write_text("this is no image")
  assert call(study, model_folder) == 1
  assert not list((study / "out").glob("*/ROI1.*"))
  assert len(list((study / "out").glob("*/ROI2.*"))) == len(FOLDERS) + 1


def test_results_of_another_program_are_not_replaced(
  study, model_folder, caplog
):
  mask, table = study / "masks/ROI0.tiff", study / "images.csv"
  mask.parent.mkdir()
  for path in (mask, table):
    path.write_text("of another program")
  assert call(study, model_folder, output=".") == 2
  assert "found masks, images.csv of another program" in caplog.text
  assert not (study / "run.json").exists()
  for path in (mask, table):
    assert path.read_text() == "of another program"
  assert call(study, model_folder, "--overwrite", output=".") == 0


def test_results_of_a_teacher_are_not_written_over(study, model_folder, caplog):
  out = study / "out"
  (out / "teacher").mkdir(parents=True)
  for name in ("failures.csv", "curve.csv", "teacher/teacher.json"):
    (out / name).write_text("")
  before = sorted(out.rglob("*"))
  for more in ((), ("--overwrite",)):
    assert call(study, model_folder, *more) == 2
    assert f"such as {out}/predicted" in caplog.messages[-1]
  assert sorted(out.rglob("*")) == before


def test_a_pixel_size_against_the_files_own_is_told(
  study, model_folder, caplog
):
  for i in range(3):
    stack = make_stack((64, 64), i)
    path = study / f"study/ROI{i}.ome.tiff"
    write.write_stack(path, stack, NAMES, pixel_size_um=0.5)
  assert call(study, model_folder, "--pixel_size_um=1") == 0
  lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
  assert lines == [
    "ROI0: the file has pixels of 0.5 um; 1 um are taken, as --pixel_size_um "
    "says",
    "2 more: the file has pixels of 0.5 um; 1 um are taken, as --pixel_size_um "
    "says",
  ]


def test_broken_weights_leave_the_record_of_an_earlier_run(study, model_folder):
  assert call(study, model_folder) == 0
  before = (study / "out/run.json").read_bytes()
  broken = study / "broken"
  broken.mkdir()
  (broken / "params.npz").write_bytes(b"no weights")
  config = (model_folder / "config.json").read_bytes()
  (broken / "config.json").write_bytes(config)
  assert call(study, broken) == 2
  assert (study / "out/run.json").read_bytes() == before


def break_nothing(folder):
  del folder


def truncate(folder):
  path = folder / "BAD.tiff"
  path.write_bytes((folder / "ROI0.ome.tiff").read_bytes()[:-500])


def write_text(folder):
  (folder / "BAD.tiff").write_text("this is no image")


def write_stack_with(value):
  def write_bad(folder):
    stack = make_stack()
    stack[3, 4, 1] = value
    tifffile.imwrite(
      folder / "BAD.tiff", stack.transpose(2, 0, 1), photometric="minisblack"
    )

  return write_bad


def write_two_channels(folder):
  stack = make_stack()[..., :2]
  write.write_stack(folder / "BAD.tiff", stack, NAMES[:2])


def write_other_names(folder):
  names = ("DNA1_Ir191", "CD3_Er170", "Ki67_Er168")
  write.write_stack(folder / "BAD.tiff", make_stack(), names)


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (truncate, "truncated"),
    (write_text, "expected"),
    (write_stack_with(np.nan), "CD45.*NaN"),
    (write_stack_with(np.inf), "CD45.*infinite"),
    (write_stack_with(-1), "CD45.*negative"),
    (write_two_channels, "Ki67"),
    (write_other_names, "CD45"),
  ],
)
def test_a_bad_image_is_told_and_the_others_are_done(
  study, model_folder, spoil, message
):
  spoil(study / "study")
  assert call(study, model_folder) == 1
  failures = read_failures(study / "out")
  assert list(failures["image"]) == ["BAD"]
  error = failures["error"][0]
  assert "BAD.tiff" in error
  assert "\n" not in error
  assert pd.Series([error]).str.contains(message, case=False)[0], error
  assert len(list((study / "out/masks").iterdir())) == 3
  assert "BAD.tiff" in (study / "out/report.html").read_text()


def test_images_of_one_stem_are_told(study, model_folder):
  write.write_stack(study / "study/ROI1.tif", make_stack(), NAMES)
  assert call(study, model_folder) == 1
  error = " ".join(read_failures(study / "out")["error"])
  assert "ROI1.tif" in error
  assert "ROI1.ome.tiff" in error
  assert {p.stem for p in (study / "out/masks").iterdir()} == {"ROI0", "ROI2"}


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (70, 50)])
def test_empty_and_tiny_images_are_done(study, model_folder, shape):
  stack = np.zeros((*shape, 3), np.float32)
  write.write_stack(study / "tiny/A.tiff", stack, NAMES)
  assert call(study, model_folder, images="tiny") == 0
  assert not tifffile.imread(study / "out/masks/A.tiff").any()
  counts = pd.read_csv(study / "out/intensities/A.csv")
  assert list(counts) == ["Object", *NAMES]
  assert len(counts) == 0
  state = json.loads((study / "out/state/A.json").read_text())
  assert any("DNA1" in line for line in state["report"]["warnings"])


def test_an_image_too_large_for_memory_costs_itself_only(
  study, model_folder, monkeypatch
):
  true_resample = preparation.to_network_grid

  def resample(image, *arguments):
    if image.shape[1] == 90:
      raise MemoryError("Unable to allocate 9 TiB")
    return true_resample(image, *arguments)

  monkeypatch.setattr(preparation, "to_network_grid", resample)
  assert call(study, model_folder) == 1
  failures = read_failures(study / "out")
  assert list(failures["image"]) == ["ROI2"]
  assert "too little memory" in failures["error"][0]


def test_a_full_disk_is_told(study, model_folder, monkeypatch):
  true_write = write.write_labels

  def write_until_full(path, *arguments):
    if pathlib.Path(path).stem == "ROI1":
      raise OSError(errno.ENOSPC, "No space left on device", str(path))
    true_write(path, *arguments)

  monkeypatch.setattr(write, "write_labels", write_until_full)
  assert call(study, model_folder) == 1
  failures = read_failures(study / "out")
  assert list(failures["image"]) == ["ROI1"]
  assert "No space left" in failures["error"][0]
  monkeypatch.setattr(write, "write_labels", true_write)
  assert call(study, model_folder) == 0


def spoil_panel(text):
  def spoil(study):
    (study / "panel.csv").write_text(text)
    return []

  return spoil


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (spoil_panel(PANEL.replace(",1,1,0", ",1,0,0")), "nuclear"),
    (spoil_panel(""), "panel.csv"),
    (lambda study: (study / "panel.csv").unlink() or [], "panel.csv"),
    (lambda study: ["--images=/nowhere/at/all"], "/nowhere/at/all"),
    (lambda study: ["--output=/proc/nothing"], "/proc/nothing"),
    (lambda study: ["--pixel_size_um=0"], "pixel_size_um"),
    (lambda study: ["--pixel_size_um=1000"], "expected 0.05 to 20.0 um"),
    (lambda study: ["--pixel_size_um=nan"], "expected 0.05 to 20.0 um"),
    (lambda study: ["--config.image.pixel_size_um=0.0"], "0.05 to 20.0 um"),
    (lambda study: ["--config.image.clip_percentile=0.0"], "up to 100"),
    (lambda study: ["--config.image.clip_percentile=101.0"], "up to 100"),
    (lambda study: ["--config.image.hot_pixel_counts=-1.0"], "0 or more"),
    (lambda study: ["--pixel_size_um=wide"], "wide"),
    (lambda study: ["--config.segment.scales=1"], "segment.scales"),
    (lambda study: ["--config.segment.preset=best"], "touching"),
    (lambda study: ["--config.image.preset=best"], "reference"),
    (lambda study: ["--config.model.width=64"], "expected 2"),
    (lambda study: ["--config.predict.tile_px=4"], "tile_px"),
    (lambda study: ["--checkpoint=/nowhere"], "config.json"),
    (lambda study: ["--config=/nowhere.py"], "/nowhere.py"),
    (lambda study: ["--num_workers=-1"], "num_workers"),
    (lambda study: ["stray"], "stray"),
  ],
)
def test_a_wrong_call_is_refused(
  study, model_folder, capfd, caplog, spoil, message
):
  more = spoil(study)
  assert call(study, model_folder, *more) == 2
  lines = capfd.readouterr().err.strip().splitlines()
  lines += [record.getMessage() for record in caplog.records]
  assert any(message in line for line in lines), lines
  assert not any("\n" in line or "Traceback" in line for line in lines)
  assert not list(study.glob("out/masks/*"))


def test_no_membrane_marker_is_a_warning(study, model_folder):
  panel = PANEL.replace(",1,0,1", ",1,0,0")
  (study / "panel.csv").write_text(panel)
  assert call(study, model_folder) == 0
  assert len(list((study / "out/masks").iterdir())) == 3
  report = (study / "out/report.html").read_text()
  assert "no membrane marker: where cells end is guessed" in report


def test_help_does_not_load_jax():
  code = (
    "import sys; from dicexmbd_jax import __main__ as m;"
    "m.main(['predict', '--help']);"
    "sys.exit(any(n in sys.modules for n in ('jax', 'numpy', 'scipy')))"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert result.returncode == 0
  assert "--pixel_size_um" in result.stdout


def test_the_network_runs_in_evaluation_mode(model_folder):
  model, _ = weights.read_model(model_folder)
  norms = [m for _, m in nnx.iter_graph(model) if isinstance(m, nnx.BatchNorm)]
  assert len(norms) == 6
  assert all(norm.use_running_average for norm in norms)
