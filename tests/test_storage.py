"""Where large arrays lie; none of it may change a result."""

import errno
import os
import sys
import time

import numpy as np
import pytest

from dicexmbd_jax import memory, storage


def test_large_arrays_lie_in_files_that_have_no_names(tmp_path, monkeypatch):
  monkeypatch.setattr(storage, "LARGE_BYTES", 4096)
  with storage.use_scratch(tmp_path):
    large = storage.allocate((32, 32), np.float32)
    small = storage.allocate((32, 31), np.float32)
  assert storage.is_mapped(large) and storage.is_mapped(large[3:, ::2].T)
  assert not storage.is_mapped(small)
  assert not large.any() and not small.any()
  large += 7
  assert (large == 7).all() and not list(tmp_path.iterdir())
  assert storage.SCRATCH not in os.environ


def test_large_arrays_lie_in_memory_where_there_is_no_room(
  tmp_path, monkeypatch
):
  def refuse(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(storage, "LARGE_BYTES", 1)
  with storage.use_scratch(tmp_path / "nowhere"):
    assert not storage.is_mapped(storage.allocate((3, 2), bool))
  monkeypatch.setattr(os, "posix_fallocate", refuse)
  assert storage.allocate((3, 2), bool).shape == (3, 2)


def test_what_lies_in_memory_for_want_of_files_stays_below_the_limit(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(storage, "LARGE_BYTES", 1)
  monkeypatch.setenv(memory.VARIABLE, "1e-5")  # 10 kB.
  with storage.use_scratch(tmp_path / "nowhere"):
    kept = [storage.allocate((1000,), np.float32) for _ in range(2)]
    with pytest.raises(MemoryError, match="1.2e-05 GB .*nowhere: No such file"):
      storage.allocate((1000,), np.float32)
    view = kept.pop()[10:]
    with pytest.raises(MemoryError):
      storage.allocate((1000,), np.float32)
    del view
    assert storage.allocate((1000,), np.float32).dtype == np.float32
  assert len(kept) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_files_are_handed_back():
  before = storage._measure_shared()
  large = storage.allocate((2**27,), np.uint8)
  large[:] = 3
  until = time.monotonic() + 20
  while storage._measure_shared() > before + 2**26 + 2**24:
    assert time.monotonic() < until
    time.sleep(0.02)
  assert (large == 3).all()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_a_file_that_is_read_are_handed_back(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"\3" * 2**26)
  pixels = np.memmap(path, np.uint8, "r")
  assert (pixels == 3).all()
  before = storage._measure_shared()
  storage.hand_back(pixels[3:])
  assert storage._measure_shared() < before - 2**25
  assert (pixels == 3).all()


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (90, 40, 3)])
def test_strips_cover_every_row_once(shape, monkeypatch):
  monkeypatch.setattr(storage, "STRIP_BYTES", 1000)
  rows = [np.arange(shape[0])[part] for part in storage.cut_strips(shape, 4)]
  np.testing.assert_array_equal(np.concatenate(rows), np.arange(shape[0]))
