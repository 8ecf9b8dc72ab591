import errno
import os

import numpy as np

from dicexmbd_jax import storage
from dicexmbd_jax.runs.shelf import Shelf


def test_values_come_back_in_any_order(tmp_path):
  with storage.use_scratch(tmp_path):
    shelf = Shelf()
  for number in range(5):
    shelf.put(f"a{number}", {"cells": np.full(number, number)})
  for number in (3, 0, 4, 1, 2):
    found = shelf.take(f"a{number}")["cells"]
    np.testing.assert_array_equal(found, np.full(number, number))
  assert shelf.take("b") is None
  shelf.close()
  assert list(tmp_path.iterdir()) == []


def test_what_finds_no_room_is_forgotten_and_the_rest_is_kept(monkeypatch):
  shelf = Shelf()
  shelf.put("first", 1)
  true_write = os.pwrite

  def write_a_part(file, data, start):
    return true_write(file, data[: len(data) // 2], start)

  def fail(file, data, start):
    raise OSError(errno.ENOSPC, "No space left on device")

  for write in (write_a_part, fail):
    monkeypatch.setattr(os, "pwrite", write)
    shelf.put("second", "x" * 100)
  monkeypatch.setattr(os, "pwrite", true_write)
  shelf.put("third", [3])
  assert shelf.take("second") is None
  assert (shelf.take("first"), shelf.take("third")) == (1, [3])
  shelf.close()
