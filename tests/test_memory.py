"""Nothing is allocated for what a file only declares."""

import functools
import struct
import tracemalloc
import zlib

import h5py
import numpy as np
import PIL.Image
import pytest
import tifffile

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import memory
from dicexmbd_jax.io import arrays, hdf5, images, pictures, tiff
from dicexmbd_jax.runs import pool
from dicexmbd_jax.types import ImageSource

SMALL = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


@pytest.fixture(autouse=True)
def limit(monkeypatch):
  """A limit that the machine's memory does not decide: 2.5 GB."""
  monkeypatch.setenv(memory.VARIABLE, "2.5")


def read(path):
  return images.read_every_channel(ImageSource("a", path)).stack


def write_declared(path, height, width, compression):
  """Writes a little TIFF, then makes its tags declare another size."""
  tifffile.imwrite(path, SMALL[0], compression=compression, metadata=None)
  with tifffile.TiffFile(path, mode="r+b") as file:
    tags = file.pages.first.tags
    tags["ImageLength"].overwrite(height)
    tags["ImageWidth"].overwrite(width)
    tags["RowsPerStrip"].overwrite(height)


def measure_peak(call):
  tracemalloc.start()
  try:
    call()
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  return peak


@pytest.mark.parametrize(
  ("compression", "words"),
  [
    ("zlib", "found 1 of 1 channels of 32768 x 32768 pixels, 6.4 GB in memory"),
    (None, "found 24 bytes of pixels, expected 2147483648 for 32768 x 32768"),
  ],
)
def test_a_declared_size_is_not_allocated(tmp_path, compression, words):
  path = tmp_path / "a.tif"
  write_declared(path, 32768, 32768, compression)

  def refuse():
    for read_it in (read, tiff.read_pixels):
      with pytest.raises(ValueError, match="^.*a.tif: found .* expected") as c:
        read_it(path)
      if read_it is read:
        assert words in str(c.value)

  assert measure_peak(refuse) < 20e6


@pytest.mark.parametrize(
  ("height", "width"), [(3, 3), (3, 2), (2, 4), (3, 5), (1, 4), (6, 4)]
)
def test_a_size_that_the_pixels_do_not_have_is_refused(tmp_path, height, width):
  """A narrower image would be sheared, without a word."""
  path = tmp_path / "a.tif"
  write_declared(path, height, width, None)
  with pytest.raises(ValueError, match="found 24 bytes of pixels, expected"):
    read(path)


def test_missing_tiles_are_refused(tmp_path):
  path = tmp_path / "a.tif"
  tifffile.imwrite(path, np.ones((48, 32), np.uint8), tile=(16, 16))
  np.testing.assert_array_equal(read(path)[..., 0], 1)
  with tifffile.TiffFile(path, mode="r+b") as file:
    tags = file.pages.first.tags
    for name in ("TileOffsets", "TileByteCounts"):
      tags[name].overwrite(tags[name].value[:4])
  with pytest.raises(ValueError, match="found 4 strips or tiles .* expected 6"):
    read(path)


def test_a_declared_tile_is_not_allocated(tmp_path):
  path = tmp_path / "a.tiff"
  image = np.ones((12, 16), np.uint8)
  tifffile.imwrite(path, image, tile=(16, 16), compression="zlib")
  with tifffile.TiffFile(path) as file:
    place = file.pages[0].tags["TileLength"].valueoffset
  data = bytearray(path.read_bytes())
  data[place : place + 4] = (0x7FFFFFF0).to_bytes(4, "little")
  path.write_bytes(data)

  def refuse():
    with pytest.raises(memory.TooLargeError, match="tiles of 16 x 2147483632"):
      tiff.read_pixels(path)

  assert measure_peak(refuse) < 20e6


@pytest.mark.parametrize("height", [12, 13, 16])
def test_strips_are_whole_or_filled_up(tmp_path, height):
  path = tmp_path / "a.tif"
  pixels = np.arange(height * 5, dtype=np.uint16).reshape(height, 5)
  tifffile.imwrite(path, pixels, rowsperstrip=4)
  np.testing.assert_array_equal(read(path)[..., 0], pixels)


