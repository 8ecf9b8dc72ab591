"""export: a model folder that predicts the same, and its card."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.model import unet, weights


def write_run(folder, seed=3):
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  config.seed = 0
  config.model.update({"width": 4, "depth": 2})
  config.train = ConfigDict(
    {
      "data": {"spleen": {"path": "records", "weight": 0.5}},
      "num_steps": 30,
      "batch_size": 4,
      "crop_px": 64,
    }
  )
  model = unet.build_model(config.model, seed=seed)
  numbers = {"step": 20, "validation_loss": 0.3}
  weights.write_model(folder / "best", model, config, "float32", numbers)


def test_exported_model_is_small_and_answers_the_same(tmp_path):
  write_run(tmp_path / "run")
  call = [f"--checkpoint={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]
  assert program.main(["export", *call]) == 0
  names = {path.name for path in (tmp_path / "out").iterdir()}
  assert names == {
    "params.npz", "config.json", "README.md", "validation.json"
  }  # fmt: skip
  image = jnp.asarray(
    np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 2)), jnp.float32
  )
  answers = [
    np.asarray(weights.read_model(tmp_path / name)[0](image))
    for name in ("run/best", "out")
  ]
  # float16 keeps eleven bits of each parameter.
  largest = np.abs(answers[0]).max()
  np.testing.assert_allclose(*answers, rtol=0, atol=2e-3 * largest)
  sizes = [
    (tmp_path / name / "params.npz").stat().st_size
    for name in ("run/best", "out")
  ]
  assert sizes[1] < 0.7 * sizes[0]
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert config["train"]["num_steps"] == 30


def test_the_card_tells_the_best_step_and_the_data(tmp_path):
  write_run(tmp_path / "run")
  call = [f"--checkpoint={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]
  program.main(["export", *call])
  card = (tmp_path / "out" / "README.md").read_text()
  assert "- Step 20 of 30 steps, each of 4 patches of 64 px, seed 0\n" in card
  assert "validation_loss: 0.3\n" in card
  assert "`spleen` (weight 0.5)" in card
  assert config_lib.hash_model(tmp_path / "out") in card


def test_an_exported_model_keeps_its_numbers_when_exported_again(tmp_path):
  write_run(tmp_path / "run")
  for source, output in (("run", "out"), ("out", "again")):
    call = [f"--checkpoint={tmp_path / source}"]
    program.main(["export", *call, f"--output={tmp_path / output}"])
  cards = [
    (tmp_path / name / "README.md").read_text().replace(name, "NAME")
    for name in ("out", "again")
  ]
  assert "validation_loss: 0.3\n" in cards[1]
  assert cards[0] == cards[1]


def test_damaged_numbers_are_named(tmp_path, caplog):
  write_run(tmp_path / "run")
  path = tmp_path / "run/best/validation.json"
  for content in ("{", "[1]", '{"step": "x"}', '{"step": [1]}'):
    path.write_text(content)
    call = [f"--checkpoint={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]
    assert program.main(["export", *call]) == 2
    assert f"{path}: found " in caplog.records[-1].getMessage()
    assert "expected " in caplog.records[-1].getMessage()
  assert not (tmp_path / "out").exists()


def test_wrong_calls_are_refused(tmp_path, caplog):
  call = [f"--checkpoint={tmp_path}", f"--output={tmp_path / 'out'}"]
  assert program.main(["export", *call]) == 2
  write_run(tmp_path / "run")
  for output in ("run", "run/best"):
    same = [f"--checkpoint={tmp_path / 'run'}", f"--output={tmp_path / output}"]
    assert program.main(["export", *same]) == 2
    assert "found the weights" in caplog.text
    caplog.clear()
  assert {path.name for path in (tmp_path / "run").iterdir()} == {"best"}
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["folder", "onnx"])
def test_a_readme_of_others_is_not_replaced(tmp_path, caplog, form):
  if form == "onnx":
    pytest.importorskip("onnx")
  write_run(tmp_path / "run")
  out = tmp_path / "out"
  out.mkdir()
  (out / "README.md").write_text("mine")
  call = ["export", f"--checkpoint={tmp_path / 'run'}", f"--output={out}"]
  assert program.main([*call, f"--format={form}"]) == 2
  assert "README.md: found a file that no export of this" in caplog.text
  assert [path.name for path in out.iterdir()] == ["README.md"]
  assert (out / "README.md").read_text() == "mine"
  (out / "README.md").unlink()
  for _ in range(2):  # Its own is.
    assert program.main([*call, f"--format={form}"]) == 0


@pytest.mark.parametrize("form", ["folder", "onnx", "bioimageio"])
def test_another_model_is_not_replaced(tmp_path, caplog, form):
  if form != "folder":
    pytest.importorskip("onnx")
  for seed in (3, 4):
    write_run(tmp_path / f"run{seed}", seed)
  out = tmp_path / "out"

  def export(seed):
    run = tmp_path / f"run{seed}"
    call = [f"--checkpoint={run}", f"--output={out}", f"--format={form}"]
    return program.main(["export", *call])

  assert export(3) == 0
  before = {path.name: path.read_bytes() for path in out.iterdir()}
  assert export(4) == 2
  assert f"{out}" in caplog.records[-1].getMessage()
  assert "found" in caplog.records[-1].getMessage()
  assert before == {path.name: path.read_bytes() for path in out.iterdir()}
  assert export(3) == 0
  assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_config_and_a_cover_of_others_are_not_replaced(tmp_path, caplog):
  pytest.importorskip("onnx")
  write_run(tmp_path / "run")
  call = ["export", f"--checkpoint={tmp_path / 'run'}"]
  for name, form in (("config.json", "folder"), ("cover.png", "bioimageio")):
    out = tmp_path / form
    out.mkdir()
    (out / name).write_text("{}")
    assert program.main([*call, f"--output={out}", f"--format={form}"]) == 2
    assert name in caplog.records[-1].getMessage()
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "{}"
