import zlib

import numpy as np
import PIL.Image
import pytest

from dicexmbd_jax.io import pictures


def test_listing_is_in_natural_order(tmp_path):
  for name in ("roi10.h5", "roi2.HDF5", "notes.txt", ".hidden.h5", "a.png"):
    (tmp_path / name).touch()
  found = pictures.list_pictures(tmp_path, (".h5", ".hdf5"))
  assert [source.stem for source in found] == ["roi2", "roi10"]
  found = pictures.list_pictures(tmp_path / "*.png", pictures.PNG)
  assert [source.stem for source in found] == ["a"]
  assert pictures.list_pictures(tmp_path / "a.png", (".h5",)) == []


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_png(tmp_path, shape):
  pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
  PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
  np.testing.assert_array_equal(pictures.read_png(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_size_that_the_pixels_of_a_png_cannot_have(tmp_path, mode):
  path = tmp_path / "a.png"
  PIL.Image.new(mode, (40, 30)).save(path)
  data = bytearray(path.read_bytes())
  data[16:24] = (5000).to_bytes(4, "big") + (4000).to_bytes(4, "big")
  data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r"a\.png: .*bytes for 5000 x 4000 pix"):
    pictures.read_png(path)


def test_damaged_pixels_of_a_png_are_told(tmp_path):
  path = tmp_path / "a.png"
  PIL.Image.fromarray(np.arange(600).reshape(20, 30) % 7 == 0).save(path)
  data = path.read_bytes()
  place = data.index(b"IDAT")
  for at in range(place - 4, len(data)):
    damaged = bytearray(data)
    damaged[at] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="a.png: found an unreadable PNG"):
      pictures.read_png(path)
  path.write_bytes(data[:-12])  # Without its end.
  with pytest.raises(ValueError, match="a damaged chunk at byte"):
    pictures.read_png(path)


def test_broken_png(tmp_path):
  (tmp_path / "a.png").write_bytes(b"nothing")
  with pytest.raises(ValueError, match="a.png: found an unreadable PNG"):
    pictures.read_png(tmp_path / "a.png")
