"""Finds the cells of the image that napari shows, and adds them as Labels."""

import dataclasses
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.qt.threading import create_worker
from qtpy import QtCore, QtWidgets

from dicexmbd_jax import api
from dicexmbd_jax.io import listing
from dicexmbd_jax.masks.settings import PRESETS
from dicexmbd_jax.viewer import CancelledError, models, segmentation
from dicexmbd_jax.viewer import layers as layers_lib
from dicexmbd_jax.viewer.layers import LayerOrigin
from dicexmbd_jax.viewer.segmentation import SegmentJob

_WAIT_MS = 300  # After the last turn of a setting, before cells follow.
_ROLES = ("nuclear", "membrane")
_OWN = "the model's own"  # In place of a preset.
_PREFIX = "segmented "  # Of the layers' names.


class _NumberBox(QtWidgets.QDoubleSpinBox):
  """A number that is shown with as many decimals as it has."""

  def textFromValue(self, value: float) -> str:  # noqa: N802, as Qt's own.
    locale = self.locale()
    locale.setNumberOptions(QtCore.QLocale.NumberOption.OmitGroupSeparator)
    shortest = QtCore.QLocale.FloatingPointPrecisionOption
    return locale.toString(value, "f", shortest.FloatingPointShortest.value)


class SegmentWidget(QtWidgets.QWidget):
  """Channels, model and settings; the network runs in a thread of its own.

  Attributes:
    cells: of the last image that was segmented; None before.
    done: tells that new cells are shown.
  """

  done = QtCore.Signal()
  _seen = QtCore.Signal(float)  # From the thread: the share that is done.

  def __init__(self, napari_viewer: Any):
    """Lists the channels of the image that is shown.

    Args:
      napari_viewer: napari's viewer, with or without a window.
    """
    super().__init__()
    self._viewer = napari_viewer
    self.cells: api.Cells | None = None
    self._job: SegmentJob | None = None  # Which `cells` are of.
    self._cancel = threading.Event()
    self._worker: Any = None
    self._base: dict[str, Any] = {}  # The model's own live settings.
    self._is_late = False  # Whether settings changed while work was done.
    # By study and channel, what was ticked by hand.
    self._ticked: dict[tuple[str, str], list[bool]] = {}
    self.channels = QtWidgets.QTreeWidget()
    self.channels.setHeaderLabels(["channel", *_ROLES])
    self.model = models.ModelBox()
    self.views = QtWidgets.QComboBox()
    self.views.addItems(["1", "4", "8"])
    self.views.setCurrentText("4")
    self.magnification = QtWidgets.QLineEdit("auto")
    self.run = QtWidgets.QPushButton("Segment")
    self.cancel = QtWidgets.QPushButton("Cancel")
    self.progress = QtWidgets.QProgressBar()
    self.message = QtWidgets.QLabel()
    self.message.setWordWrap(True)
    self.preset = QtWidgets.QComboBox()
    self.preset.addItems([_OWN, *sorted(PRESETS)])
    self.live = _make_live_parts()
    self._timer = QtCore.QTimer(self, singleShot=True, interval=_WAIT_MS)
    self._place_parts()
    self._connect_parts()
    self._read_model()
    self._list_channels()

  def start(self) -> None:
    """Starts the network on the image that is shown."""
    try:
      job = self._make_job()
    except ValueError as error:
      self.message.setText(str(error))
      return
    self._start(job, segmentation.segment)

  def stop(self) -> None:
    """Ends the work after the batch of tiles that is on its way."""
    self._cancel.set()
    self.message.setText("Stopping ...")

  def is_busy(self) -> bool:
    """Whether a thread is at work."""
    return self._worker is not None

  def read_settings(self) -> dict[str, Any]:
    """Returns the live settings that are not the model's, or the preset's."""
    values = {name: _read_part(part) for name, part in self.live.items()}
    changed = {k: v for k, v in values.items() if v != self._base[k]}
    preset = self._get_preset()
    return changed if preset is None else {"preset": preset, **changed}

  def _start(self, job: SegmentJob, work: Callable[..., api.Cells]) -> None:
    self._cancel = threading.Event()
    cancel, seen = self._cancel, self._seen

    def tell(share: float) -> None:
      if cancel.is_set():
        raise CancelledError
      seen.emit(share)

    def do_work() -> tuple[SegmentJob, api.Cells | Exception]:
      try:
        return job, work(job, tell)
      except Exception as error:  # Shown in one line, whatever it is.
        return job, error

    self._set_busy(True)
    self._worker = create_worker(do_work)
    self._worker.returned.connect(self._take_result)
    self._worker.start()

  def _take_result(
    self, result: tuple[SegmentJob, api.Cells | Exception]
  ) -> None:
    job, found = result
    self._worker = None
    self._set_busy(False)
    if isinstance(found, CancelledError) or self._cancel.is_set():
      self.message.setText("Stopped; the cells are as they were.")
    elif isinstance(found, Exception):
      self.message.setText(str(found) or type(found).__name__)
    else:
      self._show_cells(job, found)
    if self._is_late:
      self._is_late = False
      self._timer.start()

  def _follow_settings(self) -> None:
    """Finds the cells anew where a live setting was turned."""
    if self.is_busy():  # Maybe with the first cells.
      self._is_late = True
      return
    job, cells = self._job, self.cells
    if job is None or cells is None:
      return
    if job.model != self.model.text():
      self.message.setText(
        "The cells are of another model: Segment finds those of the chosen one."
      )
      return
    job = dataclasses.replace(job, live=self.read_settings())

    def work(
      job: SegmentJob, tell: Callable[[float], None], cells: api.Cells = cells
    ) -> api.Cells:
      found = segmentation.segment_again(job, cells)
      tell(1.0)
      return found

    self._start(job, work)

  def _show_cells(self, job: SegmentJob, found: api.Cells) -> None:
    """Adds the cells as layers, or puts them into those of before."""
    markers = self._list_markers()
    if not markers or not _show_job(markers, job):
      self.message.setText("Another image is shown by now; its cells are left.")
      return
    name = f"{_PREFIX}cells"
    if name in self._viewer.layers and layers_lib.is_unsaved(
      self._viewer.layers[name]
    ):
      self.message.setText(
        f"{name}: the corrections are not saved. Save them, or remove the "
        "layer."
      )
      return
    self.cells, self._job = found, job
    shown = segmentation.list_result(job, found)
    for data, settings, kind in shown:
      settings = {**settings, "name": _PREFIX + settings["name"]}
      self._show_layer(data, settings, kind)
    told = [f"{job.origin.stem}: {len(found.table)} cells.", *found.warnings]
    self.message.setText("\n".join(told))
    self.done.emit()

  def _show_layer(
    self, data: np.ndarray, settings: dict[str, Any], kind: str
  ) -> None:
    if settings["name"] not in self._viewer.layers:
      self._viewer.add_layer(Layer.create(data, settings, kind))
      return
    layer = self._viewer.layers[settings["name"]]
    layer.data = data
    layer.scale = settings["scale"]
    layer.affine = settings["affine"]
    layer.metadata = settings["metadata"]
    if "features" in settings:
      layer.features = settings["features"]

  def _make_job(self) -> SegmentJob:
    """Reads what is asked for.

    Raises:
      ValueError: nothing to segment, or what cannot be meant; one line.
    """
    markers = self._list_markers()
    if not markers:
      raise ValueError(self._tell_no_channels())
    chosen = self._list_chosen()
    if not chosen["nuclear"]:
      raise ValueError("nuclear: found no channel, expected at least one")
    layers = {one.name: one for one in markers}
    base = layers[chosen["nuclear"][0]]
    wanted = _describe_grid(base)
    fitting = {k: v for k, v in layers.items() if _describe_grid(v) == wanted}
    for name in chosen["nuclear"] + chosen["membrane"]:
      if name not in fitting:
        raise ValueError(
          f"{name}: found {_describe_grid(layers[name])}, expected {wanted} as "
          f"in {base.name}"
        )
    return SegmentJob(
      origin=_describe_image(markers),
      stack=np.stack([np.asarray(one.data) for one in fitting.values()]),
      names=tuple(fitting),
      nuclear=tuple(chosen["nuclear"]),
      membrane=tuple(chosen["membrane"]),
      pixel_size_um=_read_pixel_size(base),
      model=self.model.text(),
      views=int(self.views.currentText()),
      magnification=segmentation.parse_magnification(self.magnification.text()),
      live=self.read_settings(),
      frame=_find_frame(base),
    )

  def _tell_no_channels(self) -> str:
    """Says why nothing that is shown is a channel."""
    for layer in self._viewer.layers:
      if isinstance(layer, Image) and layer.data.ndim != 2:
        return (
          f"{layer.name}: found {layer.data.shape}, expected a layer for each "
          "channel; split the stack, or open its file with this plugin"
        )
    return "Found no channels: open an image first."

  def _list_markers(self) -> list[Layer]:
    """Returns the image's markers; else whatever flat images are shown."""
    found = layers_lib.list_markers(self._viewer.layers)
    return found or [
      layer
      for layer in self._viewer.layers
      if isinstance(layer, Image)
      and layer.data.ndim == 2
      and layers_lib.get_origin(layer) is None
    ]

  def _list_channels(self, _event: Any = None) -> None:
    """Lists the channels where others are shown; guesses what they are."""
    markers = self._list_markers()
    names = [layer.name for layer in markers]
    if names == [item.text(0) for item in self._list_items()]:
      return
    self.channels.blockSignals(True)
    self.channels.clear()
    for layer in markers:
      origin = layers_lib.get_origin(layer)
      role = origin.role if origin else segmentation.guess_role(layer.name)
      usual = [role == one for one in _ROLES]
      ticks = self._ticked.get(_name_channel(layer), usual)
      item = QtWidgets.QTreeWidgetItem([layer.name])
      for k, is_ticked in enumerate(ticks, 1):
        item.setCheckState(k, _as_check(is_ticked))
      self.channels.addTopLevelItem(item)
    self.channels.blockSignals(False)
    self.channels.resizeColumnToContents(0)
    self._tell_roles()

  def _rename_channel(self, _event: Any = None) -> None:
    """Gives a channel its layer's new name; its ticks stay."""
    names = {layer.name for layer in self._list_markers()}
    items = self._list_items()
    gone = [item for item in items if item.text(0) not in names]
    new = names - {item.text(0) for item in items}
    if len(gone) == len(new) == 1:
      gone[0].setText(0, new.pop())

  def _take_ticks(self, item: QtWidgets.QTreeWidgetItem) -> None:
    """Keeps what was ticked by hand, for the study's other images, too."""
    checked = QtCore.Qt.CheckState.Checked
    ticks = [item.checkState(k) == checked for k in (1, 2)]
    for layer in self._list_markers():
      if layer.name == item.text(0):
        self._ticked[_name_channel(layer)] = ticks
    self._tell_roles()

  def _tell_roles(self) -> None:
    """Notes at the markers what is ticked, for the other widgets."""
    chosen = self._list_chosen()
    for layer in layers_lib.list_markers(self._viewer.layers):
      origin = layer.metadata[layers_lib.KEY]
      role = next((one for one in _ROLES if layer.name in chosen[one]), "")
      if role != origin.role:
        origin = dataclasses.replace(origin, role=role)
        layer.metadata = {**layer.metadata, layers_lib.KEY: origin}

  def _list_items(self) -> list[QtWidgets.QTreeWidgetItem]:
    count = self.channels.topLevelItemCount()
    return [self.channels.topLevelItem(k) for k in range(count)]

  def _list_chosen(self) -> dict[str, list[str]]:
    checked = QtCore.Qt.CheckState.Checked
    return {
      role: [
        item.text(0)
        for item in self._list_items()
        if item.checkState(k) == checked
      ]
      for k, role in enumerate(_ROLES, 1)
    }

  def _get_preset(self) -> str | None:
    text = self.preset.currentText()
    return None if text == _OWN else text

  def _read_model(self) -> None:
    """Shows the live settings of the model, or of the preset for it."""
    model = self.model.text()
    try:
      self._base = segmentation.read_live(model, self._get_preset())
    except (ValueError, OSError) as error:
      self.message.setText(str(error))
      return
    for name, part in self.live.items():
      part.blockSignals(True)
      _set_part(part, self._base[name])
      part.blockSignals(False)

  def _set_busy(self, is_busy: bool) -> None:
    self.run.setEnabled(not is_busy)
    self.cancel.setEnabled(is_busy)
    # Until the network tells of its first tiles: busy, without a share.
    self.progress.setRange(0, 0 if is_busy else 100)
    if is_busy:
      self.message.setText("At work ...")

  def _show_share(self, share: float) -> None:
    if self.is_busy():
      self.progress.setRange(0, 100)
      self.progress.setValue(round(100 * share))

  def _connect_parts(self) -> None:
    layers = self._viewer.layers.events
    layers.inserted.connect(self._list_channels)
    layers.removed.connect(self._list_channels)
    layers.renamed.connect(self._rename_channel)
    self.run.clicked.connect(self.start)
    self.cancel.clicked.connect(self.stop)
    self._seen.connect(self._show_share)
    self._timer.timeout.connect(self._follow_settings)
    self.model.chosen.connect(self._read_model)
    self.channels.itemChanged.connect(self._take_ticks)
    self.preset.currentTextChanged.connect(lambda _: self._read_model())
    self.preset.currentTextChanged.connect(lambda _: self._timer.start())
    for part in self.live.values():
      changed = (
        part.toggled
        if isinstance(part, QtWidgets.QCheckBox)
        else part.valueChanged
      )
      changed.connect(lambda _: self._timer.start())
    self.cancel.setEnabled(False)

  def _place_parts(self) -> None:
    box = QtWidgets.QVBoxLayout(self)
    box.addWidget(self.channels)
    form = QtWidgets.QFormLayout()
    form.addRow("model", self.model)
    form.addRow("views", self.views)
    form.addRow("magnification", self.magnification)
    box.addLayout(form)
    row = QtWidgets.QHBoxLayout()
    row.addWidget(self.run)
    row.addWidget(self.cancel)
    box.addLayout(row)
    box.addWidget(self.progress)
    group = QtWidgets.QGroupBox("Cells, changed at once")
    form = QtWidgets.QFormLayout(group)
    form.addRow("preset", self.preset)
    for name, part in self.live.items():
      form.addRow(name, part)
    box.addWidget(group)
    box.addWidget(self.message)


