"""Runs the plugin's real widgets without a screen.

napari's canvas needs OpenGL, which few machines without a screen have. Its
`ViewerModel` has the layers, and the mouse on them, without a canvas.

The fixtures are our own, since pytest-qt ends every call of pytest, that of
other tests too, where Qt's system libraries are missing.
"""

import os
import sys
import time

import pytest

# Before Qt and napari are imported, which read them then.
os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["NAPARI_CONFIG"] = ""  # Whatever is set while testing is not kept.

LONGEST_S = 60.0  # Of any wait: what the network compiles comes in.


@pytest.fixture(scope="session")
def app():
  """Gives Qt's application; skips where Qt is not installed, or cannot run."""
  widgets = pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
  pytest.importorskip("napari")
  return widgets.QApplication.instance() or widgets.QApplication([])


@pytest.fixture
def wait_until(app, monkeypatch):
  """Gives a function that runs Qt's events until a condition holds.

  An error in a widget's own call (Qt would end the process) fails the test.
  """
  errors = []
  monkeypatch.setattr(sys, "excepthook", lambda *error: errors.append(error))

  def wait(condition, longest_s=LONGEST_S):
    end = time.monotonic() + longest_s
    while not condition():
      assert time.monotonic() < end, "waited in vain"
      app.processEvents()
      time.sleep(0.01)
    app.processEvents()

  yield wait
  app.processEvents()
  assert errors == []


@pytest.fixture
def viewer(app):
  """Gives napari's viewer, but for its window."""
  from napari.components import ViewerModel

  return ViewerModel()


@pytest.fixture
def hand_out(viewer):
  """Gives a function that hands out the viewer as napari does to a widget."""
  from napari.utils._proxies import PublicOnlyProxy

  return lambda: PublicOnlyProxy(viewer)
