import importlib
import os
import pathlib

import numpy as np
import pytest
import viewer_studies

from dicexmbd_jax.io import write
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.viewer import corrections, tuning
from dicexmbd_jax.viewer.study import find_study

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = {"CD45": "membrane", "DNA1": "nuclear", "Ki67": ""}


@pytest.fixture
def output(tmp_path):
  """A study's results, of which one image is corrected."""
  folder = viewer_studies.write_output(tmp_path / "out")
  before = viewer_studies.make_cells()
  author = {"user": "me", "time": "2026-01-31T12:00:00Z"}
  after = np.where(before == 2, 1, before)
  corrections.write_corrections(folder, "ROI1", before, after, author)
  return folder


def call(folder, roles=ROLES):
  return tuning.make_call(
    find_study(folder), roles, folder, folder / "finetuned"
  )


def test_the_call_takes_the_studys_images_and_panel(output):
  assert call(output) == [
    "finetune",
    f"--images={output / 'img'}",
    f"--panel={output / 'panel.csv'}",
    f"--masks={output / 'corrected'}",
    f"--output={output / 'finetuned'}",
  ]


def test_the_call_has_the_pixel_size_that_the_run_was_told(output):
  record = {"hashes": {"pixel_size_um": "0.5"}}
  write.write_json(output / "run.json", record)
  assert "--pixel_size_um=0.5" in call(output)
  write.write_json(output / "run.json", {"hashes": {"pixel_size_um": "None"}})
  assert not any("pixel_size_um" in word for word in call(output))


@pytest.mark.parametrize(
  ("stems", "place"),
  [
    (["ROI1"], "img/ROI1.ome.tiff"),
    (["ROI1", "ROI2"], "img"),
    (["ROI1", "ROI3"], "img/ROI1.ome.tiff"),  # ROI3 is not beside it.
  ],
)
def test_an_image_opened_singly_goes_with_the_corrected_ones_beside_it(
  output, stems, place
):
  cells = viewer_studies.make_cells()
  folder = output / "img/segmented"
  for stem in stems:
    write.write_labels(folder / f"corrected/{stem}.tiff", cells)
  study = find_study(output / "img/ROI1.ome.tiff")
  words = tuning.make_call(study, ROLES, folder, folder / "finetuned")
  assert f"--images={output / place}" in words


def test_an_image_that_its_folder_would_lose_stays_the_only_one(
  output,
):
  """Of two files of one name neither is taken."""
  cells = viewer_studies.make_cells()
  folder = output / "img/segmented"
  for stem in ("ROI1", "ROI2"):
    write.write_labels(folder / f"corrected/{stem}.tiff", cells)
  write.write_labels(output / "img/ROI1.tiff", cells)
  path = output / "img/ROI1.ome.tiff"
  words = tuning.make_call(find_study(path), ROLES, folder, folder / "tuned")
  assert f"--images={path}" in words


def test_other_ticks_make_another_panel(output):
  roles = ROLES | {"DNA1": "", "Ki67": "nuclear"}
  assert f"--panel={output / 'finetuned/ticked_panel.csv'}" in call(
    output, roles
  )
  rows = read_panel(output / "finetuned/ticked_panel.csv").rows
  assert [row.name for row in rows if row.is_nuclear] == ["Ki67"]
  assert [row.name for row in rows if row.is_membrane] == ["CD45"]


def test_a_study_without_a_panel_gets_one(output):
  (output / "panel.csv").unlink()
  call(output)
  rows = read_panel(output / "finetuned/ticked_panel.csv").rows
  assert [row.name for row in rows] == list(ROLES)
  with pytest.raises(ValueError, match="tick it in Segment"):
    call(output, dict.fromkeys(ROLES, ""))


