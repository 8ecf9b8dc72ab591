import h5py
import ilastik as oracle
import numpy as np
import pytest

from dicexmbd_jax.io import hdf5

STACK = np.arange(5 * 7 * 3, dtype=np.float32).reshape(5, 7, 3)


@pytest.mark.parametrize("axes", ["cyx", "yxc", "xyc", "zyxc", "tzyxc", "czyx"])
def test_axes_as_tagged(tmp_path, axes):
  oracle.write_image(tmp_path / "a.h5", STACK, axes)
  found = hdf5.read_hdf5(tmp_path / "a.h5")
  np.testing.assert_array_equal(found, STACK)
  assert found.dtype == np.float32


@pytest.mark.parametrize(
  ("shape", "axes"),
  [
    ((5, 7), "yx"),
    ((5, 7, 3), "yxc"),
    ((3, 5, 7), "cyx"),
    ((5, 70, 60), "cyx"),
    ((1, 5, 7, 3), "zyxc"),
  ],
)
def test_axes_without_tags(shape, axes):
  assert hdf5.guess_axes(shape) == axes


def test_axes_of_another_number_are_not_believed(tmp_path):
  oracle.write_image(tmp_path / "a.h5", STACK, "cyx")
  found = hdf5.read_hdf5(tmp_path / "a.h5", axes="zyxc")
  np.testing.assert_array_equal(found, STACK)


def test_a_dataset_by_name(tmp_path):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file["one/img"] = STACK
    file["two"] = STACK + 1
  found = hdf5.read_hdf5(tmp_path / "a.h5", "one/img")
  np.testing.assert_array_equal(found, STACK)
  with pytest.raises(ValueError, match="found 2 datasets \\(/one/img, /two\\)"):
    hdf5.read_hdf5(tmp_path / "a.h5")
  with pytest.raises(ValueError, match="found no dataset three"):
    hdf5.read_hdf5(tmp_path / "a.h5", "three")


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (np.zeros((2, 5, 7, 3)), "found axes zyxc of \\(2, 5, 7, 3\\)"),
    (np.full((5, 7), np.nan), "not finite"),
    (np.array([[b"a"] * 5] * 5), "expected real numbers"),
  ],
)
def test_wrong_pixels(tmp_path, data, message):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file["img"] = data
  with pytest.raises(ValueError, match=message) as caught:
    hdf5.read_hdf5(tmp_path / "a.h5")
  assert str(tmp_path / "a.h5") in str(caught.value)


def test_broken_files(tmp_path):
  with pytest.raises(ValueError, match="found no such file"):
    hdf5.read_hdf5(tmp_path / "a.h5")
  (tmp_path / "a.h5").write_bytes(b"nothing")
  with pytest.raises(ValueError, match="found an unreadable HDF5 file"):
    hdf5.read_hdf5(tmp_path / "a.h5")