def test_the_channels_asked_for_count_alone(tmp_path, monkeypatch):
  """Of pages. What is decoded as a whole counts as a whole."""
  path = tmp_path / "a.tif"
  planes = np.zeros((10, 100, 100), np.uint16)
  tifffile.imwrite(path, planes, compression="zlib", metadata={"axes": "CYX"})
  monkeypatch.setenv(memory.VARIABLE, "1e-4")  # 100 kB; a channel takes 60.
  select = functools.partial(pick, 1)
  assert tiff.read_tiff(path, select, path).stack.shape == (100, 100, 1)
  with pytest.raises(memory.TooLargeError, match="2 of 10 channels of 100 x 1"):
    tiff.read_tiff(path, functools.partial(pick, 2), path)


def pick(count, names, num_channels):
  every = images._select_every(names, num_channels)
  return type(every)(
    every.channels[:count], every.names[:count], every.nuclear, every.membrane
  )


def test_hdf5_and_npz(tmp_path, monkeypatch):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file["img"] = np.zeros((300, 300, 2), np.float32)
  np.savez(tmp_path / "a.npz", a=np.zeros(100_000))
  monkeypatch.setenv(memory.VARIABLE, "1e-4")
  with pytest.raises(
    ValueError, match=r"^\S+a\.h5: found .* 0\.0 GB in memory"
  ):
    hdf5.read_pixels(tmp_path / "a.h5")
  with pytest.raises(ValueError, match=r"^\S+a\.npz: found 1 arrays, 0\.0 GB"):
    arrays.read_arrays(tmp_path / "a.npz", "arrays")


def get_limit(_):
  return memory.get_limit_gb()


def test_the_limit_reaches_other_processes(monkeypatch):
  monkeypatch.setenv(memory.VARIABLE, "")
  memory.set_limit(0.125)
  assert [found for _, found in pool.map_images(get_limit, [0, 1], 2)] == [
    0.125, 0.125
  ]  # fmt: skip


def test_the_default_is_half_of_the_machine(monkeypatch):
  monkeypatch.setenv(memory.VARIABLE, "")
  monkeypatch.setattr(memory, "_measure_machine", lambda: 8 * 10**9)
  assert memory.get_limit_gb() == 4.0


def test_the_flag_sets_it(tmp_path):
  words = [f"--output={tmp_path}", "--max_memory_gb=0.5"]
  program.parse_flags("simulate", words)
  assert memory.get_limit_gb() == 0.5


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_no_size_is_refused(tmp_path, value, monkeypatch, capsys):
  call = ["simulate", f"--output={tmp_path}", f"--max_memory_gb={value}"]
  assert program.main(call) == 2
  assert "max_memory_gb: found" in capsys.readouterr().err
  monkeypatch.setenv(memory.VARIABLE, value)
  assert program.main(call[:-1]) == 2
  assert memory.VARIABLE in capsys.readouterr().err


@pytest.mark.filterwarnings("error")
def test_png(tmp_path, monkeypatch):
  """Whatever Pillow takes for too large, the limit decides."""
  path = tmp_path / "a.png"
  write_png_header(path, 40_000, 50_000)

  def refuse():
    with pytest.raises(memory.TooLargeError, match="40000 x 50000 pixels, 2.0"):
      pictures.read_png(path)

  monkeypatch.setenv(memory.VARIABLE, "1.5")
  assert measure_peak(refuse) < 20e6
  pixels = np.eye(300, dtype=np.uint8)
  PIL.Image.fromarray(pixels).save(path)
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
  np.testing.assert_array_equal(pictures.read_png(path), pixels)
  assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def write_png_header(path, width, height):
  def chunk(name, data):
    length = struct.pack(">I", len(data))
    return length + name + data + struct.pack(">I", zlib.crc32(name + data))

  head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
  parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"")), b""
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
