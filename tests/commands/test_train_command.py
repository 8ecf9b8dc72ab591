"""`train` as its users call it: a model folder that predict can use."""

import json
import re

import fake_buckets
import jax
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import pytest
import record_datasets

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import compiled
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.model import weights as weights_lib
from dicexmbd_jax.simulate import study
from dicexmbd_jax.train import check, dataset, input_pipeline
from dicexmbd_jax.train import checkpoints as checkpoints_lib

CONFIG = """
from ml_collections import ConfigDict
from configs import default

def get_config():
  config = default.get_config()
  config.model.update(dict(width=2, depth=1))
  config.predict.update(dict(tile_px=64, batch_size=1))
  config.train.data = ConfigDict(
      {{"cells": {{"path": {records!r}, "weight": 1.0}}}})
  config.train.update(dict(num_steps=4, report_steps=2, warmup_steps=1,
                           batch_size=2, crop_px=16, eval_steps=2))
  config.train.augment.update(dict.fromkeys(config.train.augment, 0.0)
                              | dict(flip=False))
  return config
"""


OPENED = []  # Splits that the run below has opened to read them.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("train")
  records = record_datasets.write_cells(
    folder / "records", 16, train=5, validation=3
  )
  (folder / "mine.py").write_text(CONFIG.format(records=str(records)))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(input_pipeline, "Records", open_records)
    assert call(folder, "--profile_steps=2:3") == 0
  return folder


def open_records(path, split):
  OPENED.append(split)
  return dataset.Records(path, split)


def call(folder, *more, workdir="model"):
  return program.main(
    [
      "train",
      f"--config={folder / 'mine.py'}",
      f"--workdir={folder / workdir}",
      *more,
    ]
  )


def read_files(workdir):
  return {
    path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()
  }


def test_the_workdir_has_numbers_and_checkpoints(folder):
  log = pd.read_csv(folder / "model/metrics.csv", index_col="step")
  assert list(log.index) == [2, 4]
  names = {"loss", "learning_rate", "gradient_norm", "images_per_second"}
  names |= {"validation_loss", "f1_against_teachers_cells"}
  names |= {"model_tflops", "input_wait"}
  assert names <= set(log)
  assert 0 <= log.loc[4, "f1_against_teachers_cells"] <= 1
  assert log["input_wait"].between(0, 1).all()
  steps = {path.name for path in (folder / "model/checkpoints").iterdir()}
  assert steps == {"2", "4"}


def test_validation_opens_its_records_once_a_run(folder):
  assert OPENED == ["train", "validation"]


def test_a_run_in_a_bucket_is_that_on_disk_and_goes_on(
  folder, tmp_path, monkeypatch, caplog
):
  monkeypatch.setenv(compiled.VARIABLE, str(tmp_path))
  bucket = fake_buckets.use_buckets(monkeypatch)
  bucket.put(str(folder / "records"), "/bucket/records", recursive=True)
  flags = ["--workdir=s3://bucket/run"]
  flags += ["--config.train.data.cells.path=s3://bucket/records"]
  assert call(folder, *flags) == 0
  assert not list(tmp_path.glob("**/checkpoints"))
  names = {name.split("/")[3] for name in bucket.find("/bucket/run")}
  assert names >= {"best", "last", "metrics.csv", "checkpoints", "tensorboard"}
  wanted = (folder / "model/last/params.npz").read_bytes()
  assert bucket.cat("/bucket/run/last/params.npz") == wanted
  assert call(folder, *flags) == 0
  assert "going on after step 4" in caplog.text


def test_the_steps_asked_for_are_in_a_trace(folder):
  [path] = (folder / "model/profile").rglob("*.xplane.pb")
  trace = jax.profiler.ProfileData.from_file(str(path))
  steps = {
    dict(event.stats)["step_num"]
    for plane in trace.planes
    for line in plane.lines
    for event in line.events
    if event.name == "train"
  }
  assert steps == {2, 3}


@pytest.mark.parametrize("steps", ["3:2", "0:4", "5", "a:b"])
def test_windows_of_no_steps_are_refused(folder, steps, caplog):
  assert call(folder, f"--profile_steps={steps}", workdir="never") == 2
  assert f"--profile_steps: found '{steps}', expected" in caplog.text
  assert not (folder / "never").exists()


@pytest.mark.parametrize(
  ("weights", "meant"),
  [("model", "model/best"), ("model/last", "model/last")],
)
def test_predict_takes_a_run_and_its_model_folders(folder, weights, meant):
  list(study.simulate_study(folder / "study", 1, 0, 60))
  code = program.main(
    [
      "predict",
      f"--images={folder / 'study/img'}",
      f"--panel={folder / 'study/panel.csv'}",
      f"--output={folder / 'out'}",
      f"--checkpoint={folder / weights}",
    ]
  )
  assert code == 0
  run = json.loads((folder / "out/run.json").read_text())
  assert run["model"]["sha256"] == config_lib.hash_model(folder / meant)
  assert run["model"]["name"] == meant


