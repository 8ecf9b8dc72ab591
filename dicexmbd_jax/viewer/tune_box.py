"""Starts `finetune` on corrected cells, in a process of its own."""

import pathlib
import re
import sys
import time
from collections.abc import Sequence

from qtpy import QtCore, QtWidgets

from dicexmbd_jax.viewer import models, tuning

_TICK_MS = 500  # Between two looks at the clock.
_LEAVE_MS = 20_000  # For the best model so far, when napari is closed.
# Lines of XLA, which warns where compiling takes long, and of other libraries.
_FOREIGN = re.compile(
  r"\*{4}|\[Compiling|Very slow|The operation took|[EWIF]\d{4} "
)
# As `finetune` ends where it could not use all files, or was asked to stop.
_LACKS_FILES, _STOPPED = 1, 75


class TuneBox(QtWidgets.QGroupBox):
  """Minutes, progress and cancel of a fine-tuning, and what came of it.

  A process, not a thread: training takes the processors for an hour, and ends
  in order on a signal, which only a process gets.

  Attributes:
    done: tells that no fine-tuning is at work any more.
    result: of the last one; None where there is none.
  """

  done = QtCore.Signal()

  def __init__(self):
    super().__init__("Fine-tune: a model from the corrected cells")
    self.result: tuning.Tuned | None = None
    self._output = pathlib.Path()
    self._told: list[str] = []  # The process's lines.
    self._started_s = 0.0
    self._is_asked = False  # To stop.
    self.start_model = models.ModelBox(takes_better=False)
    self.minutes = QtWidgets.QDoubleSpinBox(decimals=2, value=60)
    self.minutes.setRange(0.01, 100_000)
    self.minutes.setValue(60)
    self.output = QtWidgets.QLineEdit()
    self.run = QtWidgets.QPushButton("Fine-tune")
    self.cancel = QtWidgets.QPushButton("Cancel")
    self.progress = QtWidgets.QProgressBar()
    self.message = QtWidgets.QLabel()
    self.message.setWordWrap(True)
    self._place_parts()
    self._timer = QtCore.QTimer(self, interval=_TICK_MS)
    self._timer.timeout.connect(self._show_share)
    # Of the application: where this box is closed, as with the dock that it is
    # in, the process leaves the best model so far before it ends.
    self._process = QtCore.QProcess(QtWidgets.QApplication.instance())
    self.destroyed.connect(self._process.terminate)
    channels = QtCore.QProcess.ProcessChannelMode.MergedChannels
    self._process.setProcessChannelMode(channels)
    self._process.readyReadStandardOutput.connect(self._read_lines)
    self._process.finished.connect(self._finish)
    self._process.errorOccurred.connect(self._tell_error)
    QtWidgets.QApplication.instance().aboutToQuit.connect(self._leave)

  def start(self, call: Sequence[str], output: pathlib.Path) -> None:
    """Starts a fine-tuning.

    Args:
      call: as tuning.make_call has it.
      output: its folder.
    """
    if self.is_busy():
      return
    self.result, self._output, self._told = None, output, []
    words = ["-m", "dicexmbd_jax", *call]
    words.append(f"--minutes={self.minutes.value():g}")
    if self.start_model.text():
      words.append(f"--checkpoint={self.start_model.text()}")
    self._started_s, self._is_asked = time.monotonic(), False
    self._set_busy(True)
    self.message.setText("Starting ...")
    self._process.start(sys.executable, words)

  def stop(self) -> None:
    """Asks for the best model so far; asked twice, ends at once."""
    if self._is_asked:
      self._process.kill()
    else:
      self._process.terminate()
    self._is_asked = True
    self.message.setText("Stopping; the best model so far is kept ...")

  def is_busy(self) -> bool:
    """Whether a fine-tuning is at work."""
    return self._process.state() != QtCore.QProcess.ProcessState.NotRunning

  def _read_lines(self) -> None:
    text = bytes(self._process.readAllStandardOutput()).decode(errors="replace")
    lines = [line.strip() for line in text.split("\n")]
    self._told += [line for line in lines if line and not _FOREIGN.match(line)]
    if self._told and not self._is_asked:
      self.message.setText(self._told[-1])

  def _finish(self, code: int, _status: object = None) -> None:
    self._read_lines()
    self._set_busy(False)
    try:
      if code not in (0, _LACKS_FILES, _STOPPED):
        raise ValueError([f"ended with {code}", *self._told][-1])
      self.result = tuning.read_result(self._output)
    except (ValueError, OSError, KeyError) as error:
      stopped = "Stopped before there was a model."
      self.message.setText(stopped if self._is_asked else str(error))
    else:
      self._tell_result(self.result, code)
    self.done.emit()

  def _tell_result(self, result: tuning.Tuned, code: int) -> None:
    """Says whether the model is better, and offers it."""
    models.OFFERS.add(str(result.folder), result.is_better)
    lines = [f"{result.verdict[:1].upper()}{result.verdict[1:]}."]
    lines.append(
      f"{result.folder} is chosen in Segment."
      if result.is_better
      else f"It is kept apart, and offered in Segment: {result.folder}."
    )
    if code == _LACKS_FILES:
      failures = self._output / "failures.csv"
      lines.append(f"Some files could not be used: see {failures}.")
    if code == _STOPPED:
      lines.append("Stopped: Fine-tune goes on from here.")
    lines.append(f"See {self._output / 'report.html'}.")
    self.message.setText("\n".join(lines))

  def _tell_error(self, error: object) -> None:
    if error == QtCore.QProcess.ProcessError.FailedToStart:
      self._set_busy(False)
      self.message.setText(self._process.errorString())
      self.done.emit()

  def _show_share(self) -> None:
    """Shows the time; what comes after it is not known."""
    spent_s = time.monotonic() - self._started_s
    share = spent_s / (60 * self.minutes.value())
    self.progress.setRange(0, 100 if share < 1 else 0)
    self.progress.setValue(int(100 * share))

  def _set_busy(self, is_busy: bool) -> None:
    self.run.setEnabled(not is_busy)
    self.cancel.setEnabled(is_busy)
    self.minutes.setEnabled(not is_busy)
    self.progress.setRange(0, 100)
    self.progress.setValue(0)
    if is_busy:
      self._timer.start()
    else:
      self._timer.stop()

  def _leave(self) -> None:
    """Ends the process in order when napari is closed."""
    if self.is_busy():
      self._process.terminate()
      self._process.waitForFinished(_LEAVE_MS)

  def _place_parts(self) -> None:
    form = QtWidgets.QFormLayout(self)
    form.addRow("start from", self.start_model)
    form.addRow("minutes", self.minutes)
    form.addRow("model folder", self.output)
    row = QtWidgets.QHBoxLayout()
    row.addWidget(self.run)
    row.addWidget(self.cancel)
    form.addRow(row)
    form.addRow(self.progress)
    form.addRow(self.message)
    self.cancel.clicked.connect(self.stop)
    self.cancel.setEnabled(False)
