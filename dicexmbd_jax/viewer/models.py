"""The choice of a model, which knows those that were made in this session."""

from qtpy import QtCore, QtWidgets


class ModelOffers(QtCore.QObject):
  """Tells all widgets of models that were made.

  Attributes:
    made: tells a model folder, and whether it is to be chosen.
    folders: all of them so far.
  """

  made = QtCore.Signal(str, bool)

  def __init__(self):
    super().__init__()
    self.folders: list[str] = []

  def add(self, folder: str, is_chosen: bool) -> None:
    """Offers a model."""
    if folder not in self.folders:
      self.folders.append(folder)
    self.made.emit(folder, is_chosen)


OFFERS = ModelOffers()


class ModelBox(QtWidgets.QWidget):
  """A model folder: typed, looked for, or one of those that were made.

  Attributes:
    chosen: tells that another one may be meant.
  """

  chosen = QtCore.Signal()

  def __init__(self, takes_better: bool = True):
    """Makes the choice; at first it is the shipped model.

    Args:
      takes_better: whether a better model is chosen as soon as it is made.
    """
    super().__init__()
    self._takes_better = takes_better
    self.folders = QtWidgets.QComboBox()
    self.folders.setEditable(True)
    self.folders.addItems(["", *OFFERS.folders])
    # A long path must not make the window wider.
    self.folders.setSizeAdjustPolicy(
      self.folders.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    self.folders.setMinimumContentsLength(12)
    line = self.folders.lineEdit()
    line.setPlaceholderText("the shipped model")
    browse = QtWidgets.QPushButton("...")
    browse.clicked.connect(self._ask)
    row = QtWidgets.QHBoxLayout(self)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(self.folders, 1)
    row.addWidget(browse)
    line.editingFinished.connect(self.chosen.emit)
    self.folders.activated.connect(lambda _: self.chosen.emit())
    OFFERS.made.connect(self._add)

  def text(self) -> str:
    """Returns the folder; "" for the shipped model."""
    return self.folders.currentText().strip()

  def setText(self, text: str) -> None:  # noqa: N802, as Qt's own.
    """Chooses a folder, and tells of it."""
    self.folders.setEditText(text)
    self.chosen.emit()

  def _add(self, folder: str, is_chosen: bool) -> None:
    if self.folders.findText(folder) < 0:
      self.folders.addItem(folder)
    if is_chosen and self._takes_better:
      self.setText(folder)

  def _ask(self) -> None:
    if path := QtWidgets.QFileDialog.getExistingDirectory(self):
      self.setText(path)
