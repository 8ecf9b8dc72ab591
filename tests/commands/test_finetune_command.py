"""`finetune` as its users call it, with a network of two channels."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import cellprofiler
import numpy as np
import pytest
import tifffile
import tiny_models

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.finetuning import fit, reading, samples, training
from dicexmbd_jax.finetuning import study as tuning
from dicexmbd_jax.io import labels, write
from dicexmbd_jax.model import weights
from dicexmbd_jax.runs.failures import FailureLog
from dicexmbd_jax.simulate import study
from dicexmbd_jax.train import targets
from dicexmbd_jax.viewer import corrections

SCORES = {"num_labelled": 9.0, "f1": 0.5, "f1_low": 0.4, "f1_high": 0.6}
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
  """The tiny network, trained in crops that suit small images."""
  return tiny_models.write_tiny_model(tmp_path_factory.mktemp("small"), 32)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
  """Two simulated images with their truth."""
  folder = tmp_path_factory.mktemp("tissue")
  list(study.simulate_study(folder, 2, 3, 96))
  return folder


def call(tissue, model, output, *flags, masks="masks"):
  return program.main(
    [
      "finetune", f"--images={tissue / 'img'}",
      f"--panel={tissue / 'panel.csv'}", f"--output={output}",
      f"--checkpoint={model}", "--minutes=0.05",
      *([f"--masks={tissue / 'truth' / masks}"] if masks else []), *flags,
    ]
  )  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tissue, small_model, tmp_path_factory):
  output = tmp_path_factory.mktemp("tuned") / "model"
  assert call(tissue, small_model, output) == 0
  return output


def read_result(output):
  return json.loads((output / "finetune.json").read_text())


def test_a_model_and_what_it_is_worth(tuned):
  found = read_result(tuned)
  assert found["is_complete"]
  model = pathlib.Path(found["model"])
  assert model == (tuned if found["is_better"] else tuned / "not_better")
  _, config = weights.read_model(model)
  assert config.predict.magnification == 1.0
  scores = found["scores"]["after"]
  assert 0 <= scores["f1_low"] <= scores["f1"] <= scores["f1_high"] <= 1
  assert scores["num_labelled"] > 0
  assert found["num_steps"] > 0


def test_a_model_that_is_not_better_is_kept_apart(tuned):
  found = read_result(tuned)
  assert (tuned / "config.json").exists() == found["is_better"]
  assert ("not better" in found["verdict"]) != found["is_better"] or (
    "not shown" in found["verdict"]
  )


def test_the_report_needs_nothing_but_itself(tuned):
  page = (tuned / "report.html").read_text()
  assert "Fine-tuned model" in page
  assert page.count("data:image/png;base64,") == 2
  assert "http:" not in page and "https:" not in page


@pytest.mark.slow
def test_the_same_call_goes_on(tuned, tissue, small_model, caplog):
  steps = read_result(tuned)["num_steps"]
  assert call(tissue, small_model, tuned, "--minutes=0.1") == 0
  assert "going on after step" in caplog.text
  assert read_result(tuned)["num_steps"] > steps


def test_another_study_in_the_folder_is_refused(
  tuned, tissue, small_model, caplog
):
  assert call(tissue, small_model, tuned, masks="nuclei") == 2
  assert "other images or labels" in caplog.text


@pytest.mark.parametrize(
  ("flag", "line"),
  [
    ("--pixel_size_um=0.5", "another pixel size"),
    ("--config.predict.magnification=1.5", "another magnification"),
  ],
)
def test_another_size_is_another_fine_tuning(
  tuned, tissue, small_model, caplog, flag, line
):
  assert call(tissue, small_model, tuned, flag) == 2
  assert f"found the work of a fine-tuning with {line}" in caplog.text


@pytest.fixture
def untrained(monkeypatch):
  """Training that learns nothing; whether it comes to its end can be set."""
  ending = types.SimpleNamespace(is_complete=True)

  def train(model, config, work, score, plan):
    return training.Course(plan[1], []), ending.is_complete

  monkeypatch.setattr(training, "train", train)
  return ending


def test_ctrl_c_while_settings_are_fitted_leaves_a_model(
  untrained, tissue, small_model, tmp_path, monkeypatch
):
  asked = []

  def fit_settings(shown, maps, config, is_over, tell):
    os.kill(os.getpid(), signal.SIGINT)
    asked.append(is_over())
    return config

  monkeypatch.setattr(fit, "fit_settings", fit_settings)
  before = signal.getsignal(signal.SIGINT)
  assert call(tissue, small_model, tmp_path / "model") == 75
  assert asked == [True]
  assert signal.getsignal(signal.SIGINT) is before
  found = read_result(tmp_path / "model")
  assert not found["is_complete"]
  assert pathlib.Path(found["model"], "params.npz").exists()


def test_fitted_settings_stay_where_a_run_that_goes_on_is_stopped(
  untrained, tissue, small_model, tmp_path, monkeypatch
):
  def fit_settings(shown, maps, config, is_over, tell):
    found = config.copy_and_resolve_references()
    fit.set_value(found, "smoothing_px", 0.5)
    return found

  monkeypatch.setattr(fit, "fit_settings", fit_settings)
  output = tmp_path / "model"
  assert call(tissue, small_model, output) == 0
  settings = read_result(output)["settings"]
  assert settings["segment.smoothing_px"] == 0.5
  untrained.is_complete = False
  assert call(tissue, small_model, output) == 75
  assert read_result(output)["settings"] == settings


def test_other_settings_are_another_fine_tuning(
  untrained, tissue, small_model, tmp_path, caplog
):
  output, flag = tmp_path / "model", "--config.segment.smoothing_px=1.5"
  untrained.is_complete = False
  assert call(tissue, small_model, output) == 75
  assert call(tissue, small_model, output, flag) == 2
  assert "a fine-tuning with other settings of segment" in caplog.text


@pytest.mark.parametrize("is_complete", [False, True])
def test_a_run_that_was_stopped_takes_no_better_model_away(
  small_model, tmp_path, is_complete
):
  model, config = weights.read_model(small_model)
  weights.write_model(tmp_path, model, config)
  result = tuning.Result(
    tmp_path, False, is_complete, "not better", {"before": {}, "after": SCORES},
    (),
    {
      "way": "by image", "judged_by": "objects", "num_steps": 1,
      "settings": {}, "factors": (1.0,),
      "difference": (0.1, float("nan"), float("nan")),
    },
  )  # fmt: skip
  assert tuning.export(result, model, config).folder == tmp_path / "not_better"
  assert (tmp_path / "params.npz").exists() == (not is_complete)
  assert read_result(tmp_path)["difference"] == [0.1, None, None]


def test_the_model_predicts(tuned, tissue, tmp_path):
  code = program.main(
    [
      "predict", f"--images={tissue / 'img' / 'ROI001.tiff'}",
      f"--panel={tissue / 'panel.csv'}", f"--output={tmp_path}",
      f"--checkpoint={read_result(tuned)['model']}", "--num_workers=0",
    ]
  )  # fmt: skip
  assert code == 0


def read_truth(tissue, kind):
  return {
    path.stem: labels.read_labels(path)
    for path in sorted((tissue / "truth" / kind).glob("*.tiff"))
  }


@pytest.mark.slow
def test_corrected_cells_alone_are_learnt_from(tissue, small_model, tmp_path):
  number = 0
  for stem, cells in read_truth(tissue, "masks").items():
    # Every third cell was lost, and is drawn.
    before = np.where(cells % 3 == 0, 0, cells)
    author = {"user": "me", "time": "2026-01-31T12:00:00Z"}
    table = corrections.write_corrections(
      tmp_path / "out", stem, before, cells, author
    )
    assert set(table["action"]) == {"added"}
    number += len(table)
  output = tmp_path / "model"
  flags = f"--masks={tmp_path / 'out/corrected'}"
  assert call(tissue, small_model, output, flags, masks=None) == 0
  found = read_result(output)
  # Of two images a part judges, with a quarter of the labels.
  assert 0 < found["scores"]["after"]["num_labelled"] < number / 2
  assert found["num_steps"] > 0


@pytest.mark.slow
def test_a_teachers_maps_are_learnt_from(tissue, small_model, tmp_path):
  nuclei = read_truth(tissue, "nuclei")
  for stem, cells in read_truth(tissue, "masks").items():
    maps = targets.make_target(cells, 0.7, nuclei[stem])
    write.write_probabilities(tmp_path / f"probabilities/{stem}.tiff", maps)
  output = tmp_path / "model"
  flags = f"--teacher={tmp_path}"
  assert call(tissue, small_model, output, flags, masks=None) == 0
  found = read_result(output)
  assert found["scores"]["after"]["num_labelled"] > 0
  assert "Fine-tuned model" in (output / "report.html").read_text()


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 0, 1]])
def test_a_teachers_maps_in_another_order_are_told(tmp_path, order):
  maps = (cellprofiler.draw_rings() - 0.1) / np.float32(0.8)
  names = ("nuclear", "membrane")
  write.write_stack(tmp_path / "img/a.tiff", 20 * maps[..., :2], names)
  path = tmp_path / "probabilities/a.tiff"
  write.write_probabilities(path, maps[..., order])
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  (found,) = reading.read_samples(
    str(tmp_path / "img"), None, {"maps": str(tmp_path)},
    (config.image, None, samples.WHOLE), FailureLog(),
  )  # fmt: skip
  told = [line for line in found.doubts if "are the maps" in line]
  assert len(told) == (order != [0, 1, 2])
  assert all(line.startswith(f"{path}: ") for line in told)


@pytest.mark.slow
def test_membranes_alone_are_learnt_from(tissue, small_model, tmp_path):
  nuclei = read_truth(tissue, "nuclei")
  for stem, cells in read_truth(tissue, "masks").items():
    drawn = (cells > 0) & (nuclei[stem] == 0)
    path = tmp_path / f"drawn/{stem}.tiff"
    write.write_labels(path, drawn.astype(np.int32))
  output = tmp_path / "model"
  flags = f"--membrane={tmp_path / 'drawn'}"
  assert call(tissue, small_model, output, flags, masks=None) == 0
  assert 0 <= read_result(output)["scores"]["after"]["f1"] <= 1
  page = (output / "report.html").read_text()
  assert page.count("data:image/png;base64,") == 2


@pytest.mark.parametrize(
  ("flags", "masks", "line"),
  [
    ((), None, "found no labels, expected one of --masks"),
    (("--minutes=0",), "masks", "--minutes: found 0"),
    (("--labelled=some",), "masks", "--labelled: found some"),
    (("--membrane=x",), "masks", "found labels of cells and membrane"),
    (("--config.train.batch_size=2",), "masks", "--config.train"),
    (("--masks=x",), "masks", "--masks: found 2 folders"),
  ],
)
def test_a_wrong_call_is_one_line(
  tissue, small_model, tmp_path, caplog, flags, masks, line
):
  code = call(tissue, small_model, tmp_path / "out", *flags, masks=masks)
  assert code == 2
  assert line in caplog.text
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "name", ["README.md", "report.html", "work/notes.txt", "not_better/a.txt"]
)
def test_files_of_others_are_not_written_over(
  tissue, small_model, tmp_path, caplog, name
):
  path = tmp_path / "lab" / name
  path.parent.mkdir(parents=True)
  path.write_text("mine")
  assert call(tissue, small_model, tmp_path / "lab", "--overwrite") == 2
  assert f"({name.split('/')[0]}), expected a new folder" in caplog.text
  assert path.read_text() == "mine"


def test_masks_that_fit_no_image_are_one_line_each(
  tissue, small_model, tmp_path, caplog
):
  for stem, shape in (("ROI001", (96, 95)), ("ROI002", (48, 48))):
    mask = np.kron(np.arange(4).reshape(2, 2), np.ones((20, 20), np.uint16))
    mask = np.pad(mask, [(0, size - 40) for size in shape])
    tifffile.imwrite(tmp_path / f"{stem}.tiff", mask.astype(np.uint16))
  code = call(
    tissue, small_model, tmp_path / "out", f"--masks={tmp_path}", masks=None
  )
  assert code == 2
  assert "found cells of 48 x 48 px (y, x), expected 96 x 96" in caplog.text
  assert "a mask of 0.5 times the image" in caplog.text
  assert "found labels for none of the 2 images" in caplog.text


@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_a_model_and_goes_on(
  tissue, small_model, tmp_path
):
  words = [
    sys.executable, "-m", "dicexmbd_jax", "finetune",
    f"--images={tissue / 'img'}", f"--panel={tissue / 'panel.csv'}",
    f"--nuclei={tissue / 'truth' / 'nuclei'}", f"--checkpoint={small_model}",
    f"--output={tmp_path / 'model'}", "--minutes=5",
  ]  # fmt: skip
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  process = subprocess.Popen(
    words, env=environment, stderr=subprocess.PIPE, text=True
  )
  work = tmp_path / "model" / "work"
  deadline = time.monotonic() + 200
  while not (work / "checkpoints").is_dir() and time.monotonic() < deadline:
    time.sleep(0.2)
  time.sleep(4)  # Some steps.
  process.send_signal(signal.SIGTERM)
  _, told = process.communicate(timeout=200)
  assert process.returncode == 75, told
  assert "the same call goes on" in told
  found = read_result(tmp_path / "model")
  assert not found["is_complete"]
  assert pathlib.Path(found["model"], "params.npz").exists()
