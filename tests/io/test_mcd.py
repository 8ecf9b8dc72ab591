import dataclasses
import shutil

import mcd_files
import numpy as np
import pytest
import txt_files

from dicexmbd_jax import memory, storage
from dicexmbd_jax.io import images, listing
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.types import ImageSource

FIRST = np.arange(24, dtype=np.float32).reshape(3, 4, 2) / 2
SECOND = FIRST + 100
PIXEL = 20  # Bytes: three axes and two channels.


def read(path, number, *copies):
  source = ImageSource(f"s_{number:03d}", path, None, number, copies)
  return images.read_every_channel(source)


def write_two(tmp_path, first, second, **fields):
  """Writes two acquisitions, with a .txt copy of each beside them."""
  path = tmp_path / "s.mcd"
  blocks = [mcd_files.make_block(counts) for counts in (first, second)]
  blocks[0] = dataclasses.replace(blocks[0], **fields)
  mcd_files.write_mcd(path, blocks)
  return path


def test_acquisitions(tmp_path):
  path = tmp_path / "s.mcd"
  blocks = [mcd_files.make_block(FIRST), mcd_files.make_block(SECOND, slide=2)]
  mcd_files.write_mcd(path, blocks)
  assert [image.stem for image in listing.list_images(path)[0]] == [
    *("s_001", "s_002"),
  ]
  for number, counts in ((1, FIRST), (2, SECOND)):
    loaded = read(path, number)
    np.testing.assert_array_equal(loaded.stack, counts)
    assert loaded.names == ("CD45_Pr141", "DNA1_Ir191")
    assert loaded.warnings == ()


def test_pixels_in_another_order(tmp_path):
  block = mcd_files.make_block(FIRST)
  block.pixels = block.pixels[::-1]
  mcd_files.write_mcd(tmp_path / "s.mcd", [block])
  np.testing.assert_array_equal(read(tmp_path / "s.mcd", 1).stack, FIRST)


def damage(pixels, way):
  """Returns pixels of another order, or with some that were never written."""
  rng = np.random.default_rng(len(pixels))
  if way == "shuffled":
    return rng.permutation(pixels)
  if way == "unwritten":
    return np.where(rng.random(len(pixels))[:, None] < 0.3, 0, pixels)
  return pixels


@pytest.mark.parametrize("way", ["plain", "shuffled", "unwritten"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (10, 10), (41, 31)])
def test_files_and_strips_do_not_matter(tmp_path, shape, way, cut_finely):
  counts = np.random.default_rng(0).random((*shape, 2), np.float32) + 1
  pixels = damage(mcd_files.list_pixels(counts), way)
  path = write_two(tmp_path, counts, SECOND, pixels=pixels)
  is_written = np.zeros(shape, bool)
  x, y = pixels[pixels[:, 3] > 0, :2].astype(int).T
  is_written[y, x] = True
  whole = read(path, 1)
  with cut_finely():
    cut = read(path, 1)
    assert storage.is_mapped(cut.stack)
  assert not storage.is_mapped(whole.stack)
  for loaded in (whole, cut):
    np.testing.assert_array_equal(
      loaded.stack, np.where(is_written[..., None], counts, 0)
    )
    assert loaded.is_complete == is_written.all()
    assert loaded.warnings == whole.warnings


@pytest.mark.parametrize(
  ("pixel", "axis", "value"),
  [(900, 0, 0), (900, 0, 31), (900, 1, -1), (1200, 1, np.nan)],
)
def test_strips_have_the_same_errors(tmp_path, pixel, axis, value, cut_finely):
  counts = np.ones((41, 31, 2), np.float32)
  pixels = mcd_files.list_pixels(counts)
  pixels[pixel, axis] = value
  pixels[1250, 0] = 77  # A later one is not told.
  path = write_two(tmp_path, counts, SECOND, pixels=pixels)
  with pytest.raises(ValueError, match="s.mcd: found .*, expected ") as whole:
    read(path, 1)
  with cut_finely(), pytest.raises(ValueError) as cut:
    read(path, 1)
  assert str(cut.value) == str(whole.value)


