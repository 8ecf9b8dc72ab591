import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import tifffile

from dicexmbd_jax.io import images, listing, source
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.types import ImageSource, Panel, PanelRow

HEADER = ["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z"]
CHANNELS = ["131Xe(Xe131Di)", "CD45(Pr141Di)", "DNA1(Ir191Di)"]
COUNTS = np.arange(24, dtype=np.float32).reshape(2, 4, 3) / 2


@pytest.fixture
def panel(tmp_path):
  rows = (
    PanelRow("Ir191", "DNA", True, True, False),
    PanelRow("Pr141", "CD45", True, False, True),
  )
  return Panel(tmp_path / "panel.csv", rows)


def format_txt(counts=COUNTS):
  lines = ["\t".join([*HEADER, *CHANNELS])]
  for y, x in np.ndindex(counts.shape[:2]):
    values = [1, 2, 1, x, y, x, *(f"{count:.3f}" for count in counts[y, x])]
    lines.append("\t".join(str(value) for value in values))
  return "\n".join(lines) + "\n"


def write_txt(path, counts=COUNTS):
  path.write_text(format_txt(counts))
  return path


def write_tiff(path, counts):
  planes = np.moveaxis(counts, -1, 0)
  tifffile.imwrite(path, planes, photometric="minisblack")


def test_txt(tmp_path, panel):
  path = write_txt(tmp_path / "a.txt")
  loaded = images.read_image(ImageSource("a", path), panel)
  np.testing.assert_array_equal(loaded.stack, COUNTS[..., [2, 1]])
  assert loaded.stack.dtype == np.float32
  assert loaded.names == ("DNA", "CD45")
  assert (loaded.nuclear, loaded.membrane) == ((0,), (1,))
  assert loaded.pixel_size_um == 1.0
  assert loaded.warnings == ()


def test_txt_of_one_pixel(tmp_path, panel):
  path = write_txt(tmp_path / "a.txt", COUNTS[:1, :1])
  loaded = images.read_image(ImageSource("a", path), panel)
  assert loaded.stack.shape == (1, 1, 2)


@pytest.mark.parametrize(
  "text",
  [
    "",
    "Start_push\n",
    "\t".join(HEADER) + "\n",
    format_txt().replace("CD45(Pr141Di)", "CD45"),
    "\n".join(format_txt().split("\n")[:-3]) + "\n",
    format_txt().replace("\t0\t1\t", "\tx\t1\t"),
  ],
)
def test_broken_txt(tmp_path, panel, text):
  path = tmp_path / "a.txt"
  path.write_text(text)
  with pytest.raises(ValueError, match=r"a\.txt: found .*expected") as caught:
    images.read_image(ImageSource("a", path), panel)
  assert "\n" not in str(caught.value)


def test_tiff_against_its_panel(tmp_path, panel):
  path = tmp_path / "a.ome.tiff"
  planes = np.moveaxis(COUNTS, -1, 0)
  channel = {"Name": ["Xe131", "Pr141", "Ir191"]}
  metadata = {"axes": "CYX", "Channel": channel}
  tifffile.imwrite(
    path, planes, ome=True, metadata=metadata, photometric="minisblack"
  )
  loaded = images.read_image(ImageSource("a", path), panel)
  np.testing.assert_array_equal(loaded.stack, COUNTS[..., [2, 1]])
  with pytest.raises(ValueError, match="found 3 channel.* no panel"):
    images.read_image(ImageSource("a", path), None)
  row = images.describe_image(ImageSource("a", path), loaded)
  assert row == {
    "image": "a.tiff",
    "width_px": 4,
    "height_px": 2,
    "num_channels": 2,
    "source_file": "a.ome.tiff",
  }


def test_two_channels_need_no_panel(tmp_path):
  path = tmp_path / "a.tiff"
  write_tiff(path, COUNTS[..., :2])
  loaded = images.read_image(ImageSource("a", path), None)
  np.testing.assert_array_equal(loaded.stack, COUNTS[..., :2])
  assert loaded.names == ("nuclear", "membrane")


def test_missing_file(tmp_path, panel):
  for name in ("a.tiff", "a.mcd", "a.txt"):
    with pytest.raises(ValueError, match=rf"{name}: found no such file"):
      images.read_image(ImageSource("a", tmp_path / name, None, 1), panel)


def test_archive_members(tmp_path, panel):
  path = tmp_path / "all.zip"
  tiff = tmp_path / "b.tiff"
  write_tiff(tiff, COUNTS[..., 1:])
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("x/a.txt", format_txt())
    archive.write(tiff, "b.tiff")
  first, second = listing.list_images(path)[0]
  loaded = images.read_image(first, panel)
  np.testing.assert_array_equal(loaded.stack, COUNTS[..., [2, 1]])
  assert images.describe_image(first, loaded)["source_file"] == "a.txt"
  assert images.read_image(second, panel).stack.shape == (2, 4, 2)
  with pytest.raises(ValueError, match="expected the readable member c.tiff"):
    images.read_image(ImageSource("c", path, "c.tiff"), panel)


def test_broken_archive_member(tmp_path, panel):
  path = tmp_path / "all.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a.txt", format_txt())
  path.write_bytes(path.read_bytes().replace(b"0.500", b"9.500"))
  with pytest.raises(ValueError, match="found unreadable data .*CRC"):
    images.read_image(ImageSource("a", path, "a.txt"), panel)


def test_changed_archive_is_read_again(tmp_path, panel):
  path = tmp_path / "all.zip"
  hashes = []
  for counts in (COUNTS, COUNTS[:1]):
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("a.txt", format_txt(counts))
    image = ImageSource("a", path, "a.txt")
    assert len(images.read_image(image, panel).stack) == len(counts)
    hashes.append(source.hash_source(image))
  assert hashes[0] != hashes[1]


