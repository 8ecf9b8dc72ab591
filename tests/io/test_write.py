import errno
import json
import pathlib
import resource
import signal
import tempfile

import hypothesis
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dicexmbd_jax.io import write
from dicexmbd_jax.io.labels import read_labels
from dicexmbd_jax.io.tiff import read_pixel_size

LABELS = np.array([[0, 1, 1], [2, 0, 7]], np.int32)
COUNTS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
NOISE = np.random.default_rng(0).random((200, 200, 3), np.float32)


def make_anndata():
  import anndata

  return anndata.AnnData(X=NOISE[..., 0])


# Each writes more than a few hundred bytes.
WRITERS = {
  "a.tiff": lambda path: write.write_labels(
    path, np.rint(NOISE[..., 0] * 9999).astype(np.int32)
  ),
  "p.tiff": lambda path: write.write_probabilities(path, NOISE),
  "s.ome.tiff": lambda path: write.write_stack(path, NOISE, "abc"),
  "t.csv": lambda path: write.write_table(path, pd.DataFrame(NOISE[..., 0])),
  "j.json": lambda path: write.write_json(path, {"x": list(range(999))}),
  "t.txt": lambda path: write.write_text(path, "text" * 999),
  "p.png": lambda path: write.write_png(path, (NOISE * 255).astype(np.uint8)),
  "c.h5ad": lambda path: write.write_h5ad(path, make_anndata()),
}


@pytest.mark.parametrize("pixel_size_um", [None, 0.5])
def test_labels(tmp_path, pixel_size_um):
  path = tmp_path / "new" / "folder" / "a.tiff"
  write.write_labels(path, LABELS, pixel_size_um)
  with tifffile.TiffFile(path) as file:
    (series,) = file.series
    assert (series.axes, series.dtype) == ("YX", np.uint16)
    assert file.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
  size = read_pixel_size(path)
  assert size == (pixel_size_um and pytest.approx(pixel_size_um))
  np.testing.assert_array_equal(read_labels(path), LABELS)


@pytest.mark.parametrize(
  ("highest", "dtype"), [(65535, np.uint16), (65536, np.uint32)]
)
def test_labels_are_never_clipped(tmp_path, highest, dtype):
  path = tmp_path / "a.tiff"
  write.write_labels(path, np.array([[0, highest]], np.int32))
  pixels = tifffile.imread(path)
  assert pixels.dtype == dtype
  assert pixels.max() == highest


@pytest.mark.parametrize(
  "labels", [np.array([[-1]], np.int32), np.zeros((2, 2, 2), np.int32)]
)
def test_bad_labels(tmp_path, labels):
  with pytest.raises(ValueError, match=r"a\.tiff: found labels"):
    write.write_labels(tmp_path / "a.tiff", labels)
  assert list(tmp_path.iterdir()) == []


@hypothesis.settings(deadline=None)
@hypothesis.given(
  hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(0, 2**31 - 1),
  )
)
def test_labels_come_back(tmp_path_factory, labels):
  path = tmp_path_factory.mktemp("labels") / "a.tiff"
  write.write_labels(path, labels)
  np.testing.assert_array_equal(read_labels(path), labels)


def test_probabilities(tmp_path):
  path = tmp_path / "p.tiff"
  values = np.array([[[0, 1, 0.5], [-0.1, 1.1, 2e-5]]], np.float32)
  write.write_probabilities(path, values)
  with tifffile.TiffFile(path) as file:
    assert file.series[0].axes == "YXS"
  expected = np.array([[[0, 65535, 32768], [0, 65535, 1]]], np.uint16)
  np.testing.assert_array_equal(tifffile.imread(path), expected)


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.full((1, 1, 3), np.nan)])
def test_bad_probabilities(tmp_path, bad):
  with pytest.raises(ValueError, match=r"p\.tiff: found probabilities"):
    write.write_probabilities(tmp_path / "p.tiff", bad.astype(np.float32))


