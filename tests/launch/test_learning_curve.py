"""The learning curve: its runs are nested, counted, and not done twice."""

import csv

import learning_curve
import numpy as np
import tifffile


def make_curve(tmp_path):
  spleen = tmp_path / "data" / "spleen_imc"
  for folder in ("img", "masks"):
    (spleen / folder).mkdir(parents=True)
  mask = np.kron([[1, 2]], np.ones((5, 5), np.uint16)).astype(np.uint16)
  for roi in (*learning_curve.TRAINED, *learning_curve.JUDGED):
    tifffile.imwrite(spleen / "masks" / f"ROI{roi:03d}.tiff", mask)
    tifffile.imwrite(spleen / "img" / f"ROI{roi:03d}.ome.tiff", mask)
  return learning_curve.Curve(
    tmp_path / "start", tmp_path / "data", tmp_path / "out", 1.0
  )


def test_the_rois_of_a_seed_are_nested():
  runs = list(learning_curve.plan_runs([1, 2], 2))
  assert len(runs) == 12
  small, large = runs[0][1], runs[3][1]
  assert large[:1] == small
  assert not set(large) & set(learning_curve.JUDGED)


def test_a_run_is_done_once_and_drawn(tmp_path, monkeypatch):
  curve = make_curve(tmp_path)
  done = []

  def pretend(self, run, *rest):
    done.append(run.name)
    assert len(list((run / "img").iterdir())) == 2
    return self.spleen / "masks"  # As if all were found.

  monkeypatch.setattr(learning_curve.Curve, "finetune", pretend)
  monkeypatch.setattr(learning_curve.Curve, "teach", pretend)
  for _ in range(2):
    for method, rois, seed in learning_curve.plan_runs([2], 1):
      curve.measure(method, rois, seed)
  assert done == ["finetune_2_0", "from_nothing_2_0", "teach_2_0"]
  with curve.table.open() as file:
    rows = list(csv.DictReader(file))
  assert {row["f1"] for row in rows} == {"1.0000"}
  assert {row["effort_px"] for row in rows} == {
    "20"
  }  # The image's border is no outline.
  learning_curve.draw(rows, tmp_path / "curve.png")
  assert (tmp_path / "curve.png").stat().st_size > 1000