def test_without_corrections_or_images_it_is_one_line(output):
  for path in (output / "corrected").iterdir():
    path.unlink()
  with pytest.raises(ValueError, match="found no corrected cells"):
    call(output)
  for path in (output / "img").iterdir():
    path.unlink()
  (output / "img").rmdir()
  with pytest.raises(ValueError, match="found no images"):
    call(output)


def test_newer_corrections_get_a_folder_of_their_own(output):
  assert tuning.choose_output(output) == output / "finetuned"
  write.write_json(output / "finetuned/work/plan.json", {})
  assert tuning.choose_output(output) == output / "finetuned"
  later = (output / "finetuned/work/plan.json").stat().st_mtime + 10
  os.utime(output / "corrected/ROI1.tiff", (later, later))
  assert tuning.choose_output(output) == output / "finetuned_2"


@pytest.fixture
def box(wait_until, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  made = importlib.import_module("dicexmbd_jax.viewer.tune_box").TuneBox()
  yield made
  made.stop()
  wait_until(lambda: not made.is_busy())


def test_a_wrong_call_is_its_last_line(box, wait_until, tmp_path):
  words = ["finetune", f"--images={tmp_path}", f"--output={tmp_path / 'out'}"]
  box.start([*words, "--panel=/nowhere.csv", f"--masks={tmp_path}"], tmp_path)
  assert not box.run.isEnabled()
  wait_until(lambda: not box.is_busy())
  assert "/nowhere.csv: found" in box.message.text()
  assert "\n" not in box.message.text()
  assert box.run.isEnabled() and not box.cancel.isEnabled()


@pytest.mark.parametrize("code", [0, 1])
def test_files_that_could_not_be_used_are_told(
  wait_until, monkeypatch, tmp_path, code
):
  """A stand-in for `finetune` ends as it does where a file failed."""
  module = importlib.import_module("dicexmbd_jax.viewer.tune_box")
  program = tmp_path / "dicexmbd_jax"
  program.mkdir()
  (program / "__init__.py").touch()
  (program / "__main__.py").write_text(f"raise SystemExit({code})")
  output = tmp_path / "finetuned"
  found = {"model": str(output), "is_better": False, "verdict": "not better"}
  write.write_json(output / "finetune.json", found)
  monkeypatch.chdir(tmp_path)
  box = module.TuneBox()
  box.start(["finetune"], output)
  wait_until(lambda: not box.is_busy())
  assert "Not better." in box.message.text()
  line = f"Some files could not be used: see {output / 'failures.csv'}."
  assert (line in box.message.text()) == bool(code)


def test_a_fine_tuning_can_be_cancelled(box, wait_until, output):
  box.start(call(output), output / "finetuned")
  box.cancel.click()
  wait_until(lambda: not box.is_busy())
  assert "Stopped before there was a model" in box.message.text()
  assert box.result is None


def test_a_box_that_is_closed_ends_its_process_in_order(
  wait_until, monkeypatch, tmp_path
):
  """A stand-in for `finetune` tells which signal it got."""
  qt = importlib.import_module("qtpy.QtCore")
  module = importlib.import_module("dicexmbd_jax.viewer.tune_box")
  program = tmp_path / "dicexmbd_jax"
  program.mkdir()
  (program / "__init__.py").touch()
  (program / "__main__.py").write_text(
    "import pathlib, signal, sys, time\n"
    "def end(number, frame):\n"
    "  pathlib.Path('ended').write_text(signal.Signals(number).name)\n"
    "  sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "pathlib.Path('begun').touch()\n"
    "time.sleep(60)\n"
  )
  monkeypatch.chdir(tmp_path)
  box = module.TuneBox()
  box.start(["finetune"], tmp_path / "finetuned")
  wait_until((tmp_path / "begun").exists)
  box.deleteLater()
  del box
  events = qt.QCoreApplication
  events.sendPostedEvents(None, qt.QEvent.Type.DeferredDelete)
  wait_until((tmp_path / "ended").exists)
  assert (tmp_path / "ended").read_text() == "SIGTERM"
