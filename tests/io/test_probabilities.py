import zipfile

import numpy as np
import pytest
import tifffile

from dicexmbd_jax import memory, storage
from dicexmbd_jax.io.probabilities import CLASSES, read_probabilities
from dicexmbd_jax.types import ImageSource


def read(path, member=None):
  return read_probabilities(ImageSource("a", path, member))


def draw(depth=3, dtype=np.uint16):
  rng = np.random.default_rng(0)
  return (rng.random((7, 5, depth)) * 200).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("axes", ["YXS", "CYX", "none, maps first", "none"])
def test_axes_and_dtypes(tmp_path, dtype, depth, axes, cut_finely):
  maps = draw(depth, dtype)
  path = tmp_path / "a.tiff"
  if axes == "YXS":
    tifffile.imwrite(path, maps, photometric="rgb" if depth == 3 else None)
  elif axes == "CYX":
    planes = maps.transpose(2, 0, 1)
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "CYX"})
  elif axes == "none":
    tifffile.imwrite(path, maps, photometric="minisblack")
  else:
    planes = maps.transpose(2, 0, 1)
    tifffile.imwrite(path, planes, photometric="minisblack")
  result = read(path)
  np.testing.assert_array_equal(result, maps)
  assert result.dtype == dtype
  assert result.flags.c_contiguous
  with cut_finely():
    cut = read(path)
  np.testing.assert_array_equal(cut, maps)
  assert cut.dtype == dtype and cut.flags.c_contiguous
  assert storage.is_mapped(cut) and not storage.is_mapped(result)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_large_maps_are_read_in_strips(
  tmp_path, rows, order, cut_finely, monkeypatch
):
  """Also where they are larger than memory."""
  path = tmp_path / "a.tiff"
  maps = (np.random.default_rng(0).random((300, 41, 3)) * 65535).astype("u2")
  tifffile.imwrite(
    path, maps, photometric="rgb", compression="zlib", rowsperstrip=rows
  )
  classes = [CLASSES[place] for place in order]
  source = ImageSource("a", path)
  whole = read_probabilities(source, classes)
  monkeypatch.setenv(memory.VARIABLE, "1e-4")
  with pytest.raises(ValueError, match="3 of 3 channels of 41 x 300"):
    read_probabilities(source, classes)
  with cut_finely():
    cut = read_probabilities(source, classes)
  np.testing.assert_array_equal(cut, whole)
  wanted = np.argsort(order)
  np.testing.assert_array_equal(cut, maps[..., wanted])


def test_big_endian_and_compressed(tmp_path):
  path = tmp_path / "a.tiff"
  maps = draw()
  tifffile.imwrite(
    path, maps, byteorder=">", compression="zlib", photometric="rgb"
  )
  result = read(path)
  assert result.dtype.isnative
  np.testing.assert_array_equal(result, maps)


def test_zip_member(tmp_path):
  tifffile.imwrite(tmp_path / "a.tiff", draw(), photometric="rgb")
  path = tmp_path / "maps.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.write(tmp_path / "a.tiff", "in/a.tiff")
  np.testing.assert_array_equal(read(path, "in/a.tiff"), draw())


def test_wrong_number_of_maps(tmp_path):
  path = tmp_path / "a.tiff"
  tifffile.imwrite(path, np.zeros((6, 8, 9), np.uint16))
  with pytest.raises(ValueError, match=r"a.tiff: found 6 planes of \(8, 9\)"):
    read(path)


def test_one_map(tmp_path):
  path = tmp_path / "a.tiff"
  tifffile.imwrite(path, np.zeros((8, 9), np.uint16))
  with pytest.raises(ValueError, match="found 1 planes.*expected 2 or 3 maps"):
    read(path)


def test_broken_files_are_named_once(tmp_path):
  path = tmp_path / "a.tiff"
  path.write_bytes(b"II*\0 nonsense")
  with pytest.raises(ValueError, match="a.tiff: found .*expected") as caught:
    read(path)
  assert str(caught.value).count("a.tiff") == 1
  with pytest.raises(ValueError, match="b.tiff: found no such file"):
    read(tmp_path / "b.tiff")
