"""Merges, splits, adds, deletes and redraws cells; makes a model of them."""

import dataclasses
import datetime
import getpass
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Labels
from qtpy import QtWidgets

from dicexmbd_jax.io import listing
from dicexmbd_jax.viewer import corrections, tune_box, tuning
from dicexmbd_jax.viewer import layers as layers_lib
from dicexmbd_jax.viewer.layers import LayerOrigin
from dicexmbd_jax.viewer.study import find_study

_HINTS = {
  "Merge": "Draw a line over the cells that are one.",
  "Split": "Draw a line across the cell.",
  "Delete": "Click on a cell, or draw a line over several.",
  "Redraw": "Click on a cell, then click around it; a double click ends.",
  "Add": "Click around the new cell; a double click ends.",
}
_EDITS: dict[str, Callable[..., corrections.Edit]] = {
  "Merge": corrections.merge_cells,
  "Delete": corrections.delete_cells,
}
_LEAST_BYTES = 4  # Of an id: in fewer, ids of new cells would end.


class CorrectWidget(QtWidgets.QWidget):
  """Tools for the cells of one Labels layer, a place to save them, fine-tuning.

  Changes go through the layer's own history, so that napari's undo, and its
  brush, go together with the tools.
  """

  def __init__(self, napari_viewer: Any):
    """Makes the tools; none is chosen.

    Args:
      napari_viewer: napari's viewer, with or without a window.
    """
    super().__init__()
    self._viewer = napari_viewer
    self.layer: Labels | None = None
    self._tool = ""
    self._redrawn = 0  # The cell that was taken away to be drawn anew.
    self.layers = QtWidgets.QComboBox()
    self.message = QtWidgets.QLabel()
    self.message.setWordWrap(True)
    self.folder = QtWidgets.QLineEdit()
    self.checked = QtWidgets.QCheckBox("All cells of this image are right")
    self.checked.setToolTip(
      "Tick it where you have looked at the whole image: Fine-tune then learns "
      "from all its cells, and from what is none, not from those you changed "
      "alone."
    )
    self.tuning = tune_box.TuneBox()
    self.tools = {name: QtWidgets.QPushButton(name) for name in _HINTS}
    self._place_parts()
    self.layers.currentIndexChanged.connect(self._choose_layer)
    self.folder.textChanged.connect(self._choose_output)
    self.tuning.run.clicked.connect(self.finetune)
    napari_viewer.layers.events.inserted.connect(self._list_layers)
    napari_viewer.layers.events.removed.connect(self._list_layers)
    napari_viewer.mouse_drag_callbacks.append(self._follow_mouse)
    self._list_layers()

  def choose_tool(self, name: str) -> None:
    """Takes up a tool, or with "" lays it down."""
    self._put_back()
    self._tool = name
    for other, button in self.tools.items():
      button.setChecked(other == name)
    layer = self.layer
    if layer is None:
      self.message.setText("Found no cells: open masks, or segment an image.")
      return
    self._viewer.layers.selection.active = layer
    self.message.setText(_HINTS.get(name, ""))
    layer.preserve_labels = name in ("Add", "Redraw")
    layer.mode = "polygon" if name == "Add" else "pan_zoom"
    # A line would move the picture.
    layer.mouse_pan = name in ("", "Add")
    if name == "Add":
      layer.selected_label = self._find_new_id()

  def undo(self) -> None:
    """Takes back the last change of the layer, whoever made it."""
    if self.layer is not None:
      self.layer.undo()
      self._redrawn = 0
      self.choose_tool(self._tool)

  def save(self) -> None:
    """Writes the corrected cells and their record beside the masks."""
    layer = self.layer
    if layer is None:
      return
    self._put_back()
    origin = layer.metadata[layers_lib.KEY]
    folder = self._get_folder()
    cells = np.array(layer.data)
    if not corrections.is_shown(folder, origin.stem, origin.saved):
      self.message.setText(
        f"{folder}/corrected: found corrections of {origin.stem} that are not "
        "shown here. Open the folder to go on with them, or choose another."
      )
      return
    try:
      table = corrections.write_corrections(
        folder, origin.stem, origin.original, cells, _sign(),
        _read_pixel_size(layer), self.checked.isChecked(),
      )  # fmt: skip
    except (ValueError, OSError) as error:
      self.message.setText(str(error))
      return
    saved = dataclasses.replace(origin, results=folder, saved=cells)
    layer.metadata = {**layer.metadata, layers_lib.KEY: saved}
    layer.features = layers_lib.measure_cells(
      cells, self._viewer.layers, origin.stem
    )
    self.message.setText(describe_changes(table, folder, origin.stem))
    self._choose_output()

  def finetune(self) -> None:
    """Starts a fine-tuning on all corrected cells in the folder."""
    layer = self.layer
    if layer is None:
      self.message.setText("Found no cells: open masks, or segment an image.")
      return
    if layers_lib.is_unsaved(layer):
      self.message.setText("The corrections are not saved: save them first.")
      return
    origin = layer.metadata[layers_lib.KEY]
    output = Path(self.tuning.output.text()).expanduser().absolute()
    try:
      call = tuning.make_call(
        find_study(origin.path),
        layers_lib.list_roles(self._viewer.layers, origin.stem),
        self._get_folder().absolute(),
        output,
      )
    except (ValueError, OSError) as error:
      self.tuning.message.setText(str(error))
      return
    self.tuning.start(call, output)

  def _place_parts(self) -> None:
    box = QtWidgets.QGridLayout(self)
    box.addWidget(self.layers, 0, 0, 1, 3)
    undo, save = map(QtWidgets.QPushButton, ("Undo", "Save"))
    undo.clicked.connect(self.undo)
    save.clicked.connect(self.save)
    for k, button in enumerate([*self.tools.values(), undo]):
      box.addWidget(button, 1 + k // 3, k % 3)
    for name, button in self.tools.items():
      button.setCheckable(True)
      button.setToolTip(_HINTS[name])
      button.clicked.connect(
        lambda is_down, name=name: self.choose_tool(name if is_down else "")
      )
    box.addWidget(QtWidgets.QLabel("Folder"), 3, 0)
    box.addWidget(self.folder, 3, 1, 1, 2)
    box.addWidget(self.checked, 4, 0, 1, 3)
    box.addWidget(save, 5, 0, 1, 3)
    box.addWidget(self.message, 6, 0, 1, 3)
    box.addWidget(self.tuning, 7, 0, 1, 3)
    box.setRowStretch(8, 1)

  def _list_layers(self, _event: Any = None) -> None:
    """Offers the Labels layers, those of cells first."""
    found = [
      layer
      for layer in self._viewer.layers
      if isinstance(layer, Labels)
      and layer.ndim == 2
      and layers_lib.STROKES_KEY not in layer.metadata
    ]
    found.sort(key=lambda layer: _get_kind(layer) != "cells")
    chosen = self.layer if self.layer in found else None
    self.layers.blockSignals(True)
    self.layers.clear()
    for layer in found:
      self.layers.addItem(layer.name, layer)
    if found:
      self.layers.setCurrentIndex(found.index(chosen) if chosen else 0)
    self.layers.blockSignals(False)
    self._choose_layer()

  def _choose_layer(self, _place: int = 0) -> None:
    layer = self.layers.currentData()
    if layer is self.layer:
      return
    if self.layer is not None:
      self.layer.events.paint.disconnect(self._finish_shape)
    self.layer, self._redrawn = layer, 0
    if layer is not None:
      if layer.data.dtype.itemsize < _LEAST_BYTES:  # As of napari's new labels.
        layer.data = np.asarray(layer.data, np.int32)
      origin = _give_origin(layer, self._viewer.layers)
      folder = _choose_folder(origin)
      self.folder.setText(str(folder))
      self.checked.setChecked(
        corrections.read_checked(folder, origin.stem)
        and corrections.is_shown(folder, origin.stem, origin.saved)
      )
      layer.events.paint.connect(self._finish_shape)
      self.choose_tool("")

  def _get_folder(self) -> Path:
    return Path(self.folder.text()).expanduser()

  def _choose_output(self, _text: str = "") -> None:
    """Says where the next model goes; while one is made, it stays."""
    if not self.tuning.is_busy():
      output = tuning.choose_output(self._get_folder())
      self.tuning.output.setText(str(output))

  def _find_new_id(self) -> int:
    layer = self.layer
    assert layer is not None
    original = layer.metadata[layers_lib.KEY].original
    return corrections.find_new_id(layer.data, original)

  def _follow_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
    """Takes a line from press to release; napari's way to hear the mouse."""
    layer = self.layer
    if layer is None or self._tool in ("", "Add") or layer.mode == "polygon":
      return
    event.handled = True
    path = [layer.world_to_data(event.position)]
    line = None
    yield
    while event.type == "mouse_move":
      path.append(layer.world_to_data(event.position))
      # A cell is cut straight, from the first point to the last.
      shown = path[:: len(path) - 1] if self._tool == "Split" else path
      line = _show_line(viewer, line, np.array(shown), layer)
      yield
    if line is not None:
      layers_lib.remove_layers(viewer.layers, [line])
      viewer.layers.selection.active = layer
    self.use_tool(np.array(path))

  def use_tool(self, path: np.ndarray) -> None:
    """Uses the tool that is chosen along a line.

    Args:
      path: (n, 2) rows and columns in the layer's pixels.
    """
    layer = self.layer
    if layer is None:
      return
    cells = np.asarray(layer.data)
    if self._tool == "Redraw":
      self._start_redrawing(cells, path)
      return
    if self._tool == "Split":
      edit = corrections.split_cell(cells, path, self._find_new_id())
    else:
      edit = _EDITS[self._tool](cells, path)
    self._apply(edit)

  def _apply(self, edit: corrections.Edit) -> None:
    if self.layer is not None:
      self.layer.data_setitem(edit.indices, edit.values)
    self.message.setText(edit.message)

  def _start_redrawing(self, cells: np.ndarray, path: np.ndarray) -> None:
    layer = self.layer
    assert layer is not None
    crossed = corrections.list_crossed(cells, path)
    if len(crossed) != 1:
      self.message.setText("Nothing is redrawn: click on one cell.")
      return
    self._apply(corrections.delete_cells(cells, path))
    self._redrawn = crossed[0]
    layer.selected_label = crossed[0]
    layer.mode, layer.mouse_pan = "polygon", True
    self.message.setText(f"Click around cell {crossed[0]}.")

  def _finish_shape(self, _event: Any = None) -> None:
    """Is called after any change: of a polygon, the tool goes on."""
    layer = self.layer
    if layer is None or layer.mode != "polygon":
      return
    if self._tool == "Add":
      cell = layer.selected_label
      self.message.setText(f"Cell {cell} is new.")
      # napari tells of a change just before it makes it.
      layer.selected_label = max(self._find_new_id(), cell + 1)
    elif self._redrawn:
      cell, self._redrawn = self._redrawn, 0
      self.choose_tool("Redraw")
      self.message.setText(f"Cell {cell} is redrawn.")

  def _put_back(self) -> None:
    """Gives back the cell that was taken away and not drawn anew."""
    if self._redrawn and self.layer is not None:
      self._redrawn = 0
      self.layer.undo()


def describe_changes(table: pd.DataFrame, folder: Path, stem: str) -> str:
  """Returns how many cells were changed, and where that was saved."""
  is_whole = table["action"] == corrections.CHECKED
  counts = table["action"][~is_whole].value_counts()
  told = ", ".join(f"{count} {action}" for action, count in counts.items())
  checked = ", the whole image checked" if is_whole.any() else ""
  place = f"{folder}/corrected/{stem}.tiff"
  return f"Saved: {told or 'no change'}{checked} ({place})."


def _get_kind(layer: Any) -> str:
  origin = layers_lib.get_origin(layer)
  return origin.kind if origin else ""


def _give_origin(layer: Labels, shown: Iterable[Any]) -> LayerOrigin:
  """Returns where a layer comes from; of others, as it is now.

  Labels that somebody began in napari are of the image that is shown, if it is
  one, and are saved nowhere yet.

  Args:
    layer: the layer.
    shown: napari's layers.
  """
  origin = layers_lib.get_origin(layer)
  if origin is None or origin.original is None:
    cells = np.array(layer.data)
    saved = cells
    others = {
      (one.path, one.stem, one.results)
      for one in map(layers_lib.get_origin, shown)
      if one is not None and one.kind in ("channel", "marker")
    }
    if origin is None and layer.source.path is None and len(others) == 1:
      path, stem, results = others.pop()
    elif origin is None:
      path, results = Path(layer.source.path or layer.name), None
      stem = listing.get_stem(path)
    else:
      path, stem, results = origin.path, origin.stem, None
    if origin is None and layer.source.path is None:
      saved = np.zeros_like(cells)
    origin = LayerOrigin(
      path, stem, "cells", results, original=cells, saved=saved
    )
    layer.metadata = {**layer.metadata, layers_lib.KEY: origin}
  return origin


def _choose_folder(origin: LayerOrigin) -> Path:
  """Returns where corrections go: beside the masks, or beside the image."""
  if origin.results is not None:
    return origin.results
  path = origin.path.absolute()
  return (path if path.is_dir() else path.parent) / "segmented"


def _read_pixel_size(layer: Labels) -> float | None:
  """Returns the edge of a layer's pixels, in um; None: they are not square."""
  height, width = np.abs(layer.scale)
  if not np.isclose(height, width, rtol=1e-3):
    return None
  return float(width * layers_lib.count_um(layer))


def _sign() -> dict[str, str]:
  """Returns who corrects, and when."""
  try:
    user = getpass.getuser()
  except (KeyError, OSError):  # A container's user may have no name.
    user = "unknown"
  now = datetime.datetime.now(datetime.UTC)
  return {"user": user, "time": now.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _show_line(viewer: Any, line: Any, path: np.ndarray, layer: Labels) -> Any:
  """Shows the line that is being drawn; returns its layer.

  As points: napari compiles what draws its shapes, for many seconds.
  """
  pixels = corrections.draw_line(path, layer.data.shape)
  if line is not None:
    line.data = pixels
    return line
  line = viewer.add_points(
    pixels,
    name="line",
    scale=layer.scale,
    translate=layer.translate,
    rotate=layer.rotate,
    affine=layer.affine,
    units=layer.units,
    size=1,
    border_width=0,
    face_color="yellow",
  )
  viewer.layers.selection.active = layer
  return line
