import logging
import shutil
import zipfile

import numpy as np
import pytest
from ome_files import write_pages, write_set, write_xml

from dicexmbd_jax.io import images, source
from dicexmbd_jax.io.listing import list_images
from dicexmbd_jax.types import ImageSource

PLANES = np.random.default_rng(1).poisson(5, (3, 4, 5)).astype(np.uint16)
OTHERS = PLANES + 100
NAMES = ["DNA", "CD45", "CD3"]


def read(path):
  loaded = images.read_every_channel(ImageSource("a", path))
  return np.moveaxis(loaded.stack, -1, 0), loaded


def list_one(pattern):
  (found,), failures = list_images(pattern)
  assert not failures
  return found


@pytest.mark.parametrize("suffix", ["ome.tiff", "tif"])
def test_a_set_of_files_is_one_image(tmp_path, suffix):
  paths = write_set(tmp_path, "roi", PLANES, suffix, names=NAMES)
  found = list_one(tmp_path)
  assert (found.stem, found.path) == ("roi_C0", paths[0])
  assert found.parts == tuple(paths[1:])
  loaded = images.read_every_channel(found)
  np.testing.assert_array_equal(np.moveaxis(loaded.stack, -1, 0), PLANES)
  assert loaded.names == tuple(NAMES)
  assert (loaded.pixel_size_um, loaded.warnings) == (0.5, ())


def test_any_file_of_a_set_stands_for_it(tmp_path):
  paths = write_set(tmp_path, "roi", PLANES)
  for path in paths:
    assert list_one(path).path == paths[0]
    np.testing.assert_array_equal(read(path)[0], PLANES)


def test_two_sets_and_a_file_are_three_images(tmp_path):
  write_set(tmp_path, "a", PLANES)
  write_set(tmp_path, "b", OTHERS)
  write_pages(tmp_path / "c.tif", PLANES, None)
  listed, failures = list_images(tmp_path)
  assert ([one.stem for one in listed], failures) == (["a_C0", "b_C0", "c"], [])
  for one, planes in zip(listed, (PLANES, OTHERS, PLANES), strict=True):
    np.testing.assert_array_equal(read(one.path)[0], planes)


def test_planes_follow_the_description_not_the_names(tmp_path):
  names = ["z.ome.tif", "y.ome.tif", "x.ome.tif"]
  uuids = ["u0", "u1", "u2"]
  blocks = [(names[k], uuids[k], 0, {"C": k}) for k in range(3)]
  for k in range(3):
    xml = write_xml([blocks], {"C": 3}, uuids[k])
    write_pages(tmp_path / names[k], [PLANES[k]], xml)
  found = list_one(tmp_path)
  assert found.stem == "z"
  np.testing.assert_array_equal(read(found.path)[0], PLANES)


@pytest.mark.parametrize("has_uuids", [True, False])
def test_a_description_in_the_first_file_only(tmp_path, has_uuids):
  """As Micro-Manager writes them."""
  names = [f"mm_{k}.ome.tif" for k in range(3)]
  uuids = ["u0", "u1", "u2"] if has_uuids else [""] * 3
  blocks = [(names[k], uuids[k], 0, {"C": k}) for k in range(3)]
  write_pages(
    tmp_path / names[0], PLANES[:1], write_xml([blocks], {"C": 3}, uuids[0])
  )
  for k in (1, 2):
    xml = write_xml([], {}, uuids[k] or f"v{k}", binary=names[0])
    write_pages(tmp_path / names[k], [PLANES[k]], xml)
  if has_uuids:
    assert list_one(tmp_path).path.name == names[0]
    np.testing.assert_array_equal(read(tmp_path / names[2])[0], PLANES)
  else:  # Nothing proves that these files are the ones meant.
    with pytest.raises(ValueError, match="another image's file under the name"):
      read(tmp_path / names[0])


def test_a_companion_file(tmp_path):
  names = [f"c_{k}.tiff" for k in range(3)]
  blocks = [(names[k], f"u{k}", 0, {"C": k}) for k in range(3)]
  companion = tmp_path / "c.companion.ome"
  companion.write_text(write_xml([blocks], {"C": 3}, "u", names=NAMES))
  for k in range(3):
    xml = write_xml([], {}, f"u{k}", binary=companion.name)
    write_pages(tmp_path / names[k], [PLANES[k]], xml)
  found = list_one(tmp_path)
  stack, loaded = read(found.path)
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.names == tuple(NAMES)
  companion.unlink()
  with pytest.raises(ValueError, match=r"c_0\.tiff: found no file 'c\.comp"):
    read(tmp_path / names[0])


