"""export --format: others run the network and get predict's numbers."""

import hashlib
import re
import sys
import zipfile

import numpy as np
import pytest
import yaml

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import config as config_lib
from dicexmbd_jax import predict
from dicexmbd_jax.commands import export
from dicexmbd_jax.image import channels
from dicexmbd_jax.model import bioimageio, weights

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  output = tmp_path_factory.mktemp("export") / "base"
  call = ["export", "--format=bioimageio", f"--output={output}"]
  assert program.main(call) == 0
  return output


@pytest.fixture(scope="module")
def network():
  """Returns the shipped network as predict runs it at magnification 1."""
  model, config = weights.read_model(config_lib.SHIPPED_MODEL)

  def run(stack, nuclear, membrane):
    image, _ = channels.merge_channels(stack, nuclear, membrane, config.image)
    answers = predict.predict_images([(0, image)], model, config.predict)
    return next(answers)[1]

  return run


def run_readme(folder, nuclear, membrane):
  """Runs the lines of README.md, as a reader would."""
  recipe, call = CODE.findall((folder / "README.md").read_text())
  call = call.replace("model.onnx", str(folder / "model.onnx"))
  names = {"nuclear": nuclear, "membrane": membrane}
  exec(recipe + call, names)
  return names["probabilities"][0].transpose(1, 2, 0)


def test_the_lines_of_the_readme_give_the_numbers_of_predict(folder, network):
  rng = np.random.default_rng(0)
  stack = rng.poisson(6, (45, 60, 5)).astype(np.float32)
  stack[20, 20, 1] = 900  # Hot.
  planes = np.moveaxis(stack, -1, 0)
  expected = network(stack, [0, 1], [2, 3, 4])
  found = run_readme(folder, list(planes[:2]), list(planes[2:]))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_model_of_one_magnification_tells_the_pixels_that_it_sees(tmp_path):
  model, config = weights.read_model(config_lib.SHIPPED_MODEL)
  with config.predict.ignore_type():
    config.predict.magnification = 1.6
  weights.write_model(tmp_path / "tuned", model, config)
  call = ["export", "--format=bioimageio", f"--output={tmp_path / 'out'}"]
  assert program.main([*call, f"--checkpoint={tmp_path / 'tuned'}"]) == 0
  card = (tmp_path / "out/README.md").read_text()
  assert "at\n0.625 um per pixel" in card
  assert "magnification" not in card
  assert "scale: 0.625" in (tmp_path / "out/rdf.yaml").read_text()


def test_the_recipe_of_the_published_preset_gives_its_channels(tmp_path):
  model, config = weights.read_model(config_lib.SHIPPED_MODEL)
  config.image.preset = "reference"
  config.predict.views = 1
  export.write_graph(tmp_path, model, config, "# test")
  rng = np.random.default_rng(0)
  stack = rng.poisson(6, (20, 30, 3)).astype(np.float32)
  stack[10, 10, 0] = 900
  names = {}
  exec(CODE.findall((tmp_path / "README.md").read_text())[0], names)
  expected, _ = channels.merge_channels(stack, [0, 1], [2], config.image)
  planes = np.moveaxis(stack, -1, 0)
  for i, group in enumerate((planes[:2], planes[2:])):
    np.testing.assert_array_equal(names["merge"](list(group)), expected[..., i])
  assert not names["merge"]([np.ones((4, 4), np.float32)]).any()


def test_the_card_tells_of_rounding_that_no_step_does():
  steps = {
    preset: bioimageio.describe_preprocessing(96, 16, preset)
    for preset in ("paper", "reference")
  }
  equal = "the numbers are\nthose of `predict` with these two markers"
  assert equal in steps["paper"]
  assert equal not in steps["reference"]
  assert "rounds them down (`np.floor` above)" in steps["reference"]


def test_bioimageio_runs_it_and_finds_the_test_output(folder):
  core = pytest.importorskip("bioimageio.core")
  summary = core.test_model(folder / "bioimageio.zip")
  errors = [error for one in summary.details for error in one.errors]
  assert summary.status == "passed", errors


def test_bioimageio_makes_of_raw_counts_what_predict_does(folder, network):
  core = pytest.importorskip("bioimageio.core")
  samples = pytest.importorskip("bioimageio.core.digest_spec")
  model = core.load_model_description(folder / "rdf.yaml")
  rng = np.random.default_rng(0)
  stack = rng.poisson(6, (256, 256, 2)).astype(np.float32)
  stack[20, 20, 1] = 900  # Hot.
  names = {}
  exec(CODE.findall((folder / "README.md").read_text())[0], names)
  cleaned = [names["remove_hot"](stack[..., i]) for i in (0, 1)]
  counts = {"image": np.stack(cleaned)[None]}
  pipeline = core.create_prediction_pipeline(model)
  expected = network(stack, [0], [1])
  inside = (slice(96, -96),) * 2
  for is_plain, part in ((True, ...), (False, inside)):
    answer = pipeline.predict_sample_without_blocking(
      samples.create_sample_for_model(model, inputs=counts),
      skip_input_padding=is_plain,
      skip_output_cropping=is_plain,
    )
    found = answer.members["probabilities"].data.values[0].transpose(1, 2, 0)
    np.testing.assert_allclose(found[part], expected[part], rtol=0, atol=1e-5)


def test_the_description_names_its_files_and_their_hashes(folder):
  found = yaml.safe_load((folder / "rdf.yaml").read_text())
  assert found["license"] == "MIT"
  parts = [
    found["weights"]["onnx"],
    *(found[kind][0]["test_tensor"] for kind in ("inputs", "outputs")),
  ]
  for part in parts:
    data = (folder / part["source"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == part["sha256"]
  with zipfile.ZipFile(folder / "bioimageio.zip") as archive:
    names = set(archive.namelist())
  assert names == {path.name for path in folder.iterdir()} - {"bioimageio.zip"}


def test_weights_of_others_get_no_licence(tmp_path):
  model, config = weights.read_model(config_lib.SHIPPED_MODEL)
  weights.write_model(tmp_path / "run" / "best", model, config, "float32")
  assert "license" not in export.describe_makers(tmp_path / "run" / "best")
  assert export.name_model(tmp_path / "run" / "best") == "dicexmbd run"


def test_an_unknown_format_is_named(tmp_path, caplog):
  call = ["export", "--format=torch", f"--output={tmp_path / 'out'}"]
  assert program.main(call) == 2
  line = caplog.records[-1].getMessage()
  assert line == ("--format: found 'torch', expected folder, onnx, bioimageio")
  assert not (tmp_path / "out").exists()


def test_without_onnx_one_line_names_the_extra(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "onnx", None)
  for name in ("onnx_graph", "bioimageio"):
    monkeypatch.delitem(
      sys.modules, f"dicexmbd_jax.model.{name}", raising=False
    )
    monkeypatch.delattr(f"dicexmbd_jax.model.{name}", raising=False)
  output = tmp_path / "model"
  assert program.main(["export", "--format=onnx", f"--output={output}"]) == 2
  assert capsys.readouterr().err == (
    "dicexmbd: export: found no package onnx, expected the extra export: "
    "pip install 'dicexmbd-jax[export]'\n"
  )
  assert not output.exists()
