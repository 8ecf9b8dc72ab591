"""The whole way, as a biologist goes it: .mcd, strokes, cells, a model."""

import importlib
import pathlib
import re
import types

import mcd_files
import numpy as np
import pandas as pd
import pytest
import tifffile
import tiny_models

from dicexmbd_jax.io import labels
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.model import weights
from dicexmbd_jax.simulate import study
from dicexmbd_jax.viewer import reader

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 96


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
  """An .mcd of two acquisitions, and the classes of the first one's pixels."""
  folder = tmp_path_factory.mktemp("slide")
  list(study.simulate_study(folder / "study", 2, 3, SIZE))
  rows = list(read_panel(folder / "study/panel.csv").rows)
  blocks = []
  for stem in ("ROI001", "ROI002"):
    stack = tifffile.imread(folder / f"study/img/{stem}.tiff")
    stack = stack.astype(np.float32)
    planes = [
      sum(plane for plane, row in zip(stack, rows, strict=True) if pick(row))
      for pick in (lambda row: row.is_membrane, lambda row: row.is_nuclear)
    ]
    blocks.append(mcd_files.make_block(np.stack(planes, axis=-1)))
  path = folder / "SLIDE.mcd"
  mcd_files.write_mcd(path, blocks)
  cells, nuclei = (
    labels.read_labels(folder / f"study/truth/{kind}/ROI001.tiff")
    for kind in ("masks", "nuclei")
  )
  classes = np.where(cells > 0, 2, 3)
  return path, np.where(nuclei > 0, 1, classes)


def make_widget(viewer, name):
  module = importlib.import_module(f"dicexmbd_jax.viewer.{name.lower()}_widget")
  return getattr(module, f"{name}Widget")(viewer)


def drop(viewer, path):
  """Opens a file as napari does that is dropped on its window."""
  layer = importlib.import_module("napari.layers").Layer
  for one in reader.get_reader(str(path))(str(path)):
    viewer.add_layer(layer.create(*one))


def paint_in(layer, classes, rows, columns, number=12):
  """Paints short strokes of every class within a part of the image."""
  for k in (1, 2, 3):
    found = np.argwhere(classes[rows, columns] == k)[:: max(1, SIZE // 16)]
    for y, x in found[:number]:
      layer.selected_label = k
      layer.paint((rows.start + y, columns.start + x), k)


def drag(viewer, *positions):
  mouse = importlib.import_module("napari.utils.interactions")
  event = types.SimpleNamespace(handled=False, modifiers=(), is_dragging=True)
  for k, position in enumerate(positions):
    event.type, event.position = ("mouse_move", position)
    if k == 0:
      event.type = "mouse_press"
      mouse.mouse_press_callbacks(viewer, event)
    else:
      mouse.mouse_move_callbacks(viewer, event)
  event.type = "mouse_release"
  mouse.mouse_release_callbacks(viewer, event)


@pytest.mark.slow
def test_from_an_mcd_to_a_model(
  viewer, wait_until, slide, tmp_path, monkeypatch
):
  path, classes = slide
  drop(viewer, path)
  # Strokes: a few, then where the widget says.
  teach = make_widget(viewer, "Teach")
  strokes = viewer.layers["strokes"]
  whole = slice(0, SIZE)
  paint_in(strokes, classes, whole, whole, 4)
  wait_until(lambda: "live uncertainty" in viewer.layers)
  for _ in range(2):
    teach.message.clear()
    teach.go_to_place()
    wait_until(lambda: "paint near" in teach.message.text())
    told = [int(one) for one in re.findall(r"\d+", teach.message.text())]
    paint_in(strokes, classes, slice(*told[:2]), slice(*told[2:]))
    teach.wait()
  # Cells.
  teach.find_cells()
  wait_until(lambda: "cells" in viewer.layers)
  cells = viewer.layers["cells"]
  ids, sizes = np.unique(cells.data, return_counts=True)
  assert len(ids) > 10
  # Three of them are corrected.
  correct = make_widget(viewer, "Correct")
  assert correct.layer is cells
  largest = ids[1:][np.argsort(sizes[1:])[::-1]]
  middles = [np.argwhere(cells.data == cell).mean(0) for cell in largest[:4]]
  correct.tools["Split"].click()
  drag(viewer, middles[0] - (9, 0), middles[0], middles[0] + (9, 0))
  assert "is split" in correct.message.text()
  correct.tools["Merge"].click()
  drag(viewer, middles[1], middles[2])
  assert "has taken up" in correct.message.text()
  correct.tools["Delete"].click()
  place = tuple(np.argwhere(cells.data == largest[3])[0])
  drag(viewer, place)
  assert f"Deleted: {largest[3]}." in correct.message.text()
  correct.finetune()
  assert "not saved" in correct.message.text()
  correct.save()
  folder = path.parent / "segmented"
  (record,) = (folder / "corrected").glob("*.csv")
  actions = set(pd.read_csv(record)["action"])
  assert {"split", "merged", "deleted"} <= actions
  # A model from them, in a process of its own.
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  tuning = correct.tuning
  tuning.start_model.setText(
    str(tiny_models.write_tiny_model(tmp_path / "tiny", 32))
  )
  tuning.minutes.setValue(0.1)
  segment = make_widget(viewer, "Segment")
  tuning.run.click()
  assert tuning.is_busy(), tuning.message.text()
  wait_until(lambda: not tuning.is_busy(), 300)
  assert tuning.result is not None, tuning.message.text()
  assert tuning.result.verdict[1:] in tuning.message.text()
  assert (folder / "finetuned/report.html").is_file()
  model = str(tuning.result.folder)
  weights.read_model(model)
  # It is offered where images are segmented, and finds cells there.
  assert segment.model.folders.findText(model) >= 0
  assert (segment.model.text() == model) == tuning.result.is_better
  segment.model.setText(model)
  segment.run.click()
  wait_until(lambda: not segment.is_busy())
  assert "segmented cells" in viewer.layers