def test_bfloat16_trains_and_keeps_float32_parameters(folder):
  # Another type of the computation is another run, with a folder of its own.
  assert call(folder, "--config.model.dtype=bfloat16", workdir="half") == 0
  table = pd.read_csv(folder / "half" / "metrics.csv")
  assert np.isfinite(table["loss"]).all()
  with np.load(folder / "half/best/params.npz") as arrays:
    assert {array.dtype.name for array in arrays.values()} == {"float32"}
  exact = pd.read_csv(folder / "model" / "metrics.csv")
  np.testing.assert_allclose(table["loss"], exact["loss"], rtol=0.02)
  assert (table["loss"] != exact["loss"]).any()


def test_shares_of_a_model_merge_where_it_is_named_again(folder):
  words = [
    "predict",
    f"--images={folder / 'study/img'}",
    f"--output={folder / 'shares'}",
    f"--checkpoint={folder / 'model'}",
  ]
  panel = f"--panel={folder / 'study/panel.csv'}"
  assert program.main([*words, panel, "--shard=0/1"]) == 0
  assert program.main([*words, "--merge"]) == 0
  words[-1] = f"--checkpoint={folder / 'model/best'}"
  assert program.main([*words, "--merge"]) == 0
  words[-1] = f"--checkpoint={config_lib.SHIPPED_MODEL}"
  assert program.main([*words, "--merge"]) == 2


def test_records_that_are_left_out_make_no_epoch_longer(folder):
  config = config_lib.read_config_file(folder / "mine.py")
  path = config.train.data.cells.path
  config.train.data.other = {"path": path, "weight": 0.0}
  config.train.num_epochs = 3
  assert check.complete_config(config).train.num_steps == 3 * (5 // 2)


def read_average(checkpoints, step):
  """Returns the averaged weights of a checkpoint, by their path."""
  with ocp.CheckpointManager(checkpoints) as manager:
    about = checkpoints_lib.read_about(manager, step)
    arrays = checkpoints_lib.read_arrays(manager, step, about)
  names = re.compile(r"average\.(?:params|stats)\.(.+)\.value")
  found = {names.fullmatch(name): array for name, array in arrays.items()}
  return {m[1].replace(".", "/"): array for m, array in found.items() if m}


def test_best_and_last_are_those_of_the_checkpoints(folder):
  log = pd.read_csv(folder / "model/metrics.csv", index_col="step")
  best = log["validation_loss"].idxmin()
  for name, step in (("best", best), ("last", 4)):
    model = folder / "model" / name
    assert {path.name for path in model.iterdir()} == {
      "config.json", "params.npz", "validation.json"
    }  # fmt: skip
    numbers = json.loads((model / "validation.json").read_text())
    assert numbers["step"] == step
    assert numbers["validation_loss"] == log.loc[step, "validation_loss"]
    wanted = read_average(folder / "model/checkpoints", step)
    with np.load(model / "params.npz") as found:
      assert found.keys() == wanted.keys()
      for array, values in wanted.items():
        np.testing.assert_array_equal(found[array], values)


def test_a_run_that_was_not_validated_has_no_best(folder, capfd):
  late = "--config.train.learning_rate=1e30"  # Stops before the validation.
  assert call(folder, late, workdir="late") == 1
  assert (folder / "late/last/params.npz").exists()
  capfd.readouterr()  # What the training told.
  words = ["--images=x", f"--output={folder / 'o'}"]
  for command, *more in (
    ["predict", *words],
    ["benchmark", *words, "--reference=x"],
    ["export", f"--output={folder / 'o'}"],
  ):
    code = program.main([command, *more, f"--checkpoint={folder / 'late'}"])
    assert code == 2
    [line] = [
      line for line in capfd.readouterr().err.splitlines() if "late" in line
    ]
    assert line == (
      f"dicexmbd: {folder / 'late'}: found a training run without best/, "
      f"expected {folder / 'late/best'}, which its first validation writes"
    )


def test_settings_of_a_run_that_goes_on_hold_for_its_models(folder):
  assert call(folder, workdir="again") == 0
  before = read_files(folder / "again/best")
  assert call(folder, "--config.segment.scale=3", workdir="again") == 0
  for name in ("best", "last"):
    config = config_lib.read_model_config(folder / "again" / name)
    assert config.segment.scale == 3
  path = folder / "again/best/params.npz"
  assert path.read_bytes() == before[path]


def test_a_finished_run_changes_nothing_when_called_again(folder):
  before = read_files(folder / "model")
  assert call(folder) == 0
  assert read_files(folder / "model") == before


def test_training_starts_from_given_weights(folder):
  start = f"--checkpoint={folder / 'model'}"
  still = "--config.train.learning_rate=0.0"
  assert call(folder, start, still, workdir="second") == 0
  first, _ = weights_lib.read_model(folder / "model/best")
  second, _ = weights_lib.read_model(folder / "second/last")
  np.testing.assert_array_equal(first.head.kernel[...], second.head.kernel[...])


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config.train.data.cells.path=/nowhere", "/nowhere: no such folder"),
    (
      "--config.train.num_epochs=ten",
      "config.train.num_epochs: found 'ten', expected a number above 0",
    ),
    (
      "--config.train.num_epochs=0",
      "num_epochs: found 0, expected a number ab",
    ),
    (
      "--config.train.num_steps=2.5",
      "num_steps: found 2.5, expected a whole n",
    ),
    (
      "--config.train.shard_above=ten",
      "shard_above: found 'ten', expected a w",
    ),
    (
      "--config.train.eval_steps=0",
      "eval_steps: found 0, expected a whole num",
    ),
    (
      "--config.model.dtype=float16",
      "dtype: found float16, expected float32 or",
    ),
    ("--config.train.loss=5", "train.loss: found 5, expected a section"),
    (
      "--config.train.loss.class_weights=(1,2)",
      "class_weights: found (1, 2), e",
    ),
    (
      "--config.train.loss.dice_weight=2",
      "dice_weight: found 2.0, expected a n",
    ),
    (
      "--config.train.data.cells.weight=-1",
      "train.data.cells.weight: found -1",
    ),
    (
      "--config.train.augment.flip=1",
      "augment.flip: found 1, expected true or",
    ),
    (
      "--config.train.augment.empty=2",
      "augment.empty: found 2.0, expected a n",
    ),
    ("--config.seed=x", "config.seed: found 'x', expected a whole number of 0"),
    ("--config.train.report_steps=0", "train.report_steps: found 0"),
    ("--config.train.batch_size=0", "train.batch_size: found 0"),
    ("--config.train.accumulate_steps=3", "expected a multiple of 3"),
    ("--config.train.crop_px=15", "expected a multiple of 2"),
    ("--config.train.crop_px=18", "expected at most 16"),
    ("--config.train.schedule=best", "expected 'constant', 'plateau' or 'co"),
    ("--config.train.learning_rate=-1.0", "learning_rate: found -1.0"),
    ("--config.train.optimizer=best", "train.optimizer"),
    ("--config.segment.preset=tuching", "preset"),
    ("--config.image.preset=papr", "preset"),
    ("--config.image.pixel_size_um=-1.0", "image.pixel_size_um: found -1.0"),
    ("--config.predict.views=3", "predict.views: found 3"),
    ("--config.train.augment.dim=-1.0", "augment.dim: found -1.0, expected"),
    ("--num_processes=2", "expected HOST:PORT or auto"),
    ("--coordinator=localhost:1", "expected also --num_processes"),
  ],
)
def test_a_wrong_call_is_refused_before_anything_is_written(
  folder, capfd, caplog, argument, message
):
  assert call(folder, argument, workdir="none") == 2
  lines = capfd.readouterr().err.splitlines()
  lines += [record.getMessage() for record in caplog.records]
  assert any(message in line for line in lines), lines
  assert not (folder / "none").exists()


