"""`benchmark` as its users call it: all methods on the same images."""

import json
import shutil
import types

import numpy as np
import pandas as pd
import pytest
import tifffile

from configs import default
from dicexmbd_jax import __main__ as program
from dicexmbd_jax.commands import benchmark
from dicexmbd_jax.io import labels as label_reader
from dicexmbd_jax.io import write

pytestmark = pytest.mark.usefixtures("quick_figures")
NAMES = ("DNA1_Ir191", "CD45_Sm152")
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Ir191,DNA1_Ir191,1,1,0
Sm152,CD45_Sm152,1,0,1
"""
METHODS = ["dicexmbd_jax", "CP-distance", "CP-watershed", "CP-propagation"]


@pytest.fixture
def study(tmp_path):
  """Three images of round cells on a grid of 12 px, and their true masks."""
  for i, shape in enumerate([(60, 72), (72, 60), (48, 48)]):
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y % 12 - 5.5, x % 12 - 5.5)
    truth = np.where(distance < 5, 1 + y // 12 * 10 + x // 12, 0)
    means = [30 * (distance < 3.5), 20 * ((distance > 2.5) & (distance < 5))]
    counts = np.random.default_rng(i).poisson(np.stack(means, -1) + 0.2)
    path = tmp_path / f"images/ROI{i}.ome.tiff"
    write.write_stack(path, counts.astype(np.float32), NAMES)
    (tmp_path / "truth").mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / f"truth/ROI{i}.tiff", truth.astype(np.uint16))
  (tmp_path / "panel.csv").write_text(PANEL)
  return tmp_path


def call(study, model_folder, **changes):
  config = default.get_config()
  config.model.update({"width": 2, "depth": 1})
  config.predict.update({"tile_px": 64, "batch_size": 1})
  values = {
    "images": str(study / "images"),
    "panel": str(study / "panel.csv"),
    "reference": str(study / "truth"),
    "output": str(study / "out"),
    "masks": [],
    "checkpoint": str(model_folder),
    "pixel_size_um": None,
    "num_workers": 0,
    "overwrite": False,
    "tolerance_px": 1.0,
    "label_components": False,
    "seed": 0,
    "config": config,
    "baseline_config": config,
  }
  return benchmark.run(types.SimpleNamespace(**{**values, **changes}))


@pytest.mark.figures
def test_all_methods_are_run_and_compared(study, model_folder):
  code = call(study, model_folder, masks=[f"truth={study}/truth"])
  assert code == 0
  summary = json.loads((study / "out/summary.json").read_text())
  assert list(summary["methods"]) == [*METHODS, "truth"]
  assert set(summary["num_images"].values()) == {3}
  assert summary["methods"]["truth"]["f1_iou_0.95"] == 1.0
  for name in METHODS:
    assert summary["methods"][name]["f1_iou_0.50"] > 0.5, name
    for i in range(3):
      path = study / f"out/methods/{name}/masks/ROI{i}.tiff"
      truth = label_reader.read_labels(study / f"truth/ROI{i}.tiff")
      assert label_reader.read_labels(path).shape == truth.shape
  # What predict writes is all there, too.
  assert (study / "out/methods/dicexmbd_jax/report.html").is_file()
  assert (study / "out/report.html").is_file()
  assert (study / "out/per_marker.csv").is_file()


def test_baselines_are_those_of_predict(study, model_folder, tmp_path):
  # Fitted to the network: it must not reach the baselines.
  model = tmp_path / "fitted"
  shutil.copytree(model_folder, model)
  config = json.loads((model / "config.json").read_text())
  config["segment"] |= {"cell_correction": 2.0, "regularisation": 0.001}
  (model / "config.json").write_text(json.dumps(config))
  shared = [
    f"--images={study / 'images'}", f"--panel={study / 'panel.csv'}",
    f"--checkpoint={model}", "--num_workers=0", "--config.segment.scale=1",
  ]  # fmt: skip
  out = f"--output={study / 'out'}"
  reference = f"--reference={study / 'truth'}"
  assert program.main(["benchmark", *shared, out, reference]) == 0
  for name, method in benchmark.BASELINES.items():
    words = [f"--method={method}", f"--output={study / method}"]
    assert program.main(["predict", *shared, *words]) == 0
    for path in (study / method / "masks").iterdir():
      np.testing.assert_array_equal(
        tifffile.imread(study / "out/methods" / name / "masks" / path.name),
        tifffile.imread(path),
      )


def test_an_image_that_fails_keeps_no_masks_of_an_earlier_run(
  study, model_folder
):
  assert call(study, model_folder) == 0
  (study / "images/ROI1.ome.tiff").write_bytes(b"no image")
  assert call(study, model_folder) == 1
  assert not list((study / "out/methods").glob("*/masks/ROI1.tiff"))
  assert len(list((study / "out/methods").glob("*/masks/ROI2.tiff"))) == 4


def test_masks_lie_on_the_images_grid_whatever_the_pixel_size(
  study, model_folder
):
  assert call(study, model_folder, pixel_size_um=2.0) == 0
  images = pd.read_csv(study / "out/per_image.csv")
  assert images["method"].value_counts().to_dict() == dict.fromkeys(METHODS, 3)


def test_references_without_images_are_left_out(study, model_folder):
  (study / "images/ROI1.ome.tiff").unlink()
  assert call(study, model_folder) == 0
  images = pd.read_csv(study / "out/per_image.csv")
  assert set(images["image"]) == {"ROI0", "ROI2"}


def test_images_without_references_are_named(study, model_folder):
  (study / "truth/ROI1.tiff").unlink()
  assert call(study, model_folder) == 1
  failures = pd.read_csv(study / "out/failures.csv")
  assert failures["image"].tolist() == ["ROI1"]
  assert "found no reference ROI1" in failures["error"][0]


def test_a_broken_image_costs_itself_only(study, model_folder):
  (study / "images/ROI1.ome.tiff").write_bytes(b"no image")
  assert call(study, model_folder) == 1
  failures = pd.read_csv(study / "out/failures.csv")
  assert set(failures["image"]) == {"ROI1"}
  images = pd.read_csv(study / "out/per_image.csv")
  assert images["method"].value_counts().to_dict() == dict.fromkeys(METHODS, 2)


@pytest.mark.parametrize(
  "changes",
  [
    {"masks": ["truth"]},
    {"masks": ["CP-distance=truth"]},
    {"masks": ["a=truth", "a=truth"]},
    {"reference": "nowhere"},
    {"images": "nowhere"},
    {"reference": "images/../panel.csv"},
    {"panel": "nowhere.csv"},
    {"checkpoint": "nowhere"},
    {"tolerance_px": -1.0},
  ],
)
def test_a_wrong_call_gets_code_two(study, model_folder, monkeypatch, changes):
  monkeypatch.chdir(study)
  assert call(study, model_folder, **changes) == 2
  assert not (study / "out/summary.json").exists()
