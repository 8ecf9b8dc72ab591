import io
import zipfile

import numpy as np
import pytest

from dicexmbd_jax.io.arrays import read_arrays


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  path = tmp_path_factory.mktemp("arrays") / "whole.npz"
  values = np.random.default_rng(0).normal(size=300).astype(np.float32)
  np.savez_compressed(path, kernel=values, bias=values[:7])
  return path


def test_arrays_come_back_by_name(whole):
  found = read_arrays(whole, "parameters")
  assert {name: one.shape for name, one in found.items()} == {
    "kernel": (300,),
    "bias": (7,),
  }


def test_damaged_files_are_refused_in_one_line(whole, tmp_path):
  """Twenty bytes changed, anywhere: some damage is harmless, none escapes."""
  content = np.frombuffer(whole.read_bytes(), np.uint8)
  path = tmp_path / "damaged.npz"
  num_refused = 0
  for seed in range(200):
    rng = np.random.default_rng(seed)
    damaged = content.copy()
    damaged[rng.integers(len(content), size=20)] ^= 0xFF
    path.write_bytes(damaged.tobytes())
    try:
      read_arrays(path, "parameters")
    except ValueError as error:
      num_refused += 1
      assert str(error).startswith(f"{path}: found ")
      assert str(error).endswith(", expected parameters")
      assert "\n" not in str(error)
  assert num_refused > 150


def test_a_file_that_calls_itself_encrypted_is_refused(whole, tmp_path):
  content = bytearray(whole.read_bytes())
  content[content.index(b"PK\1\2") + 8] |= 1  # The first member's flags.
  path = tmp_path / "damaged.npz"
  path.write_bytes(content)
  with pytest.raises(ValueError, match="found .*encrypted.*expected param"):
    read_arrays(path, "parameters")


def test_an_array_that_declares_more_than_there_is(tmp_path):
  path = tmp_path / "damaged.npz"
  file = io.BytesIO()
  np.save(file, np.zeros((20, 30), np.float32))
  content = file.getvalue().replace(b"(20, 30), ", b"(9999, 3),")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("kernel.npy", content)
  with pytest.raises(
    ValueError, match="found kernel.npy of 2528 bytes instead"
  ):
    read_arrays(path, "parameters")
  with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
    archive.writestr("kernel.npy", bytes(10_000_000))
  with pytest.raises(ValueError, match="found kernel.npy of 10000000 bytes"):
    read_arrays(path, "parameters")


def test_other_files_are_refused(tmp_path):
  np.save(tmp_path / "one.npy", np.ones(3))
  with pytest.raises(ValueError, match="found File is not a zip file, expec"):
    read_arrays(tmp_path / "one.npy", "parameters")
  with pytest.raises(ValueError, match="none.npz: found No such file"):
    read_arrays(tmp_path / "none.npz", "parameters")
