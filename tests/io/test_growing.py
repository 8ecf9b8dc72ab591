import h5py
import numpy as np
import pytest

from dicexmbd_jax.io import growing


@pytest.mark.parametrize("width", [(), (3,), (0,), (2, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_rows_come_back_however_they_came(tmp_path, monkeypatch, width, dtype):
  monkeypatch.setattr(growing, "_PIECE_BYTES", 100)
  rng = np.random.default_rng(0)
  parts = [
    rng.integers(0, 2, (count, *width)).astype(dtype)
    for count in (0, 1, 40, 7, 300, 2)
  ]
  with h5py.File(tmp_path / "a.h5", "w") as file:
    array = growing.GrowingArray(file, "a", dtype, width)
    for part in parts:
      array.add(part)
    array.close()
  with h5py.File(tmp_path / "a.h5") as file:
    assert file["a"].dtype == dtype
    np.testing.assert_array_equal(file["a"][()], np.concatenate(parts))


def test_other_types_are_cast_or_refused(tmp_path):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    array = growing.GrowingArray(file, "a", np.float64)
    array.add(np.arange(3))
    array.close()
    np.testing.assert_array_equal(file["a"][()], [0.0, 1.0, 2.0])
    whole = growing.GrowingArray(file, "b", np.int64)
    with pytest.raises(TypeError, match="Cannot cast"):
      whole.add(np.array([0.5]))