def test_a_large_acquisition_may_outgrow_memory(tmp_path, cut_finely):
  counts = np.ones((41, 31, 2), np.float32)
  path = write_two(tmp_path, counts, SECOND)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(memory.VARIABLE, "1e-6")
    with pytest.raises(memory.TooLargeError, match="31 x 41 pixels of 2 chan"):
      read(path, 1)
    with cut_finely():
      np.testing.assert_array_equal(read(path, 1).stack, counts)
      # What was never written is no reason to take any amount of it.
      path = write_two(tmp_path, counts, SECOND, shape=(4100, 3100))
      with pytest.raises(memory.TooLargeError, match="3100 x 4100 pixels of"):
        read(path, 1)


@pytest.mark.parametrize("slide", [1, 2])
@pytest.mark.parametrize(
  ("start", "end"),
  [
    (12 * PIXEL, 24 * PIXEL),  # The other one's.
    (6 * PIXEL, 18 * PIXEL),
    (0, 13 * PIXEL),
    (0, 36 * PIXEL),  # Encloses the other one's.
    (15 * PIXEL, 20 * PIXEL),  # Lies inside the other one's.
  ],
)
def test_overlapping_blocks_are_refused_or_recovered(
  tmp_path, start, end, slide
):
  path = tmp_path / "s.mcd"
  blocks = [
    mcd_files.make_block(FIRST, start=start, end=end),
    mcd_files.make_block(SECOND, slide=slide),
    mcd_files.make_block(FIRST),
  ]
  mcd_files.write_mcd(path, blocks)
  for number in (1, 2):
    with pytest.raises(ValueError, match=r"s\.mcd: found .*, expected "):
      read(path, number)
    copy = txt_files.write_txt(tmp_path / "copy.txt", FIRST + number)
    loaded = read(path, number, copy)
    np.testing.assert_array_equal(loaded.stack, FIRST + number)
    assert loaded.warnings == ("data in s.mcd are broken; read copy.txt",)


def test_the_rest_of_a_file_with_overlaps_is_read(tmp_path):
  path = tmp_path / "s.mcd"
  blocks = [
    mcd_files.make_block(FIRST, start=12 * PIXEL, end=24 * PIXEL),
    mcd_files.make_block(SECOND),
    mcd_files.make_block(FIRST + 7),
  ]
  mcd_files.write_mcd(path, blocks)
  np.testing.assert_array_equal(read(path, 3).stack, FIRST + 7)
  message = "found data of acquisition 1 that are acquisition 2's too"
  with pytest.raises(ValueError, match=message):
    read(path, 1)


def test_one_end_behind_the_file_costs_one_acquisition(tmp_path):
  path = write_two(tmp_path, FIRST, SECOND, end=10**6)
  with pytest.raises(ValueError, match="found unreadable data"):
    read(path, 1)
  np.testing.assert_array_equal(read(path, 2).stack, SECOND)


def test_interrupted_acquisition(tmp_path):
  path = write_two(tmp_path, FIRST, SECOND, end=7 * PIXEL)
  expected = FIRST.reshape(12, 2) * (np.arange(12) < 7)[:, None]
  incomplete = "acquisition 1 has 7 of 12 pixels"
  half = txt_files.write_txt(tmp_path / "half.txt", FIRST[:2])
  for copies in ((), (half,)):
    loaded = read(path, 1, *copies)
    np.testing.assert_array_equal(loaded.stack, expected.reshape(3, 4, 2))
    assert loaded.warnings == (incomplete,)
  whole = txt_files.write_txt(tmp_path / "whole.txt", FIRST)
  loaded = read(path, 1, half, whole)
  np.testing.assert_array_equal(loaded.stack, FIRST)
  assert loaded.warnings == ("data in s.mcd are incomplete; read whole.txt",)
  assert loaded.origin["recovered"]
  assert loaded.origin["recovery_file"] == "whole.txt"


