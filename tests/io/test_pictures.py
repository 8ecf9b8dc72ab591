import struct
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


def write_raw(path, pixels, colour_type, clear=None):
  """Writes a PNG as Pillow cannot: 16 bits of any kind, one clear colour."""
  height, width = pixels.shape[:2]
  bits = 8 * pixels.dtype.itemsize
  head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
  rows = b"".join(b"\0" + row.tobytes() for row in pixels)
  chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
  if clear is not None:
    packed = struct.pack(f">{len(clear)}H", *clear)
    chunks.insert(1, (b"tRNS", packed))
  data = b"\x89PNG\r\n\x1a\n"
  for name, text in chunks:
    size, check = len(text), zlib.crc32(name + text)
    data += struct.pack(">I", size) + name + text + struct.pack(">I", check)
  path.write_bytes(data)


IDS = np.arange(600).reshape(20, 30)


@pytest.mark.parametrize(("colour_type", "num_bands"), [(4, 2), (2, 3), (6, 4)])
def test_bits_are_not_lost_in_silence(tmp_path, colour_type, num_bands):
  path = tmp_path / "a.png"
  write_raw(path, np.dstack([IDS] * num_bands).astype(">u2"), colour_type)
  with pytest.raises(ValueError, match=r"a\.png: found 16 bits of colour"):
    pictures.read_png(path)
  write_raw(path, IDS.astype(">u2"), 0)
  np.testing.assert_array_equal(pictures.read_png(path), IDS)


@pytest.mark.parametrize("num_bands", [1, 3])
def test_a_clear_colour_is_transparent(tmp_path, num_bands):
  cells = np.where(IDS % 3, 255, IDS % 5).astype(np.uint8)
  pixels = cells if num_bands == 1 else np.dstack([cells] * 3)
  path = tmp_path / "a.png"
  write_raw(path, pixels, 0 if num_bands == 1 else 2, [255] * num_bands)
  alpha = pictures.read_png(path)[..., -1]
  np.testing.assert_array_equal(alpha, np.where(cells == 255, 0, 255))
