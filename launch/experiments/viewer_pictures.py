"""Draws the pictures of docs/viewer.md: the plugin's widgets at work.

usage: xvfb-run -a python launch/experiments/viewer_pictures.py WORK docs/viewer

Qt's platform must be xcb: offscreen it draws no canvas into the window.

Needs the extra `viewer`, and OpenGL, which Xvfb has with Mesa. WORK is an empty
folder for a study of simulated tissue and its output.
"""

import pathlib
import subprocess
import sys
import time

import napari
import npe2
import numpy as np
from napari.qt import get_qapp
from qtpy.QtTest import QTest

from dicexmbd_jax import viewer
from dicexmbd_jax.io import write

PLUGIN = "dicexmbd-jax"
SIZE_PX = (1280, 800)  # Of the window.


def main(work: pathlib.Path, output: pathlib.Path) -> None:
  """Simulates a study, segments it, and takes the pictures."""
  make_study(work)
  manifest = pathlib.Path(viewer.__file__).with_name("napari.yaml")
  plugins = npe2.PluginManager.instance()
  if PLUGIN not in [one.name for one in plugins.iter_manifests()]:
    plugins.register(npe2.PluginManifest.from_file(manifest))
  # Only what is shown lays out its status line.
  window = napari.Viewer(show=True)
  window.window.resize(*SIZE_PX)
  show_images(window, work / "out", output / "images.png")
  show_segment(window, output / "segment.png")
  show_correct(window, output / "correct.png")
  window.close()


def make_study(work: pathlib.Path) -> None:
  """Writes three images of simulated tissue and what predict makes of them."""
  study = work / "study"
  calls = [
    ["simulate", f"--output={study}", "--num_images=3", "--size_px=200"],
    [
      "predict",
      f"--images={study / 'img'}",
      f"--panel={study / 'panel.csv'}",
      f"--output={work / 'out'}",
    ],
  ]
  for call in calls:
    if not (work / "out/report.html").exists():
      program = [sys.executable, "-m", "dicexmbd_jax"]
      subprocess.run([*program, *call], check=True)


def show_images(window: napari.Viewer, folder, path: pathlib.Path) -> None:
  """Opens the output folder, with the mouse over a cell."""
  _, widget = window.window.add_plugin_dock_widget(PLUGIN, "Images")
  widget.open_path(folder)
  window.reset_view()
  window.scene.camera.zoom *= 2
  canvas = window.window._qt_viewer.canvas.native
  QTest.mouseMove(canvas, canvas.rect().center())
  wait(lambda: "area" in str(window.status))
  take_picture(window, path)


def show_segment(window: napari.Viewer, path: pathlib.Path) -> None:
  """Segments the image anew, and turns one setting."""
  dock, widget = window.window.add_plugin_dock_widget(PLUGIN, "Segment")
  window.layers["cells"].visible = False
  widget.start()
  wait(lambda: not widget.is_busy())
  widget.live["max_growth_um"].setValue(2.5)
  wait(widget.is_busy)
  wait(lambda: not widget.is_busy())
  take_picture(window, path)
  window.window.remove_dock_widget(dock)
  for name in [one.name for one in window.layers if "segmented" in one.name]:
    window.layers.remove(name)


def show_correct(window: napari.Viewer, path: pathlib.Path) -> None:
  """Splits a cell, merges a half of it with others, and saves that."""
  _, widget = window.window.add_plugin_dock_widget(PLUGIN, "Correct")
  cells = window.layers["cells"]
  cells.visible = True
  cells.contour = 1
  features = cells.features.set_index("index")
  middles = features[["centroid-0", "centroid-1"]]
  largest = int(features["area"].idxmax())
  y, x = middles.loc[largest]
  widget.choose_tool("Split")
  widget.use_tool(np.array([(y - 9, x), (y + 9, x)]))
  far = np.hypot(*(middles - middles.loc[largest]).to_numpy().T)
  near = middles.iloc[np.argsort(far)[1:3]].to_numpy()
  widget.choose_tool("Merge")
  widget.use_tool(near)
  widget.save()
  window.scene.camera.center = (0.0, y, x)
  window.scene.camera.zoom *= 2
  take_picture(window, path)


def wait(condition, longest_s: float = 600.0) -> None:
  """Runs Qt's events until a condition holds."""
  end = time.monotonic() + longest_s
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError(f"waited {longest_s} s")
    get_qapp().processEvents()
    time.sleep(0.02)


def take_picture(window: napari.Viewer, path: pathlib.Path) -> None:
  """Writes a picture of the whole window."""
  window.help = ""  # napari's hints take the place of the status.
  for _ in range(20):
    get_qapp().processEvents()
  pixels = window.screenshot(canvas_only=False, flash=False)
  write.write_png(path, np.ascontiguousarray(pixels[..., :3]))


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
