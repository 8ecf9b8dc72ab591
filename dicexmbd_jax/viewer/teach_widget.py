"""Paint, see what the teacher makes of it, paint where it is unsure."""

import functools
import pathlib
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Labels as LabelsLayer
from napari.utils.colormaps import DirectLabelColormap
from qtpy import QtCore, QtGui, QtWidgets

from dicexmbd_jax.teach import forest, live, rank
from dicexmbd_jax.viewer import CancelledError
from dicexmbd_jax.viewer import layers as layers_lib
from dicexmbd_jax.viewer.images_widget import ImagesWidget
from dicexmbd_jax.viewer.reader import tell
from dicexmbd_jax.viewer.study import find_study
from dicexmbd_jax.viewer.teaching import Session

STROKES = "strokes"
PLACE_PX = 96
_COLOURS: dict[int | None, str] = {1: "red", 2: "lime", 3: "dodgerblue"}
_MAPS = ("blue", "green", "gray", "magenta")
_ZOOM = 6  # Screen pixels per pixel of the image: one pixel can be painted.
_VIEW_DELAY_MS = 300  # After the last move of the view.
# All that were made: a window's newest goes on where an older one was.
_WIDGETS: "weakref.WeakSet[TeachWidget]" = weakref.WeakSet()


class TeachWidget(QtWidgets.QWidget):
  """Strokes on one image after another, and a teacher that follows them.

  The maps that are shown come of a small forest, fit after each stroke in the
  background; cells and the teacher that is saved come of the whole one.

  Attributes:
    session: strokes, teacher and rounds; None before a study is open.
    images: the list of the study's images.
  """

  _done = QtCore.Signal(object)  # From the worker: what to do in this thread.

  def __init__(self, napari_viewer: Any):
    """Makes the widget; takes up the study that is shown already.

    Args:
      napari_viewer: napari's viewer, with or without a window.
    """
    super().__init__()
    self._viewer = napari_viewer
    self._window = layers_lib.find_window(napari_viewer)
    self.session: Session | None = None
    self._sessions: dict[pathlib.Path, Session] = {}
    self.maps: live.LiveMaps | None = None
    self._worker = live.Newest()
    self._cancel = threading.Event()
    self._layer: LabelsLayer | None = None  # Of the strokes, whatever its name.
    self._cells: LabelsLayer | None = None  # Those that were found last.
    self._learned = np.empty((0, 0), np.uint8)  # Of it, as the teacher has it.
    # Planes and strokes of images: a job that is dropped leaves them here.
    self._unlearned: dict[tuple[Session, str], tuple] = {}
    self._done.connect(lambda call: call())
    self.images = ImagesWidget(napari_viewer)
    self.images.image_shown.connect(self._start_image)
    self.message = QtWidgets.QLabel()
    self.message.setWordWrap(True)
    self.curve = QtWidgets.QLabel()
    self.cancel = QtWidgets.QPushButton("Cancel")
    self.cancel.setEnabled(False)
    self.scale = QtWidgets.QCheckBox("twice the size, for small cells")
    self._add_controls()
    self._timer = QtCore.QTimer(self, singleShot=True, interval=_VIEW_DELAY_MS)
    self._timer.timeout.connect(self._look)
    self._follow = QtCore.QTimer(self, singleShot=True, interval=0)
    self._follow.timeout.connect(self._learn_rest)
    napari_viewer.scene.camera.events.connect(lambda event: self._timer.start())
    self._take_up_session()
    self._take_up_study()
    _WIDGETS.add(self)

  # What the buttons do.

  def choose_class(self, number: int) -> None:
    """Readies the brush, one pixel wide, for 1, 2 or 3; 0 erases."""
    layer = self._get_strokes()
    if layer is None:
      return
    self._viewer.layers.selection.active = layer
    layer.selected_label = number or 1
    layer.brush_size = 1 if number else 3
    layer.mode = "paint" if number else "erase"

  def go_to_place(self) -> None:
    """Shows the most uncertain place of the image that is not painted yet."""
    session, stem = self.session, self.images.stem
    layer = self._get_strokes()
    if session is None or layer is None:
      return
    strokes, planes = session.enlarge(layer.data), session.planes
    told = "looking for the most uncertain place"

    def find() -> None:
      unsure = session.engine.measure(
        stem, planes, lambda share: self._report(f"{told}, {share:.0%}")
      )
      place = live.find_place(unsure, strokes, PLACE_PX * session.scale)
      self._done.emit(lambda: self._show_place(session, stem, place))

    self._run(find, f"{told} ...")

  def go_to_image(self) -> None:
    """Ends a round: measures every image and shows the most uncertain."""
    session = self.session
    if session is None:
      return

    def measure() -> None:
      means, lines = session.measure_images(self._report)
      self._done.emit(lambda: self._end_round(session, means))
      # Not as the message, which the next maps replace.
      self._done.emit(lambda: tell(lines))

    self._run(measure, "measuring every image ...")

  def find_cells(self) -> None:
    """Shows the cells that the whole teacher finds in this image."""
    session, stem = self.session, self.images.stem
    if session is None:
      return

    def find() -> None:
      cells = session.find_cells(stem, self._report)
      self._done.emit(lambda: self._show_cells(session, stem, cells))

    self._run(find, f"{forest.NUM_TREES} trees, then cells ...")

  def save_teacher(self, folder: str | pathlib.Path) -> None:
    """Writes the whole teacher, as `teach fit` would."""
    session = self.session
    if session is None:
      return

    def save() -> None:
      session.save_teacher(folder)
      self._tell(f"saved: {folder}")

    self._run(save, f"fitting {forest.NUM_TREES} trees ...")

  def export_strokes(self, folder: str | pathlib.Path) -> None:
    """Writes label TIFFs of the strokes, and the rounds so far."""
    session = self.session
    if session is not None:
      self.message.setText(f"strokes: {folder}")
      self._try(functools.partial(session.export_strokes, folder))

  def load_strokes(self, folder: str | pathlib.Path) -> None:
    """Takes strokes from a folder of drawings of any program."""
    session = self.session
    if session is None:
      return

    def load() -> None:
      lines = session.load_strokes(folder)
      self._done.emit(lambda: self._start_image(self.images.stem))
      self._tell("; ".join(lines) or f"strokes taken from {folder}")

    self._run(load, "reading strokes ...")

  def stop(self) -> None:
    """Ends what is at work, after the step that is on its way."""
    self._cancel.set()
    self.message.setText("Stopping ...")

  def change_scale(self, scale: int) -> None:
    """Works at the images' size, or at twice that."""
    session = self.session
    if session is None or session.scale == scale:
      return

    def change() -> None:
      session.change_scale(scale)
      self._done.emit(lambda: self._start_image(self.images.stem))

    self._run(change, "reading the images again ...")

  def wait(self) -> None:
    """Waits for what is at work."""
    self._worker.wait()

  # What happens by itself.

  def _take_up_session(self) -> None:
    """Goes on with the strokes of a widget of this window that was closed."""
    for other in list(_WIDGETS):
      if other._window is self._window and other.session is not None:
        self.session, other.session = other.session, None
        self._sessions = other._sessions
        self._layer = other._layer
        self._worker = other._worker  # One at a time for one teacher.
        self.scale.setChecked(self.session.scale > 1)
        self._draw_curve()

  def _take_up_study(self) -> None:
    """Takes up the image that napari has opened already."""
    for layer in self._viewer.layers:
      origin = layers_lib.get_origin(layer)
      if origin is not None:
        self._try(functools.partial(self._list_study, origin))
        self._start_image(origin.stem)
        return
    self.message.setText("Open a folder or a file, then paint.")

  def _list_study(self, origin: layers_lib.LayerOrigin) -> None:
    self.images.list_study(find_study(origin.path), origin.stem)

  def _start_image(self, stem: str) -> None:
    """Readies an image: its strokes, the brush, the maps."""
    study = self.images.study
    if study is None or any(
      one.session
      for one in _WIDGETS
      if one._window is self._window and one is not self
    ):
      return  # A newer widget has taken over.
    if self.session is None or self.session.study.path != study.path:
      # Strokes of a study that was left stay until napari ends.
      if study.path not in self._sessions:
        self._sessions[study.path] = Session(study)
      self.session = self._sessions[study.path]
      self.scale.setChecked(self.session.scale > 1)
      self._draw_curve()
    session = self.session
    self.maps = None
    # First: where the image cannot be read, nobody paints on another's strokes.
    names, strokes = self._name_maps(), self._get_strokes()
    old = [one for one in self._viewer.layers if one.name in names]
    old += [] if strokes is None else [strokes]
    layers_lib.remove_layers(self._viewer.layers, old)
    shape = self._try(lambda: session.open_image(stem))
    if shape is None:
      return
    size = session.pixel_um
    layer = LabelsLayer(
      session.strokes[stem],
      name=STROKES,
      scale=(size, size),
      units=("um", "um"),
      colormap=DirectLabelColormap(color_dict=_COLOURS | {None: "transparent"}),
      metadata={layers_lib.STROKES_KEY: True},
    )
    layer.events.paint.connect(lambda event: self._learn())
    layer.events.data.connect(lambda event: self._learn())
    # napari tells of undo by this alone, and of a fill just before it makes it.
    layer.events.paint.connect(lambda event: self._follow.start())
    layer.events.set_data.connect(lambda event: self._follow.start())
    self._layer = layer  # Not what is returned, which is a proxy.
    self._viewer.add_layer(layer)
    self.choose_class(1)
    self.message.setText(f"{stem}: paint a few pixels of each class.")
    self._learn()

  def _learn(self) -> None:
    """Fits anew, in the background, and classifies what is in view."""
    session, stem, layer = self.session, self.images.stem, self._get_strokes()
    if session is None or layer is None:
      return
    session.strokes[stem] = layer.data
    strokes, planes = layer.data.copy(), session.planes
    self._learned = strokes
    self._unlearned[session, stem] = planes, strokes
    part = self._find_view(strokes.shape)

    def learn() -> None:
      while self._unlearned:
        (owner, name), drawn = self._unlearned.popitem()
        owner.learn(name, *drawn)
      if not session.is_seen(planes, strokes):
        return  # The scale was changed meanwhile.
      if session.engine.fit():
        self._classify(session, stem, planes, part)

    self._submit(learn)
    self._prepare(part)

  def _learn_rest(self) -> None:
    """Learns what was painted, or taken back, since it was learned."""
    layer = self._get_strokes()
    if layer is not None and not np.array_equal(layer.data, self._learned):
      self._learn()

  def _look(self) -> None:
    """Classifies what is in view now, where that is not shown yet."""
    session, stem, layer = self.session, self.images.stem, self._get_strokes()
    if session is None or layer is None:
      return
    part, planes = self._find_view(layer.data.shape), session.planes
    if self.maps is None or not _holds(self.maps, part):
      if session.engine.forest is not None:
        self._submit(lambda: self._classify(session, stem, planes, part))
      self._prepare(part)

  def _classify(
    self, session: Session, stem: str, planes: np.ndarray, part: live.Part
  ) -> None:
    """Shows the maps of a part as they fill, unless something newer waits."""
    for maps in session.engine.look(stem, planes, part):
      self._done.emit(lambda maps=maps: self._show_maps(session, stem, maps))
      if self._worker.has_waiting():
        return

  def _prepare(self, part: live.Part) -> None:
    """Readies the features of what is in view and around, in the background."""
    session, stem = self.session, self.images.stem
    if session is not None:
      engine, planes = session.engine, session.planes
      self._worker.fill(lambda: engine.prepare(stem, planes, part))

  def _find_view(self, shape: tuple[int, int]) -> live.Part:
    """Returns the rows and columns in view, of the grid that is worked on."""
    layer = self._get_strokes()
    scale = self.session.scale if self.session else 1
    if layer is None or not np.asarray(layer.corner_pixels).any():
      corners = np.array([[0, 0], shape])  # Nothing is drawn yet.
    else:
      corners = layer.corner_pixels[:, -2:] + np.array([[0, 0], [1, 1]])
    whole = shape[0] * scale, shape[1] * scale
    return live.choose_view(whole, scale * corners)

  # What is shown.

  def _is_shown(self, session: Session, stem: str) -> bool:
    """Whether an image was not left; two studies may have one of a name."""
    return session is self.session and stem == self.images.stem

  def _show_maps(
    self, session: Session, stem: str, maps: live.LiveMaps
  ) -> None:
    if not self._is_shown(session, stem):
      return
    self.maps = maps
    pixel_um = session.pixel_um
    size = pixel_um / session.scale
    planes = [*np.moveaxis(maps.probabilities, -1, 0), maps.uncertainty]
    # The corners of both grids coincide, and napari places pixels' centres.
    shift = (size - pixel_um) / 2
    corner = [one.start * size + shift for one in maps.part]
    num_layers = len(self._viewer.layers)
    for name, plane, colour in zip(
      self._name_maps(), planes, _MAPS, strict=True
    ):
      plane = np.ascontiguousarray(plane)
      if name in self._viewer.layers:
        layer = self._viewer.layers[name]
        layer.data, layer.translate = plane, corner
        continue
      self._viewer.add_image(
        plane,
        name=name,
        scale=(size, size),
        units=("um", "um"),
        translate=corner,
        colormap=colour,
        blending="additive",
        opacity=0.6,
        contrast_limits=(0.0, 1.0),
        visible=name == "live uncertainty",
      )
    layers, strokes = self._viewer.layers, self._get_strokes()
    if strokes is not None and len(layers) > num_layers:
      layers.move(layers.index(strokes), len(layers))
      layers.selection.active = strokes
    mean = float(maps.uncertainty[maps.is_known].mean())
    told = (
      f"{stem}: mean uncertainty in view {mean:.3f} ({live.NUM_TREES} trees"
    )
    shape = session.planes.shape[:2]
    is_part = maps.uncertainty.shape != shape
    told += "; a part of the image)" if is_part else ")"
    self.message.setText(told)
    if maps.is_known.all():  # The view may have moved meanwhile.
      self._timer.start()

  def _show_place(self, session: Session, stem: str, place: live.Part) -> None:
    if not self._is_shown(session, stem):
      return
    scale = session.scale
    size = session.pixel_um / scale
    middle = [(one.start + one.stop) / 2 * size for one in place]
    camera = self._viewer.scene.camera
    camera.center, camera.zoom = middle, _ZOOM / session.pixel_um
    rows, columns = (
      slice(one.start // scale, one.stop // scale) for one in place
    )
    self.message.setText(
      f"paint near y {rows.start} to {rows.stop}, x {columns.start} to "
      f"{columns.stop}"
    )

  def _end_round(self, session: Session, means: dict[str, float]) -> None:
    history = session.add_round(means)
    if session is not self.session:
      return  # Another study is shown by now.
    order = rank.rank_images(means)
    told = ". ".join(rank.describe_round(history, order[:1]))
    self._draw_curve()
    if not rank.should_stop(history):
      self.images.show_image(order[0])
    self.message.setText(told)

  def _draw_curve(self) -> None:
    from dicexmbd_jax.report import teach_figures

    assert self.session is not None
    if not self.session.history:
      self.curve.clear()
      return
    picture = teach_figures.draw_curve(self.session.history)
    height, width = picture.shape[:2]
    form = QtGui.QImage.Format.Format_RGB888
    image = QtGui.QImage(picture.tobytes(), width, height, 3 * width, form)
    shown = QtGui.QPixmap.fromImage(image)
    smooth = QtCore.Qt.TransformationMode.SmoothTransformation
    self.curve.setPixmap(shown.scaledToWidth(300, smooth))

  def _show_cells(self, session: Session, stem: str, cells: np.ndarray) -> None:
    if not self._is_shown(session, stem):
      return
    study, size = session.study, session.pixel_um
    layers = self._viewer.layers
    old = self._cells if self._cells in layers else None
    # One of that name may be somebody's own, which stays.
    if old is None and "cells" in layers:
      named = layers["cells"]
      old = named if layers_lib.get_origin(named) else None
    if old is not None and layers_lib.is_unsaved(old):
      self.message.setText(
        f"{old.name}: the corrections are not saved. Save them, or remove the "
        "layer."
      )
      return
    if old is not None:
      layers.remove(old)
    origin = layers_lib.LayerOrigin(
      study.path, stem, "cells", study.results, cells, cells
    )
    self._cells = LabelsLayer(
      cells.copy(),
      name="cells",
      scale=(size, size),
      units=("um", "um"),
      opacity=0.5,
      features=layers_lib.measure_cells(cells, layers, stem),
      metadata={layers_lib.KEY: origin},
    )
    self._viewer.add_layer(self._cells)
    self.message.setText(f"{stem}: {len(np.unique(cells)) - 1} cells")

  # How.

  def _run(self, job: Callable[[], None], told: str) -> None:
    """Runs a job after all others; an error is one line."""
    self._cancel.clear()
    self.cancel.setEnabled(True)
    self.message.setText(told)

    def run() -> None:
      self._guard(job)
      self._done.emit(lambda: self.cancel.setEnabled(False))

    self._worker.call(run)

  def _submit(self, job: Callable[[], None]) -> None:
    self._worker.submit(lambda: self._guard(job))

  def _guard(self, job: Callable[[], None]) -> None:
    try:
      job()
    except CancelledError:
      self._tell("Stopped.")
    except (ValueError, OSError, MemoryError) as error:
      self._tell(str(error))

  def _report(self, line: str) -> None:
    """Shows how far a job is; ends it where that was asked for."""
    if self._cancel.is_set():
      raise CancelledError
    self._tell(line)

  def _tell(self, line: str) -> None:
    """Shows a line, from the worker's thread."""
    self._done.emit(lambda: self.message.setText(line))

  def _try(self, call: Callable[[], Any]) -> Any:
    try:
      return call()
    except (ValueError, OSError) as error:
      self.message.setText(str(error))
      return None

  def _get_strokes(self) -> LabelsLayer | None:
    is_there = self._layer in self._viewer.layers
    return self._layer if is_there else None

  @staticmethod
  def _name_maps() -> list[str]:
    names = [f"live {name.partition('/')[0]}" for name in forest.CLASSES]
    return [*names, "live uncertainty"]

  def _add_controls(self) -> None:
    box = QtWidgets.QVBoxLayout(self)
    box.addWidget(self.images)
    row = QtWidgets.QHBoxLayout()
    for number, name in enumerate((*forest.CLASSES, "erase"), 1):
      button = QtWidgets.QPushButton(name.partition("/")[0])
      number %= 4
      if number:
        button.setStyleSheet(f"border-bottom: 3px solid {_COLOURS[number]}")
      button.clicked.connect(
        lambda checked=False, number=number: self.choose_class(number)
      )
      row.addWidget(button)
    box.addLayout(row)
    grid = QtWidgets.QGridLayout()
    buttons = {
      "Most uncertain place": self.go_to_place,
      "Most uncertain image": self.go_to_image,
      "Cells from this teacher": self.find_cells,
      "Save teacher": lambda: self._ask(self.save_teacher),
      "Export strokes": lambda: self._ask(self.export_strokes),
      "Load strokes": lambda: self._ask(self.load_strokes),
    }
    for k, (text, call) in enumerate(buttons.items()):
      button = QtWidgets.QPushButton(text)
      button.clicked.connect(lambda checked=False, call=call: call())
      grid.addWidget(button, k // 2, k % 2)
    grid.addWidget(self.cancel, 3, 0)
    grid.addWidget(self.scale, 3, 1)
    self.cancel.clicked.connect(self.stop)
    self.scale.clicked.connect(lambda is_on: self.change_scale(1 + is_on))
    box.addLayout(grid)
    box.addWidget(self.message)
    box.addWidget(self.curve)

  def _ask(self, call: Callable[[str], None]) -> None:
    if path := QtWidgets.QFileDialog.getExistingDirectory(self):
      call(path)


def _holds(maps: live.LiveMaps, part: live.Part) -> bool:
  """Whether maps are whole, and hold a part."""
  return bool(maps.is_known.all()) and all(
    one.start <= other.start and other.stop <= one.stop
    for one, other in zip(maps.part, part, strict=True)
  )
