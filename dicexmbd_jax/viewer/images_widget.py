"""The list of a study's images, one of which is shown at a time."""

import weakref
from pathlib import Path
from typing import Any

from napari.layers import Image, Layer
from qtpy import QtCore, QtWidgets
from qtpy.compat import isalive

from dicexmbd_jax.viewer import layers as layers_lib
from dicexmbd_jax.viewer.reader import tell
from dicexmbd_jax.viewer.study import Study, find_study

_KEPT = ("visible", "colormap", "opacity")  # From image to image, by name.

# All lists, so that those of one window show the same image.
_LISTS: "weakref.WeakSet[ImagesWidget]" = weakref.WeakSet()


class ImagesWidget(QtWidgets.QWidget):
  """Opens a study and steps through its images.

  Attributes:
    image_shown: tells the stem of the image whose layers were just added.
  """

  image_shown = QtCore.Signal(str)

  def __init__(self, napari_viewer: Any):
    """Makes an empty list.

    Args:
      napari_viewer: napari's viewer, with or without a window.
    """
    super().__init__()
    self._viewer = napari_viewer
    self._window = layers_lib.find_window(napari_viewer)
    self.study: Study | None = None
    self.stem = ""
    self._left: Layer | None = None  # Whose unsaved corrections were told.
    self.images = QtWidgets.QListWidget()
    self.message = QtWidgets.QLabel("Open a folder or a file.")
    self.message.setWordWrap(True)
    box = QtWidgets.QGridLayout(self)
    buttons = {
      "Open folder": self._ask_folder,
      "Open file": self._ask_file,
      "Previous": lambda: self.step(-1),
      "Next": lambda: self.step(1),
    }
    for k, (text, call) in enumerate(buttons.items()):
      button = QtWidgets.QPushButton(text)
      button.clicked.connect(call)
      box.addWidget(button, 2 * (k // 2), k % 2)
    box.addWidget(self.images, 1, 0, 1, 2)
    box.addWidget(self.message, 3, 0, 1, 2)
    self.images.itemClicked.connect(lambda item: self.show_image(item.text()))
    _LISTS.add(self)

  def open_path(self, path: str | Path) -> None:
    """Opens a study and shows its first image."""
    try:
      study = find_study(path)
    except (ValueError, OSError) as error:
      self.message.setText(str(error))
      return
    if not self._may_leave():
      return
    tell(study.warnings)
    self.list_study(study, "")
    self.show_image(next(iter(study.images)))

  def list_study(self, study: Study, stem: str) -> None:
    """Lists the images of a study, of which `stem` is shown already."""
    self.study, self.stem = study, stem
    self.images.clear()
    self.images.addItems(list(study.images))
    self._mark_image()

  def step(self, count: int) -> None:
    """Shows the image that is `count` further down the list."""
    if self.study is None:
      return
    stems = list(self.study.images)
    # Where none is shown, the first was tried and could not be read.
    place = (stems.index(self.stem) if self.stem else 0) + count
    if 0 <= place < len(stems):
      self.show_image(stems[place])

  def show_image(self, stem: str) -> None:
    """Shows an image in place of the one that was shown.

    Corrections that are not saved are told first; the next call leaves them.
    """
    study = self.study
    if study is None or stem == self.stem or not self._may_leave():
      return
    try:
      found, lines = layers_lib.list_layers(study, stem)
    except (ValueError, OSError) as error:
      self._mark_image()
      self.message.setText(str(error))
      return
    self._replace_layers(found)
    self.stem, self._left = stem, None
    self._mark_image()
    tell(lines)
    self.image_shown.emit(stem)
    for other in list(_LISTS):
      if other is not self and other._window is self._window and isalive(other):
        other.list_study(study, stem)
        other.image_shown.emit(stem)

  def _list_shown(self) -> list[Layer]:
    return [one for one in self._viewer.layers if layers_lib.get_origin(one)]

  def _may_leave(self) -> bool:
    """Whether nothing is unsaved, or that was told at the last call."""
    unsaved = [one for one in self._list_shown() if layers_lib.is_unsaved(one)]
    if not unsaved or self._left is unsaved[0]:
      return True
    self._left = unsaved[0]
    self._mark_image()
    self.message.setText(
      f"{unsaved[0].name}: the corrections are not saved. Save them, or choose "
      "again to leave them."
    )
    return False

  def _replace_layers(self, found: list[layers_lib.LayerData]) -> None:
    """Takes layers away and adds others, which look as those of their name."""
    shown = self._list_shown()
    looks = {
      layer.name: {
        name: getattr(layer, name)
        for name in _KEPT
        if name != "colormap" or isinstance(layer, Image)
      }
      for layer in shown
    }
    layers_lib.remove_layers(self._viewer.layers, shown)
    for data, settings, kind in found:
      settings = {**settings, **looks.get(settings["name"], {})}
      self._viewer.add_layer(Layer.create(data, settings, kind))

  def _mark_image(self) -> None:
    if self.study is None or not self.stem:
      return
    place = list(self.study.images).index(self.stem)
    self.images.setCurrentRow(place)
    self.message.setText(
      f"{self.stem}: {place + 1} of {len(self.study.images)}"
    )

  def _ask_folder(self) -> None:
    if path := QtWidgets.QFileDialog.getExistingDirectory(self):
      self.open_path(path)

  def _ask_file(self) -> None:
    path, _ = QtWidgets.QFileDialog.getOpenFileName(self)
    if path:
      self.open_path(path)