def test_stack(tmp_path):
  path = tmp_path / "s.ome.tiff"
  write.write_stack(path, COUNTS, list("abcd"), 0.5)
  with tifffile.TiffFile(path) as file:
    assert file.is_ome
    assert file.series[0].axes == "CYX"
    assert file.series[0].dtype == np.uint16
    assert [f'Name="{name}"' in file.ome_metadata for name in "abcd"]
  assert read_pixel_size(path) == 0.5
  pixels = tifffile.imread(path)
  np.testing.assert_array_equal(pixels, np.moveaxis(COUNTS, -1, 0))
  write.write_stack(path, COUNTS + 0.5, list("abcd"))
  assert tifffile.imread(path).dtype == np.float32
  with pytest.raises(ValueError, match=r"expected \(y, x, 3\) for 3 names"):
    write.write_stack(path, COUNTS, list("abc"))


def test_tables_texts_and_pictures(tmp_path):
  table = pd.DataFrame({"Object": [1, 2], "CD3, high": [0.1, np.nan]})
  write.write_table(tmp_path / "t.csv", table)
  text = (tmp_path / "t.csv").read_bytes()
  assert text == b'Object,"CD3, high"\n1,0.1\n2,\n'
  data = {"a": np.float32(0.5), "b": tmp_path, "c": np.arange(2)}
  write.write_json(tmp_path / "j.json", data)
  read = json.loads((tmp_path / "j.json").read_text())
  assert read == {"a": 0.5, "b": str(tmp_path), "c": [0, 1]}
  write.write_text(tmp_path / "t.txt", "\u00b5\n")
  assert (tmp_path / "t.txt").read_bytes() == b"\xc2\xb5\n"
  pixels = (NOISE * 255).astype(np.uint8)
  write.write_png(tmp_path / "p.png", pixels)
  import PIL.Image

  np.testing.assert_array_equal(PIL.Image.open(tmp_path / "p.png"), pixels)
  with pytest.raises(ValueError, match=r"found float32 pixels"):
    write.write_png(tmp_path / "p.png", NOISE)


def test_numbers_of_a_table_are_spelled_as_pandas_does(tmp_path):
  rng = np.random.default_rng(0)
  scales = 10.0 ** rng.integers(-30, 30, (200, 3))
  odd = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-5, 1e16, 123456789.0]
  tables = [
    pd.DataFrame(rng.normal(size=scales.shape) * scales),
    pd.DataFrame(
      {
        'a, "x"': odd,
        "\udcff": np.array(odd, np.float32),
        "n": np.arange(8),
        "k": np.arange(8, dtype=np.int32),
        "is_odd": np.arange(8) % 2 == 1,
      }
    ),
  ]
  for table in (*tables, tables[1][:0], pd.DataFrame({"Object": []})):
    write.write_table(tmp_path / "t.csv", table)
    table.to_csv(
      tmp_path / "p.csv",
      index=False,
      lineterminator="\n",
      errors="backslashreplace",
    )
    expected = (tmp_path / "p.csv").read_bytes()
    assert (tmp_path / "t.csv").read_bytes() == expected


@pytest.mark.parametrize("name", WRITERS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch, name
):
  path = tmp_path / name
  path.write_text("old")

  def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(write.os, "replace", fail)
  with pytest.raises(OSError, match="No space left") as caught:
    WRITERS[name](path)
  assert caught.value.errno == errno.ENOSPC
  assert str(path) in str(caught.value)
  assert [entry.name for entry in tmp_path.iterdir()] == [name]
  assert path.read_text() == "old"


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_gives_one_line(tmp_path, name):
  path = tmp_path / name
  old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  old_action = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (300, old_limit[1]))
  try:
    with pytest.raises(OSError) as caught:
      WRITERS[name](path)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_action)
  assert str(caught.value) == f"[Errno 27] File too large: '{path}'"
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_folder_that_cannot_be_written_to(tmp_path, name):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(OSError) as caught:
    WRITERS[name](tmp_path / "file" / name)
  assert str(tmp_path / "file") in str(caught.value)
  assert "\n" not in str(caught.value)


