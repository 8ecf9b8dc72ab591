"""Commands killed, stopped, and their files damaged after.

Builds that were killed go on in tests/data_builders, training runs in
tests/train.
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time

import mcd_files
import numpy as np
import pandas as pd
import pytest
import txt_files
from finished_runs import read_files

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import memory
from dicexmbd_jax.io import write
from dicexmbd_jax.runs import file_maker, lock, results, state
from dicexmbd_jax.runs.failures import FailureLog

NAMES = ("DNA", "CD45")
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
DNA,DNA,1,1,0
CD45,CD45,1,0,1
"""
KINDS = (
  *("probabilities", "nuclei", "masks", "intensities", "regionprops"),
  *("neighbors", "overlays", "state"),
)


@pytest.fixture
def study(tmp_path):
  """Six images of 64 round cells each, and a panel."""
  y, x = np.mgrid[:80, :80]
  distance = np.hypot(y % 10 - 4.5, x % 10 - 4.5)
  means = np.stack([20 * (distance < 3), 8 * (abs(distance - 4) < 1)], -1)
  for i in range(6):
    counts = np.random.default_rng(i).poisson(means).astype(np.float32)
    write.write_stack(tmp_path / f"study/ROI{i}.ome.tiff", counts, NAMES)
    maps = np.concatenate([means / 20, 1 - means[..., :1] / 20], -1)
    write.write_probabilities(tmp_path / f"maps/ROI{i}.tiff", maps, 1.0)
  (tmp_path / "panel.csv").write_text(PANEL)
  return tmp_path


def list_words(study, command, output="out"):
  words = [command, f"--output={study / output}", "--num_workers=0"]
  if command == "segment":
    return [*words, f"--probabilities={study / 'maps'}"]
  panel = f"--panel={study / 'panel.csv'}"
  return [*words, f"--images={study / 'study'}", panel, "--method=distance"]


def call(study, command="predict", output="out"):
  return program.main(list_words(study, command, output))


@pytest.mark.parametrize("command", ["predict", "segment"])
def test_a_second_run_into_one_folder_is_refused(study, command, caplog):
  with lock.hold(study / "out/.lock"):
    assert call(study, command) == 2
  assert "out: found a run at work in it (process " in caplog.text
  assert not (study / "out/masks").exists()
  assert call(study, command) == 0
  # What a dead process left is no lock.
  (study / "out/.lock").write_text("process 1 on another")
  assert call(study, command) == 0


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
  def refuse(file, how):
    raise OSError(errno.ENOSYS, "Function not implemented")

  monkeypatch.setattr(lock.fcntl, "flock", refuse)
  with lock.hold(tmp_path / ".lock"), lock.hold(tmp_path / ".lock"):
    pass


def test_failures_may_be_allowed(study):
  words = [*list_words(study, "predict"), "--allow_failures"]
  (study / "study/ROI0.ome.tiff").write_bytes(b"II*")
  assert program.main(words) == 0
  failures = pd.read_csv(study / "out/failures.csv")
  assert len(failures) == 1
  assert program.main(words[:-1]) == 1
  for path in (study / "study").iterdir():
    path.write_bytes(b"II*")
  assert program.main(words) == 1


