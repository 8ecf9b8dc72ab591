"""Training runs in processes of their own, as their users start them."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pandas as pd

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = """
from ml_collections import ConfigDict
from configs import default

def get_config():
  config = default.get_config()
  config.model.update(dict(width=4, depth=1))
  config.train.data = ConfigDict(
      {{"cells": {{"path": {records!r}, "weight": 1.0}}}})
  config.train.update(dict(
      num_steps=12, batch_size=8, crop_px=16, warmup_steps=2, cells_records=0,
      learning_rate=1e-3, report_steps=1, eval_steps=4, average_decay=0.8))
  config.train.augment.update(
      dict(gamma=0.0, blur_px=0.0, channel_dropout=0.0))
  return config
"""


class Runs:
  """Runs on one set of records."""

  def __init__(self, folder: pathlib.Path, records: pathlib.Path):
    self.folder = folder
    (folder / "mine.py").write_text(CONFIG.format(records=str(records)))

  def start(self, name, *arguments, num_devices=1):
    """Starts a run with that many virtual devices."""
    environment = os.environ | {
      "PYTHONPATH": str(ROOT),
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
    }
    return subprocess.Popen(
      [sys.executable, "-m", "dicexmbd_jax", "train",
       f"--config={self.folder / 'mine.py'}",
       f"--workdir={self.folder / name}", *arguments],
      env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

  def finish(self, name, *arguments, num_devices=1, code=0):
    """Runs to the end; returns what was told."""
    return self.wait(
      self.start(name, *arguments, num_devices=num_devices), code
    )

  def wait(self, process, code=0):
    """Waits for the end; returns what was told."""
    _, told = process.communicate(timeout=300)
    assert process.returncode == code, told
    return told

  def read(self, name):
    """Returns the run's losses and gradient norms by step."""
    table = pd.read_csv(self.folder / name / "metrics.csv", index_col="step")
    return table[["loss", "gradient_norm", "validation_loss"]]

  def wait_for(self, name, pattern, process):
    """Waits until the run has such a file."""
    while not any((self.folder / name).glob(pattern)):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.0005)


def kill(process):
  """Ends a process as a machine that fails does."""
  process.send_signal(signal.SIGKILL)
  process.communicate()


def find_port():
  """Returns a port that nobody uses."""
  with socket.socket() as found:
    found.bind(("localhost", 0))
    return found.getsockname()[1]