def test_interrupted_write_leaves_nothing(tmp_path):
  with (
    pytest.raises(KeyboardInterrupt),
    write.replace_file(tmp_path / "a.txt") as temporary,
  ):
    temporary.write_text("half")
    raise KeyboardInterrupt
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mark", [".zgroup", "zarr.json", "image.tiff"])
def test_only_a_zarr_store_is_replaced_by_a_folder(tmp_path, mark):
  path = tmp_path / "a.zarr"
  path.mkdir()
  (path / mark).write_text("old")

  def replace():
    with write.replace_folder(path, overwrite=True) as folder:
      (folder / "new").write_text("new")

  if mark == "image.tiff":
    with pytest.raises(ValueError, match="found a folder that is no Zarr"):
      replace()
  else:
    replace()
  kept = mark if mark == "image.tiff" else "new"
  assert [one.name for one in path.iterdir()] == [kept]
  assert list(tmp_path.iterdir()) == [path]


def test_temporary_file_is_hidden_and_in_the_same_folder(tmp_path):
  with write.replace_file(tmp_path / "a.tiff") as temporary:
    temporary.write_text("new")
    assert temporary.parent == tmp_path
    assert temporary.name.startswith(".")
    assert temporary.suffix not in (".tiff", ".csv")
    assert not (tmp_path / "a.tiff").exists()
  assert (tmp_path / "a.tiff").read_text() == "new"


def test_relative_paths(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write.write_text("a.txt", "x")
  write.write_text(pathlib.Path("b/c.txt"), "x")
  assert (tmp_path / "b" / "c.txt").read_text() == "x"


def test_the_same_stack_gives_the_same_file(tmp_path):
  stack = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
  for name in ("a.ome.tiff", "b.ome.tiff"):
    write.write_stack(tmp_path / name, stack, ("A", "B"))
  first = (tmp_path / "a.ome.tiff").read_bytes()
  assert first == (tmp_path / "b.ome.tiff").read_bytes()


@pytest.mark.parametrize(
  ("num_colours", "mode"), [(2, "P"), (17, "P"), (256, "P"), (257, "RGB")]
)
def test_few_colours_are_a_palette_and_come_back(tmp_path, num_colours, mode):
  rng = np.random.default_rng(0)
  colours = rng.choice(1 << 24, num_colours, replace=False, shuffle=False)
  colours = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1)
  index = np.arange(30 * 40) % num_colours
  pixels = colours.astype(np.uint8)[index].reshape(30, 40, 3)
  write.write_png(tmp_path / "a.png", pixels)
  with PIL.Image.open(tmp_path / "a.png") as picture:
    assert picture.mode == mode
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), pixels)


def test_what_killed_runs_left_is_swept(tmp_path):
  left = [
    ".a.tiff.0123abcd.tmp",
    "one/.b.0123abcd.tmp",
    "one/two/.c.png.0123abcd.tmp",
    ".scratch.0123abcd.tmp/tmpx",
  ]
  kept = ["a.tmp", ".hidden.tmp", "one/.b.0123abc.tmp", "one/two/c.tiff"]
  for name in left + kept:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("cut")
  write.sweep_temporary(tmp_path)
  found = [path for path in tmp_path.rglob("*") if path.is_file()]
  assert sorted(found) == sorted(tmp_path / name for name in kept)
  write.sweep_temporary(tmp_path / "nowhere")


def test_temporary_files_of_libraries_are_removed(tmp_path):
  before = tempfile.gettempdir()
  with pytest.raises(KeyError), write.make_scratch(tmp_path) as scratch:
    assert tempfile.mkdtemp("tfds").startswith(str(scratch))
    raise KeyError
  assert tempfile.gettempdir() == before
  assert not list(tmp_path.iterdir())