def test_one_image_per_file_though_each_describes_all(tmp_path):
  names = ["s0.ome.tif", "s1.ome.tif"]
  blocks = [
    [(names[s], f"u{s}", k, {"C": k}) for k in range(3)] for s in range(2)
  ]
  for s, planes in enumerate((PLANES, OTHERS)):
    xml = write_xml(blocks, {"C": 3}, f"u{s}", names=NAMES)
    write_pages(tmp_path / names[s], planes, xml)
  listed, _ = list_images(tmp_path)
  assert [one.stem for one in listed] == ["s0", "s1"]
  np.testing.assert_array_equal(read(tmp_path / names[1])[0], OTHERS)


def test_a_set_in_an_archive(tmp_path):
  (tmp_path / "x").mkdir()
  paths = write_set(tmp_path / "x", "roi", PLANES, names=NAMES)
  archive = tmp_path / "all.zip"
  with zipfile.ZipFile(archive, "w") as file:
    for path in paths:
      file.write(path, f"in/{path.name}")
  shutil.rmtree(tmp_path / "x")
  found = list_one(archive)
  assert (found.stem, found.member) == ("roi_C0", "in/roi_C0.ome.tiff")
  assert found.parts[1] == archive / "in/roi_C2.ome.tiff"
  loaded = images.read_every_channel(found)
  np.testing.assert_array_equal(np.moveaxis(loaded.stack, -1, 0), PLANES)
  assert source.hash_source(found)


def test_every_file_counts_in_the_hash(tmp_path):
  paths = write_set(tmp_path, "roi", PLANES)
  before = source.hash_source(list_one(tmp_path))
  data = paths[2].read_bytes()
  paths[2].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
  assert source.hash_source(list_one(tmp_path)) != before


def test_a_missing_part_is_named(tmp_path):
  paths = write_set(tmp_path, "roi", PLANES)
  paths[1].unlink()
  listed, _ = list_images(tmp_path)
  assert len(listed) == 2  # Each is told as failed.
  for one in listed:
    with pytest.raises(ValueError) as caught:
      read(one.path)
    assert str(caught.value) == (
      f"{one.path}: found no file 'roi_C1.ome.tiff' beside it, expected that "
      "part of the image there"
    )


def test_another_file_under_a_parts_name_is_refused(tmp_path):
  paths = write_set(tmp_path, "roi", PLANES)
  write_pages(paths[1], OTHERS[:1], None)
  with pytest.raises(ValueError, match=r"another image's file .*roi_C1"):
    read(paths[0])


def test_a_file_that_knows_nothing_of_the_set_is_refused(tmp_path):
  blocks = [("a.ome.tif", "ua", 0, {"C": 0}), ("b.ome.tif", "ub", 0, {"C": 1})]
  write_pages(
    tmp_path / "a.ome.tif", PLANES[:1], write_xml([blocks], {"C": 2}, "ua")
  )
  own = [("b.ome.tif", "ub", 0, {"C": 0})]
  write_pages(tmp_path / "b.ome.tif", OTHERS[:1], write_xml([own], {}, "ub"))
  with pytest.raises(ValueError, match=r"another image's file .*b\.ome"):
    read(tmp_path / "a.ome.tif")
  np.testing.assert_array_equal(read(tmp_path / "b.ome.tif")[0], OTHERS[:1])
  assert len(list_images(tmp_path)[0]) == 2


@pytest.mark.parametrize("uuid", ["", "urn:uuid:mine"])
def test_the_pixels_of_a_file_that_is_only_named_are_never_read(tmp_path, uuid):
  """A description that was copied from another file."""
  blocks = [("a.ome.tif", "urn:uuid:a", k, {"C": k}) for k in range(3)]
  first = write_xml([blocks], {"C": 3}, "urn:uuid:a", names=NAMES)
  write_pages(tmp_path / "a.ome.tif", OTHERS, first)
  copied = write_xml([blocks], {"C": 3}, uuid, names=NAMES)
  write_pages(tmp_path / "b.ome.tif", PLANES, copied)
  listed, _ = list_images(tmp_path)
  assert [one.stem for one in listed] == ["a", "b"]
  stack, loaded = read(tmp_path / "b.ome.tif")
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.names == tuple(NAMES)
  assert loaded.warnings == (
    "description of a.ome.tif taken for that of b.ome.tif's own pages",
  )
  np.testing.assert_array_equal(read(tmp_path / "a.ome.tif")[0], OTHERS)