def add_odd_images(study):
  """Adds images that cannot be used, or have no signal."""
  rng = np.random.default_rng(9)
  counts = rng.poisson(9, (90, 70, 2)).astype(np.float32)
  damaged = counts.copy()
  damaged[80:84, 3, 1] = np.nan
  write.write_stack(study / "study/holes.ome.tiff", damaged, NAMES)
  damaged = counts.copy()
  damaged[85, 60, 0] = -np.inf
  write.write_stack(study / "study/infinite.ome.tiff", damaged, NAMES)
  for name, value in (("empty", 0), ("constant", 7)):
    plain = np.full_like(counts, value)
    write.write_stack(study / f"study/{name}.ome.tiff", plain, NAMES)
  path = study / "study/whole.ome.tiff"
  write.write_stack(path, counts, NAMES)
  data = path.read_bytes()
  (study / "study/cut.ome.tiff").write_bytes(data[: len(data) * 2 // 3])
  lines = txt_files.format_lines(counts, ("DNA(Ir191Di)", "CD45(Pr141Di)"))
  (study / "study/short.txt").write_text("\n".join(lines)[:-9])
  blocks = [mcd_files.make_block(counts) for _ in range(3)]
  blocks[1].pixels[4000:] = 0  # Stopped.
  blocks[2].end = 10**7  # Behind the end of the file.
  mcd_files.write_mcd(study / "study/slide.mcd", blocks)


def test_odd_images_have_one_line_each_in_strips_as_well(
  study, caplog, cut_finely
):
  add_odd_images(study)
  (study / "panel.csv").write_text(
    "channel,name,keep,nuclear,membrane_cytoplasm\n"
    "Ir191,DNA,1,1,0\nPr141,CD45,1,0,1\n"
  )
  told = {}
  for output in ("out", "cut"):
    caplog.clear()
    with cut_finely() if output == "cut" else contextlib.nullcontext():
      assert call(study, output=output) == 1
    told[output] = [
      record.getMessage().replace(str(study / output), "")
      for record in caplog.records
      if record.name == "absl" and record.levelname in ("WARNING", "ERROR")
    ]
  assert told["out"] == told["cut"]
  assert read_files(study / "out") == read_files(study / "cut")
  failures = pd.read_csv(study / "cut/failures.csv").set_index("image")["error"]
  for name, message in {
    "holes": "marker CD45: found 4 NaN of 6300 pixels",
    "infinite": "marker DNA: found 1 infinite",
    "cut": "found a truncated",
    "short": "(truncated in line 6301), expected 8",
    "slide_003": "found unreadable data",
  }.items():
    assert message in failures[name], name
  warned = "\n".join(told["cut"])
  assert "slide_002: acquisition 2 has 4000 of 6300 pixels" in warned
  for name in ("DNA", "CD45"):  # Both images have it, and it is told once.
    assert f"marker {name} is empty or constant and counts as zeros" in warned
  for name in ("empty", "constant"):
    cells = pd.read_csv(study / f"cut/regionprops/{name}.csv")
    assert cells.empty


def test_a_large_image_without_room_costs_one_line(
  study, caplog, cut_finely, monkeypatch
):
  """Neither on the disk nor in memory."""
  counts = np.random.default_rng(9).poisson(9, (400, 400, 2))
  write.write_stack(study / "study/ROI9.ome.tiff", counts, NAMES)
  assert call(study, output="whole") == 0

  def refuse(file, offset, length):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "posix_fallocate", refuse)
  monkeypatch.setenv(memory.VARIABLE, "0.0021")
  with cut_finely():
    assert call(study) == 1
  failures = pd.read_csv(study / "out/failures.csv")
  assert list(failures["image"]) == ["ROI9"]
  (line,) = failures["error"]
  assert "found too little memory (0.00" in line
  assert f"in {study / 'out'}: No space left on device" in line
  assert "\n" not in line
  files, whole = read_files(study / "out"), read_files(study / "whole")
  assert len(files) > 30
  assert files == {name: whole[name] for name in files}
  monkeypatch.undo()
  assert call(study) == 0
  assert read_files(study / "out") == whole


def test_a_run_that_fails_at_its_end_is_not_running(study, caplog, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as full:
    full.setattr(results, "write_run", refuse)
    assert call(study) == 1
  assert "No space left on device" in caplog.text
  record = json.loads((study / "out/run.json").read_text())
  assert (record["state"], record["num_images"]) == ("stopped", 6)
  assert call(study) == 0
  assert "state" not in json.loads((study / "out/run.json").read_text())


@pytest.mark.parametrize("ending", ["full", "interrupted"])
def test_a_share_of_segment_that_does_not_end_is_not_running(
  study, monkeypatch, ending
):
  words = [*list_words(study, "segment"), "--shard=0/1"]

  def refuse(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  def end(maker, images, num_workers, failures):
    do_images(maker, images[:2], num_workers, failures)
    if ending == "interrupted":
      raise KeyboardInterrupt
    monkeypatch.setattr(FailureLog, "write_file", refuse)

  do_images = file_maker.do_images
  monkeypatch.setattr(file_maker, "do_images", end)
  assert program.main(words) == (130 if ending == "interrupted" else 1)
  path = study / "out/shards/0-of-1.json"
  record = json.loads(path.read_text())
  assert (record["state"], record["num_images"]) == ("stopped", 2)
  monkeypatch.undo()
  assert program.main(words) == 0
  record = json.loads(path.read_text())
  assert (record["state"], record["num_images"]) == ("done", 6)


def stop(study, command, number):
  """Starts a command and stops it after its first image; its exit code."""
  words = list_words(study, command)
  process = subprocess.Popen(
    [sys.executable, "-m", "dicexmbd_jax", *words],
    stderr=subprocess.PIPE,
    text=True,
  )
  folder = study / "out/state"
  while not (folder.is_dir() and any(folder.glob("[!.]*.json"))):
    assert process.poll() is None
    time.sleep(0.002)
  process.send_signal(number)
  _, told = process.communicate()
  return process.returncode, told


@pytest.mark.parametrize("command", ["predict", "segment"])
def test_a_killed_run_goes_on_and_leaves_no_temporary_file(study, command):
  code, _ = stop(study, command, signal.SIGKILL)
  assert code == -signal.SIGKILL
  folder = study / "out/masks"
  (folder / ".ROI5.tiff.0123abcd.tmp").write_text("cut")
  (folder.parent / ".run.json.0123abcd.tmp").write_text("cut")
  kept = {path: path.stat() for path in (study / "out/state").glob("R*.json")}
  assert call(study, command) == 0
  for path, status in kept.items():
    assert path.stat().st_mtime_ns == status.st_mtime_ns
  assert not list((study / "out").rglob("*.tmp"))
  assert call(study, command, "whole") == 0
  assert read_files(study / "out") == read_files(study / "whole")


def test_sigterm_ends_predict_in_one_line(study):
  code, told = stop(study, "predict", signal.SIGTERM)
  assert code == 143
  assert told.splitlines()[-1] == "dicexmbd: terminated"
  assert "Traceback" not in told
  record = json.loads((study / "out/run.json").read_text())
  assert record["state"] == "stopped"
  assert 1 <= record["num_images"] < 6
  assert call(study) == 0
  assert "state" not in json.loads((study / "out/run.json").read_text())


def damage(path, way):
  data = path.read_bytes()
  if way == "gone":
    path.unlink()
  elif way == "emptied":
    path.write_bytes(b"")
  elif way == "cut":
    path.write_bytes(data[: len(data) // 2])
  else:
    middle = len(data) // 2
    flipped = bytes([data[middle] ^ 1])
    path.write_bytes(data[:middle] + flipped + data[middle + 1 :])


@pytest.mark.parametrize("way", ["gone", "emptied", "cut", "flipped"])
def test_damaged_files_are_made_again(study, way):
  assert call(study) == 0
  assert call(study, output="whole") == 0
  out = study / "out"
  kinds = [kind for kind in KINDS if (out / kind).is_dir()]
  for i, kind in enumerate(kinds[:6]):
    damage(next((out / kind).glob(f"ROI{i}.*")), way)
  damage(out / "state/ROI5.json", way)
  assert call(study) == 0
  assert read_files(out) == read_files(study / "whole")
  assert state.read(out, "ROI5")["row"]["image"] == "ROI5.tiff"


@pytest.mark.parametrize("text", ["[]", "{}", '{"key": 1}', "\x00", "9" * 5000])
def test_a_state_that_is_none_is_made_again(study, text):
  assert call(study, "segment") == 0
  path = study / "out/state/ROI3.json"
  path.write_text(text)
  assert call(study, "segment") == 0
  assert state.read(study / "out", "ROI3")["files"].keys() == {
    "nuclei",
    "masks",
  }


@pytest.mark.parametrize("command", ["predict", "segment"])
def test_files_of_images_that_left_the_input_are_moved(study, command, caplog):
  assert call(study, command) == 0
  out = study / "out"
  mask = (out / "masks/ROI1.tiff").read_bytes()
  for name in ("study/ROI1.ome.tiff", "maps/ROI1.tiff"):
    (study / name).unlink()
  assert call(study, command) == 0
  assert not list(out.glob("*/ROI1.*"))
  assert (out / "stale/001/masks/ROI1.tiff").read_bytes() == mask
  assert (out / "stale/001/state/ROI1.json").is_file()
  assert len(list(out.glob("masks/*.tiff"))) == 5
  assert any("1 images that left the input" in line for line in caplog.messages)
  if command == "predict":
    table = pd.read_csv(out / "images.csv")
    assert "ROI1.tiff" not in set(table["image"])


def test_files_that_a_damaged_archive_may_still_hold_stay(study):
  assert call(study, "segment") == 0
  (study / "maps/ROI1.tiff").unlink()
  (study / "maps/more.zip").write_text("no archive")
  assert call(study, "segment") == 1
  assert (study / "out/masks/ROI1.tiff").is_file()


def test_sigterm_ends_a_build_in_one_line(study):
  (study / "tmp").mkdir()
  for name in ("masks", "nuclei"):
    for i in range(6):
      labels = np.kron(np.arange(64).reshape(8, 8), np.ones((10, 10), int))
      path = study / f"truth/{name}/ROI{i}.tiff"
      write.write_labels(path, labels.astype(np.int32))
  words = [
    *(sys.executable, "-m", "data_builders.build", f"--output={study / 'out'}"),
    *(f"--images={study / 'study'}", f"--panel={study / 'panel.csv'}"),
    *(f"--teacher={study / 'truth'}", "--num_workers=0"),
    "--config.records.patch_px=32",
  ]
  options = {"env": {**os.environ, "TMPDIR": str(study / "tmp")}, "text": True}
  process = subprocess.Popen(words, stderr=subprocess.PIPE, **options)
  while not any((study / "out/.parts").glob("[!.]*.part")):
    assert process.poll() is None
    time.sleep(0.002)
  process.send_signal(signal.SIGTERM)
  _, told = process.communicate()
  assert process.returncode == 143
  assert told.splitlines()[-1] == "build: terminated; the same call goes on"
  assert "Traceback" not in told
  assert list((study / "tmp").iterdir()) == []
  assert subprocess.run(words, check=False, **options).returncode == 0
  assert not list((study / "out").rglob("incomplete*"))
