import numpy as np
import PIL.Image
import pytest
import tifffile

from dicexmbd_jax.io.labels import read_labels

LABELS = np.array([[0, 1, 1, 0], [200, 0, 7, 7]])


@pytest.mark.parametrize(
  "dtype",
  [
    *(np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64),
    *(np.uint64, np.float32, np.float64, ">u2"),
  ],
)
def test_any_dtype(tmp_path, dtype):
  path = tmp_path / "a.tiff"
  tifffile.imwrite(path, LABELS.astype(dtype))
  labels = read_labels(path)
  assert labels.dtype == np.int32
  np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 4, 1), (1, 1, 1, 2, 4, 1)])
def test_axes_of_length_one(tmp_path, shape):
  path = tmp_path / "a.tiff"
  data = LABELS.reshape(shape).astype(np.uint16)
  options = {"imagej": True} if len(shape) == 6 else {"metadata": None}
  tifffile.imwrite(path, data, photometric="minisblack", **options)
  np.testing.assert_array_equal(read_labels(path), LABELS)


def test_large_ids_keep_every_digit(tmp_path):
  path = tmp_path / "a.tiff"
  labels = np.array([[0, 2**24 + 1, 2**31 - 1]], np.uint32)
  tifffile.imwrite(path, labels)
  np.testing.assert_array_equal(read_labels(path), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(tmp_path, dtype):
  path = tmp_path / "a.png"
  PIL.Image.fromarray(LABELS.astype(dtype)).save(path)
  np.testing.assert_array_equal(read_labels(path), LABELS)


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (np.array([[0.5, 1.0]]), "expected whole labels"),
    (np.array([[np.nan, 1.0]]), "expected whole labels"),
    (np.array([[np.inf, 1.0]]), "expected whole labels"),
    (np.array([[-1, 1]], np.int16), "from -1 to 1"),
    (np.array([[1, 2 + 1j]], np.complex64), "expected whole labels"),
    (np.array([[0, 2**31]], np.uint32), "expected whole labels"),
    (np.zeros((5, 8, 9), np.uint16), r"\(8, 9, 5\), expected one plane"),
  ],
)
def test_bad_masks(tmp_path, data, words):
  path = tmp_path / "a.tiff"
  tifffile.imwrite(path, data, photometric="minisblack")
  with pytest.raises(ValueError, match=rf"a\.tiff: found .*{words}"):
    read_labels(path)


def test_missing_and_broken_files(tmp_path):
  with pytest.raises(ValueError, match=r"b\.tiff: found no such file"):
    read_labels(tmp_path / "b.tiff")
  for name in ("c.tiff", "c.png"):
    (tmp_path / name).write_bytes(b"II*\0 broken")
    with pytest.raises(ValueError, match="found .* unreadable"):
      read_labels(tmp_path / name)
  with pytest.raises(ValueError, match=r"d\.png: found an unreadable PNG"):
    read_labels(tmp_path / "d.png")


def save_png(path, pixels):
  PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


CELLS = np.kron([[0, 3, 1, 0], [2, 0, 1, 1]], np.ones((3, 3), int))
COLOURS = np.array([[0, 0, 0], [10, 200, 7], [10, 201, 0], [255, 0, 0]])


@pytest.mark.parametrize("alpha", [None, 255, 0])
def test_colours_of_a_png_are_objects(tmp_path, alpha):
  pixels = COLOURS[CELLS]
  if alpha is not None:
    opacity = np.where(CELLS > 0, 255, alpha)
    pixels = np.dstack([pixels + (CELLS == 0)[..., None] * 9, opacity])
    if alpha:
      pixels[CELLS == 0, :3] = 0
  save_png(tmp_path / "a.png", pixels)
  np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), CELLS)


def test_grey_pngs_keep_their_ids(tmp_path):
  save_png(tmp_path / "a.png", np.repeat(CELLS[..., None] * 50, 3, axis=2))
  np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), CELLS * 50)
  save_png(tmp_path / "b.png", np.dstack([CELLS, CELLS * 0 + 255]))
  np.testing.assert_array_equal(read_labels(tmp_path / "b.png"), CELLS)


def test_palettes_are_looked_up(tmp_path):
  # Index 2 is black: what many programs write, whatever the order.
  data = CELLS.astype(np.uint8)
  picture = PIL.Image.frombytes("P", data.shape[::-1], data.tobytes())
  picture.putpalette([9, 9, 9, 0, 200, 0, 0, 0, 0, 255, 0, 0])
  picture.save(tmp_path / "a.png")
  expected = np.array([2, 1, 0, 3])[CELLS]
  np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), expected)
  # Equal colours: the numbers are the labels.
  picture.putpalette([0, 0, 0, 7, 7, 7, 7, 7, 7, 8, 8, 8])
  picture.save(tmp_path / "b.png")
  np.testing.assert_array_equal(read_labels(tmp_path / "b.png"), CELLS)


def test_pictures_are_no_masks(tmp_path):
  rng = np.random.default_rng(0)
  save_png(tmp_path / "photo.png", rng.integers(0, 255, (20, 20, 3)))
  with pytest.raises(ValueError, match="photo.png: found .* colours in 400"):
    read_labels(tmp_path / "photo.png")
  save_png(tmp_path / "white.png", (COLOURS + [0, 0, 50])[CELLS])
  with pytest.raises(ValueError, match="no black and no transparent pixel"):
    read_labels(tmp_path / "white.png")
