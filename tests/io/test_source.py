import os
import pathlib
import random
import zipfile

import numpy as np
import pytest
import tifffile

from dicexmbd_jax.io import images, source
from dicexmbd_jax.io.listing import list_images
from dicexmbd_jax.types import ImageSource

METHODS = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
COUNTS = np.arange(4000, dtype=np.float32).reshape(2, 40, 50) % 97


def write_archive(folder, method, names=("a.tif", "b.txt")):
  tifffile.imwrite(folder / "a.tif", COUNTS, photometric="minisblack")
  (folder / "b.txt").write_text("Start_push\tEnd_push\n1\t2\n")
  with zipfile.ZipFile(folder / "all.zip", "w", method) as archive:
    for name in names:
      archive.write(folder / name, f"x/{name}")
      (folder / name).unlink()
  return folder / "all.zip"


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_archive_only_ever_gives_lines(tmp_path, method):
  """The archive's other members, and the other images, go on."""
  path = write_archive(tmp_path, method)
  data, rng = path.read_bytes(), random.Random(method)
  outcomes = set()
  for _ in range(150):
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 3, 20])):
      damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    path.write_bytes(damaged)
    listed, failures = list_images(path)
    outcomes.update("unlisted" for _ in failures)
    for one in listed:
      try:
        source.hash_source(one)
        images.read_every_channel(one)
        outcomes.add("read")
      except ValueError as error:
        outcomes.add("refused")
        assert "found" in str(error)
        assert "\n" not in str(error)
  assert outcomes == {"unlisted", "read", "refused"}


def test_a_damaged_member_leaves_the_others(tmp_path):
  path = write_archive(tmp_path, zipfile.ZIP_DEFLATED)
  with zipfile.ZipFile(path) as archive:
    info = archive.getinfo("x/b.txt")
  data = bytearray(path.read_bytes())
  start = info.header_offset + 30 + len("x/b.txt")
  data[start : start + 8] = b"\xff" * 8
  path.write_bytes(data)
  listed, failures = list_images(path)
  assert ([one.stem for one in listed], failures) == (["a", "b"], [])
  stack = images.read_every_channel(listed[0]).stack
  np.testing.assert_array_equal(np.moveaxis(stack, -1, 0), COUNTS)
  with pytest.raises(ValueError, match=r"all\.zip/x/b\.txt: found unreadable"):
    images.read_every_channel(listed[1])


def test_a_member_with_a_name_of_thousands_of_digits(tmp_path):
  path = tmp_path / "all.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("1" * 5000 + ".tif", b"no TIFF")
    archive.writestr("2.tif", b"no TIFF")
  listed, _ = list_images(path)
  assert [one.stem for one in listed] == ["2", "1" * 5000]


@pytest.mark.parametrize(
  ("name", "text"),
  [
    (b"caf\xe9.tif", "caf\u00e9"),  # Latin-1.
    ("caf\u00e9.tif".encode(), "caf\u00e9"),
    (b"\xff\xfe.tif", "\u00ff\u00fe"),
  ],
)
def test_names_that_are_no_utf8(tmp_path, name, text):
  path = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
  tifffile.imwrite(path, COUNTS, photometric="minisblack")
  (found,), _ = list_images(tmp_path)
  assert found == ImageSource(text, path)
  loaded = images.read_every_channel(found)
  assert images.describe_image(found, loaded)["image"] == f"{text}.tiff"
  assert loaded.origin == {"source_file": f"{text}.tif"}