def _describe_image(markers: list[Layer]) -> LayerOrigin:
  """Returns what the markers show; cells are kept apart from other masks."""
  origin = layers_lib.get_origin(markers[0])
  if origin is None:
    path = pathlib.Path(markers[0].source.path or "image")
    return LayerOrigin(path, listing.get_stem(path), "")
  return dataclasses.replace(origin, role="", results=None)


def _describe_grid(layer: Layer) -> str:
  """Names a layer's pixels, alike for those that lie on one another."""
  shape = " x ".join(map(str, layer.data.shape))
  size = " x ".join(f"{abs(size):g}" for size in layer.scale)
  return f"{shape} pixels of {size} {layer.units[-1]}"


def _read_pixel_size(layer: Layer) -> float:
  """Returns the edge of a layer's pixels, in um.

  Raises:
    ValueError: they are not square.
  """
  height, width = np.abs(layer.scale)
  if not np.isclose(height, width, rtol=1e-3):
    raise ValueError(
      f"{layer.name}: found {_describe_grid(layer)}, expected square pixels"
    )
  return float(width * layers_lib.count_um(layer))


def _find_frame(layer: Layer) -> np.ndarray:
  """Returns how a layer lies in the world, its pixels' size apart.

  Args:
    layer: flat; it may be moved, turned or mirrored.

  Returns:
    float (3, 3), in um.
  """
  start = np.array(layer.data_to_world((0, 0)))
  frame = np.eye(3)
  frame[:2, 2] = start * layers_lib.count_um(layer)
  for k in (0, 1):
    step = np.array(layer.data_to_world(np.eye(2)[k])) - start
    frame[:2, k] = step / abs(layer.scale[k])
  return frame