def test_broken_mcd_is_read_from_its_copy(tmp_path, panel):
  mcd = tmp_path / "s.mcd"
  mcd.write_bytes(b"broken")
  bad = tmp_path / "s_0_1.txt"
  bad.write_text("broken, too")
  copy = write_txt(tmp_path / "s_1.txt")
  image = ImageSource("s_001", mcd, None, 1, (bad, copy))
  loaded = images.read_image(image, panel)
  np.testing.assert_array_equal(loaded.stack, COUNTS[..., [2, 1]])
  assert loaded.warnings == ("data in s.mcd are broken; read s_1.txt",)
  row = images.describe_image(image, loaded)
  assert (row["recovered"], row["recovery_file"]) == (True, "s_1.txt")
  with pytest.raises(ValueError, match=r"s\.mcd: found unreadable data"):
    images.read_image(ImageSource("s_001", mcd, None, 1, (bad,)), panel)


def test_copy_in_an_archive(tmp_path, panel):
  path = tmp_path / "all.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("s.mcd", "broken")
    archive.writestr("s_1.txt", format_txt())
  image = ImageSource("s_001", path, "s.mcd", 1, (path / "s_1.txt",))
  assert images.read_image(image, panel).stack.shape == (2, 4, 2)


def test_hash_depends_on_a_copy_in_an_archive(tmp_path):
  path = tmp_path / "all.zip"
  hashes = set()
  for counts in (COUNTS, COUNTS[:, ::-1], COUNTS):
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("s.mcd", "broken")
      archive.writestr("s_1.txt", format_txt(counts))
    image = ImageSource("s_001", path, "s.mcd", 1, (path / "s_1.txt",))
    hashes.add(source.hash_source(image))
  assert len(hashes) == 2


def test_hash_depends_on_bytes_member_and_acquisition(tmp_path):
  path = write_txt(tmp_path / "a.txt")
  same = write_txt(tmp_path / "b.txt")
  first = source.hash_source(ImageSource("a", path))
  assert len(first) == 64
  assert source.hash_source(ImageSource("b", same)) == first
  assert source.hash_source(ImageSource("a", path, None, 1)) != first
  path.write_text(format_txt(COUNTS + 1))
  assert source.hash_source(ImageSource("a", path)) != first
  with pytest.raises(ValueError, match="No such file"):
    source.hash_source(ImageSource("a", tmp_path / "c.txt"))


@pytest.mark.real
def test_mcd_equals_its_txt_and_steinbocks_stack(real_data):
  folder = real_data / "imc_testdata"
  panel = read_panel(folder / "panel.csv")
  table = pd.read_csv(folder / "images.csv").set_index("image")
  sources, _ = listing.list_images(folder / "raw")
  for image in sources:
    loaded = images.read_image(image, panel)
    copy = ImageSource(image.stem, image.fallbacks[0])
    text = images.read_image(copy, panel).stack
    np.testing.assert_allclose(loaded.stack, text, atol=1e-3)
    # Steinbock's differs in hot pixels only, which it has capped.
    path = folder / "img" / f"{image.stem}.tiff"
    stack = images.read_image(ImageSource(image.stem, path), panel).stack
    is_hot = loaded.stack != stack
    assert is_hot.mean() < 5e-3
    assert np.all(loaded.stack[is_hot] > stack[is_hot] + 50)
    row = images.describe_image(image, loaded)
    expected = table.loc[row.pop("image")]
    assert row == {key: expected[key] for key in row}
    assert set(row) == set(expected.index)


@pytest.mark.real
def test_mcd_with_broken_pixels_is_refused_or_recovered(real_data, tmp_path):
  folder = real_data / "imc_testdata"
  panel = read_panel(folder / "panel.csv")
  mcd = next((folder / "raw").rglob("*mockData2.mcd"))
  old, new = (
    text.encode("utf-16-le") for text in ("<DataEndOffset>", "<DataEndOffset>9")
  )
  path = tmp_path / mcd.name
  data = mcd.read_bytes()
  assert old in data
  path.write_bytes(data.replace(old, new))
  for image in listing.list_images(path)[0]:
    with pytest.raises(ValueError, match=r"2\.mcd: found unreadable data"):
      images.read_image(image, panel)
  for copy in mcd.parent.glob("*.txt"):
    (tmp_path / copy.name).write_bytes(copy.read_bytes())
  for image in listing.list_images(path)[0]:
    assert "are broken" in images.read_image(image, panel).warnings[0]


@pytest.mark.real
def test_spleen_takes_kept_channels_by_name(real_data):
  folder = real_data / "spleen_imc"
  panel = read_panel(folder / "panel.csv")
  (image,) = listing.list_images(folder / "img" / "ROI010.ome.tiff")[0]
  loaded = images.read_image(image, panel)
  pages = tifffile.imread(image.path)
  kept = [i for i, row in enumerate(panel.rows) if row.is_kept]
  np.testing.assert_array_equal(loaded.stack, np.moveaxis(pages[kept], 0, -1))
  assert [loaded.names[i] for i in loaded.nuclear] == [
    *("DNA1_Ir191", "DNA3_Ir193", "HistoneH3_Yb176"),
  ]


def test_tiffs_need_neither_readimc_nor_pandas_nor_anndata():
  code = (
    "import sys\n"
    "from dicexmbd_jax.io import images, labels, listing, panel, write\n"
    "print({'readimc', 'pandas', 'anndata', 'skimage', 'jax'} & {*sys.modules})"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "set()"