def test_another_network_is_not_started_from(folder, caplog):
  start = f"--checkpoint={folder / 'model'}"
  assert call(folder, start, "--config.model.width=4", workdir="none") == 2
  assert "config.model.width: found 4, expected 2" in caplog.text


def test_another_configuration_is_another_run(folder, caplog):
  before = read_files(folder / "model")
  assert call(folder, "--config.train.learning_rate=0.5") == 2
  assert "train.learning_rate: found 0.5, expected 0.003" in caplog.text
  assert read_files(folder / "model") == before


def test_a_run_can_be_made_longer(folder, caplog):
  assert call(folder, workdir="longer") == 0
  assert call(folder, "--config.train.num_steps=6", workdir="longer") == 0
  log = pd.read_csv(folder / "longer/metrics.csv")
  assert list(log["step"]) == [2, 4, 6]
  assert call(folder, "--config.train.num_steps=4", workdir="longer") == 2
  assert "num_steps: found 4, expected 6 or more" in caplog.text


@pytest.mark.parametrize("name", ["params.npz", "best/x", "last/x"])
def test_a_model_without_checkpoints_is_not_overwritten(
  folder, tmp_path, caplog, name
):
  folder.joinpath("shipped").unlink(missing_ok=True)
  other = folder / "shipped"
  other.symlink_to(tmp_path)
  (other / name).parent.mkdir(exist_ok=True)
  (other / name).write_bytes(b"weights")
  assert call(folder, workdir="shipped") == 2
  assert "found a model without checkpoints" in caplog.text
  assert (other / name).read_bytes() == b"weights"


def test_a_loss_that_is_not_finite_stops_and_keeps_what_was(folder, caplog):
  wild = "--config.train.learning_rate=1e30"
  assert call(folder, wild, workdir="wild") == 1
  assert "expected finite numbers; records cells-train-" in caplog.text
  assert list((folder / "wild/checkpoints").iterdir())
  model, _ = weights_lib.read_model(folder / "wild/last")
  assert np.isfinite(model.head.kernel[...]).all()