def _show_job(markers: list[Layer], job: SegmentJob) -> bool:
  """Whether the markers show the image of a job.

  Layers of others do not tell which image they are of; their pixels do.
  """
  if _describe_image(markers) != job.origin:
    return False
  if layers_lib.get_origin(markers[0]) is not None:
    return True
  planes = [np.asarray(layer.data) for layer in markers]
  return all(
    any(np.array_equal(plane, own) for plane in planes)
    for name, own in zip(job.names, job.stack, strict=True)
    if name in job.nuclear + job.membrane
  )


def _name_channel(layer: Layer) -> tuple[str, str]:
  """Returns a channel's study and name."""
  origin = layers_lib.get_origin(layer)
  return str(origin.path) if origin else "", layer.name


def _make_live_parts() -> dict[str, QtWidgets.QWidget]:
  """Returns a part for each live setting."""
  parts: dict[str, QtWidgets.QWidget] = {}
  for name in segmentation.LIVE:
    if name in ("keeps_border", "parts_cells"):
      parts[name] = QtWidgets.QCheckBox()
      continue
    part = _NumberBox(decimals=20)  # A model's number must not be rounded.
    part.setSingleStep(0.05 if "threshold" in name or "corr" in name else 0.25)
    part.setMaximum(1.0 if "threshold" in name else 1e9)
    parts[name] = part
  return parts


def _read_part(part: Any) -> bool | float:
  if isinstance(part, QtWidgets.QCheckBox):
    return part.isChecked()
  return part.value()


def _set_part(part: Any, value: Any) -> None:
  if isinstance(part, QtWidgets.QCheckBox):
    part.setChecked(value)
  else:
    part.setValue(value)


def _as_check(is_on: bool) -> QtCore.Qt.CheckState:
  states = QtCore.Qt.CheckState
  return states.Checked if is_on else states.Unchecked