def test_a_renamed_file_is_read_without_a_word(tmp_path):
  blocks = [("old.ome.tif", "u", k, {"C": k}) for k in range(3)]
  write_pages(
    tmp_path / "new.ome.tif", PLANES, write_xml([blocks], {"C": 3}, "u")
  )
  stack, loaded = read(tmp_path / "new.ome.tif")
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.warnings == ()


def test_a_copy_of_a_part_is_no_second_image(tmp_path):
  paths = write_set(tmp_path, "roi", PLANES)
  shutil.copy(paths[1], tmp_path / "copy.ome.tiff")
  listed, _ = list_images(tmp_path)
  assert [one.stem for one in listed] == ["copy", "roi_C0"]
  with pytest.raises(ValueError, match=r"found a copy of roi_C1\.ome\.tiff"):
    read(tmp_path / "copy.ome.tiff")
  np.testing.assert_array_equal(read(paths[0])[0], PLANES)


def test_names_with_folders_are_not_followed(tmp_path):
  (tmp_path / "sub").mkdir()
  blocks = [
    ("a.ome.tif", "ua", 0, {"C": 0}),
    ("sub/b.ome.tif", "ub", 0, {"C": 1}),
  ]
  for name, uuid in (("a.ome.tif", "ua"), ("sub/b.ome.tif", "ub")):
    xml = write_xml([blocks], {"C": 2}, uuid)
    write_pages(tmp_path / name, PLANES[:1], xml)
  with pytest.raises(ValueError, match="found no file 'sub/b"):
    read(tmp_path / "a.ome.tif")


def test_files_of_other_sizes_are_refused(tmp_path):
  paths = write_set(tmp_path, "roi", PLANES)
  blocks = [
    (path.name, f"urn:uuid:roi-{k}", 0, {"C": k})
    for k, path in enumerate(paths)
  ]
  xml = write_xml([blocks], {"C": 3}, "urn:uuid:roi-1")
  write_pages(paths[1], [np.zeros((4, 6), np.uint16)], xml)
  with pytest.raises(ValueError, match=r"found uint16 \(4, 6\) in page 0 of"):
    read(paths[0])


def test_a_truncated_part_is_refused(tmp_path):
  paths = write_set(tmp_path, "roi", PLANES)
  paths[2].write_bytes(paths[2].read_bytes()[:-4])
  with pytest.raises(ValueError, match="truncated TIFF"):
    read(paths[0])


@pytest.mark.parametrize("axis", ["Z", "T"])
def test_slices_and_times_in_several_files_are_no_channels(tmp_path, axis):
  names = ["p0.ome.tif", "p1.ome.tif"]
  blocks = [(names[k], f"u{k}", 0, {axis: k}) for k in range(2)]
  for k in range(2):
    write_pages(
      tmp_path / names[k],
      [PLANES[k]],
      write_xml([blocks], {axis: 2}, f"u{k}"),
    )
  with pytest.raises(ValueError, match="found axes TZCYX"):
    read(tmp_path / names[0])


def test_a_description_of_too_many_planes_is_refused(tmp_path):
  blocks = [("a.ome.tif", "ua", k, {"C": k}) for k in range(2)]
  blocks.append(("b.ome.tif", "ub", 0, {"C": 2}))
  for name, uuid in (("a.ome.tif", "ua"), ("b.ome.tif", "ub")):
    xml = write_xml([blocks], {"C": 3}, uuid)
    write_pages(tmp_path / name, PLANES[:1], xml)
  with pytest.raises(ValueError, match="found 1 pages in a"):
    read(tmp_path / "b.ome.tif")


def test_no_line_of_the_library_leaks(tmp_path, caplog, capfd):
  caplog.set_level(logging.DEBUG, "tifffile")
  paths = write_set(tmp_path, "roi", PLANES)
  paths[1].unlink()
  for one in list_images(tmp_path)[0]:
    with pytest.raises(ValueError, match="found no file"):
      read(one.path)
  assert (capfd.readouterr().err, caplog.records) == ("", [])
