"""The learning curve: its runs are nested, counted, and not done twice."""

import csv

import learning_curve
import numpy as np
import tifffile

ROIS = (6, 8, 10, 14, 16, 18, 20, 22, 24, 28, 30)


def make_curve(tmp_path):
  spleen = tmp_path / "spleen_imc"
  for folder in ("img", "masks"):
    (spleen / folder).mkdir(parents=True)
  mask = np.kron([[1, 2]], np.ones((5, 5), np.uint16)).astype(np.uint16)
  for roi in ROIS:
    tifffile.imwrite(spleen / "masks" / f"ROI{roi:03d}.tiff", mask)
    tifffile.imwrite(spleen / "img" / f"ROI{roi:03d}.ome.tiff", mask)
  study = learning_curve.find_spleen(tmp_path, tmp_path)
  return learning_curve.Curve(tmp_path / "start", study, tmp_path, 1.0)


def plan_runs(study, numbers, num_seeds):
  num_images = len(study.trained)
  return learning_curve.plan_runs(study.methods, num_images, numbers, num_seeds)


def test_the_images_of_a_seed_are_nested(tmp_path):
  study = make_curve(tmp_path).study
  runs = list(plan_runs(study, [1, 2], 2))
  assert len(runs) == 1 + 12 and runs[0] == ("finetune", [], 0)
  small, large = runs[1][1], runs[4][1]
  assert large[:1] == small
  assert not set(study.trained) & set(study.judged)


def test_a_run_is_done_once_and_drawn(tmp_path, monkeypatch):
  curve = make_curve(tmp_path)
  done = []

  def pretend(self, run, *rest):
    done.append(run.name)
    assert len(list((run / "img").iterdir())) == int(run.name.split("_")[-2])
    return tmp_path / "spleen_imc" / "masks"  # As if all were found.

  monkeypatch.setattr(learning_curve.Curve, "finetune", pretend)
  monkeypatch.setattr(learning_curve.Curve, "teach", pretend)
  monkeypatch.setattr(
    learning_curve.Curve, "predict", lambda self, run, model: model
  )
  for _ in range(2):
    for method, images, seed in plan_runs(curve.study, [2], 1):
      curve.measure(method, images, seed)
  assert done == [
    *("finetune_0_0", "finetune_2_0", "nothing_2_0", "teach_2_0"),
  ]
  with curve.table.open() as file:
    rows = list(csv.DictReader(file))
  assert {row["f1"] for row in rows} == {"1.0000"}
  # The image's border is no outline.
  assert {row["effort_px"] for row in rows} == {"0", "20"}
  learning_curve.draw(rows, tmp_path / "curve.png")
  assert (tmp_path / "curve.png").stat().st_size > 1000


def test_intestine_is_of_one_magnification(tmp_path):
  for part in ("training", "validation"):
    folder = tmp_path / "intestine_nuclei" / part
    for name in ("img", "masks"):
      (folder / name).mkdir(parents=True)
      for stem, edge_px in (("fit", 22), ("large", 40)):
        mask = np.full((edge_px, edge_px), 1, np.uint16)
        tifffile.imwrite(folder / name / f"{stem}.tiff", mask)
  study = learning_curve.find_intestine(tmp_path, tmp_path)
  assert [path.stem for path, _ in study.trained + study.judged] == ["fit"] * 2
  assert study.flags == ("--pixel_size_um=0.302",)