def test_pixels_that_were_never_written_are_missing(tmp_path):
  pixels = mcd_files.list_pixels(FIRST)
  pixels[7:] = 0
  path = write_two(tmp_path, FIRST, SECOND, pixels=pixels)
  loaded = read(path, 1)
  assert loaded.warnings == ("acquisition 1 has 7 of 12 pixels",)
  np.testing.assert_array_equal(loaded.stack[0], FIRST[0])
  path = write_two(tmp_path, FIRST, SECOND, pixels=pixels * 0)
  with pytest.raises(ValueError, match="0 of 12 pixels"):
    read(path, 1)


@pytest.mark.parametrize(
  ("pixel", "axis", "value", "message"),
  [
    (5, 0, 0, "more than one pixel at x 0, y 1, expected one"),
    (5, 0, 4, "a pixel at x 4, y 1, expected x below 4 and y below 3"),
    (5, 1, -1, "a pixel at x 1, y -1, expected whole numbers from 0"),
    (5, 1, 1.5, "a pixel at x 1, y 1.5, expected whole numbers from 0"),
    (5, 0, np.nan, "a pixel at x nan, y 1, expected whole numbers from 0"),
    (5, 0, 3e38, "a pixel at x 3e[+]38, y 1, expected whole numbers from 0"),
  ],
)
def test_pixels_out_of_place(tmp_path, pixel, axis, value, message):
  pixels = mcd_files.list_pixels(FIRST)
  pixels[pixel, axis] = value
  path = write_two(tmp_path, FIRST, SECOND, pixels=pixels)
  with pytest.raises(ValueError, match=message):
    read(path, 1)
  copy = txt_files.write_txt(tmp_path / "copy.txt", FIRST)
  np.testing.assert_array_equal(read(path, 1, copy).stack, FIRST)


def test_copy_of_another_size_is_not_taken(tmp_path):
  path = write_two(tmp_path, FIRST, SECOND, end=7 * PIXEL + 1)
  copy = txt_files.write_txt(tmp_path / "copy.txt", FIRST[:2])
  with pytest.raises(ValueError, match=r"s\.mcd: found unreadable data"):
    read(path, 1, copy)


def test_copy_has_the_acquisitions_pixel_size(tmp_path):
  path = write_two(tmp_path, FIRST, SECOND, end=7 * PIXEL, step_um=2.0)
  copy = txt_files.write_txt(tmp_path / "copy.txt", FIRST)
  loaded = read(path, 1, copy)
  assert loaded.pixel_size_um == 2.0
  assert loaded.origin["acquisition_description"] == "ROI_001"
  assert loaded.origin["acquisition_width_um"] == 8.0


def move_block(data, old, new):
  """Writes other offsets; the description lies behind all pixels."""
  for tag, before, after in zip(("Start", "End"), old, new, strict=True):
    texts = [f"<Data{tag}Offset>{value}<" for value in (before, after)]
    first, second = (text.encode("utf-16-le") for text in texts)
    assert first in data
    data = data.replace(first, second)
  return data


@pytest.mark.real
@pytest.mark.parametrize(
  ("span", "shared"),
  [
    ((171674, 286874), {1, 2, 3}),
    ((229722, 344922), {1, 2, 3}),
    ((120000, 235200), {1, 2}),
    ((56474, 171674 + 32), {1, 2}),
  ],
)
def test_real_block_that_points_into_another(real_data, tmp_path, span, shared):
  folder = real_data / "imc_testdata"
  panel = read_panel(folder / "panel.csv")
  mcd = next((folder / "raw").rglob("*mockData1.mcd"))
  path = tmp_path / mcd.name
  path.write_bytes(move_block(mcd.read_bytes(), (56474, 171674), span))
  for image in listing.list_images(path)[0]:
    if image.acquisition in shared:
      with pytest.raises(ValueError, match=r"found .*, expected"):
        images.read_image(image, panel)
  for copy in mcd.parent.glob("*.txt"):
    shutil.copy(copy, tmp_path)
  right = {image.stem: image for image in listing.list_images(mcd)[0]}
  for image in listing.list_images(path)[0]:
    loaded = images.read_image(image, panel)
    expected = images.read_image(right[image.stem], panel)
    np.testing.assert_allclose(loaded.stack, expected.stack, atol=1e-3)
    assert len(loaded.warnings) == (image.acquisition in shared)
