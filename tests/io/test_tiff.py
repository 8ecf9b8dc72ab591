import threading

import numpy as np
import PIL.Image
import pytest
import tifffile

from dicexmbd_jax import memory, storage
from dicexmbd_jax.io import ifds, tiff, write
from dicexmbd_jax.io.selection import ChannelSelection

PLANES = np.random.default_rng(0).poisson(3, (5, 40, 33)).astype(np.uint16)
NAMES = list("abcde")
OME = {"axes": "CYX", "Channel": {"Name": NAMES}}


def write_pages(path, **options):
  with tifffile.TiffWriter(path) as file:
    for plane in PLANES:
      file.write(plane, photometric="minisblack", **options)


def write_named_pages(path):
  with tifffile.TiffWriter(path) as file:
    for plane, name in zip(PLANES, NAMES, strict=True):
      tag = (285, "s", 0, name, True)
      file.write(
        plane, extratags=[tag], metadata=None, photometric="minisblack"
      )


def write_pyramid(path):
  with tifffile.TiffWriter(path, ome=True) as file:
    file.write(PLANES, subifds=1, metadata=OME)
    file.write(PLANES[:, ::2, ::2], subfiletype=1)


def write_with_pillow(path):
  first, *others = [PIL.Image.fromarray(plane) for plane in PLANES]
  first.save(path, save_all=True, append_images=others, compression="tiff_lzw")


def write_array(data=PLANES, **options):
  return lambda path: tifffile.imwrite(path, data, **options)


GREY = {"photometric": "minisblack"}
LAYOUTS = {
  "imagej": write_array(imagej=True),
  "imagej_float": write_array(PLANES.astype(np.float32), imagej=True),
  "imagej_slices": write_array(imagej=True, metadata={"axes": "ZYX"}),
  "imagej_labels": write_array(imagej=True, metadata={"Labels": NAMES}),
  "steinbock": write_array(PLANES[None, None, ..., None], imagej=True),
  "ome": write_array(ome=True, metadata=OME),
  "ome_six_axes": write_array(
    PLANES[None, None], ome=True, metadata={**OME, "axes": "TZCYX"}
  ),
  "ome_tiled_lzw": write_array(
    ome=True, metadata=OME, tile=(16, 16), compression="lzw"
  ),
  "ome_big_endian": write_array(ome=True, metadata=OME, byteorder=">"),
  "ome_pyramid": write_pyramid,
  "plain": write_array(**GREY),
  "plain_no_metadata": write_array(metadata=None, **GREY),
  "plain_named": write_array(metadata=OME, **GREY),
  "big_endian_zstd": write_array(byteorder=">", compression="zstd", **GREY),
  "bigtiff": write_array(bigtiff=True, **GREY),
  "float64": write_array(PLANES.astype(np.float64), **GREY),
  "int32_deflate": write_array(
    PLANES.astype(np.int32), compression="zlib", predictor=True, **GREY
  ),
  "uint8": write_array(PLANES.astype(np.uint8), **GREY),
  "samples_last": write_array(
    np.ascontiguousarray(np.moveaxis(PLANES, 0, -1)),
    planarconfig="contig",
    **GREY,
  ),
  "samples_first": write_array(planarconfig="separate", **GREY),
  "page_by_page": write_pages,
  "pages_no_metadata": lambda path: write_pages(path, metadata=None),
  "named_pages": write_named_pages,
  "pillow": write_with_pillow,
}
NAMED = {"imagej_labels", "plain_named", "named_pages"}


def read(path, *channels):
  """Reads with a selection of these channels, and what was offered."""
  offered = []

  def select(names, num_channels):
    offered.extend([list(names), num_channels])
    shown = tuple(str(channel) for channel in channels)
    return ChannelSelection(channels, shown, (0,), (0,))

  return tiff.read_tiff(path, select, path), *offered


@pytest.mark.parametrize("layout", LAYOUTS)
def test_asked_channels_of_every_layout(tmp_path, layout):
  path = tmp_path / "stack.tif"
  LAYOUTS[layout](path)
  raw, names, num_channels = read(path, 3, 0)
  np.testing.assert_array_equal(raw.stack, np.moveaxis(PLANES[[3, 0]], 0, -1))
  assert raw.stack.dtype == np.float32
  assert np.moveaxis(raw.stack, -1, 0).flags.c_contiguous  # Each channel.
  assert num_channels == 5
  is_named = layout in NAMED or layout.startswith("ome")
  assert names == (NAMES if is_named else [])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_stacks_are_read_in_strips(
  tmp_path, layout, cut_finely, monkeypatch
):
  """Also where they are larger than memory, if each channel is a page."""
  path = tmp_path / "stack.tif"
  LAYOUTS[layout](path)
  whole = read(path, 3, 0)[0].stack
  with tiff._open_tiff(path, path) as opened:
    can_be_cut = opened.can_be_cut
  with cut_finely():
    cut = read(path, 3, 0)[0].stack
    np.testing.assert_array_equal(cut, whole)
    assert storage.is_mapped(cut) == can_be_cut
    monkeypatch.setenv(memory.VARIABLE, "1.1e-5")  # 11 kB.
    if can_be_cut:
      np.testing.assert_array_equal(read(path, 3, 0)[0].stack, whole)
    else:
      with pytest.raises(memory.TooLargeError, match="channels of 33 x 40"):
        read(path, 3, 0)


def test_a_large_stack_that_is_only_declared_is_refused(
  tmp_path, cut_finely, monkeypatch
):
  path = tmp_path / "stack.tif"
  planes = np.zeros((2, 400, 500), np.uint16)
  tifffile.imwrite(path, planes, compression="zlib", rowsperstrip=10)
  monkeypatch.setattr(storage, "MAX_RATIO", 5)  # Zeros shrink to a thousandth.
  monkeypatch.setenv(memory.VARIABLE, "1e-3")
  with cut_finely(), pytest.raises(memory.TooLargeError, match="500 x 400"):
    read(path, 0, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_truncated_file_is_taken_for_another(tmp_path, layout):
  path = tmp_path / "stack.tif"
  LAYOUTS[layout](path)
  data = path.read_bytes()
  whole = read(path, 4, 1)[0].stack
  cuts = {
    *range(0, len(data), len(data) // 40),
    *range(len(data) - 9, len(data)),
  }
  num_refused = 0
  for length in sorted(cuts):
    path.write_bytes(data[:length])
    try:
      stack = read(path, 4, 1)[0].stack
    except ValueError as error:
      num_refused += 1
      assert str(error).startswith(f"{path}: found")
      assert "expected" in str(error)
      assert "\n" not in str(error)
    else:  # Only unused bytes at the end were lost.
      np.testing.assert_array_equal(stack, whole)
  assert num_refused >= 40


def test_garbage_in_compressed_data_is_refused(tmp_path):
  path = tmp_path / "stack.tif"
  write_array(compression="zlib", **GREY)(path)
  data = bytearray(path.read_bytes())
  with tifffile.TiffFile(path) as file:
    start = file.pages[2].dataoffsets[0]
  data[start : start + 40] = bytes(40)
  path.write_bytes(data)
  with pytest.raises(ValueError, match="unreadable TIFF"):
    read(path, 2)
  read(path, 1)  # Only asked pages are read.


@pytest.mark.parametrize(
  ("shape", "options"),
  [
    (shape, options)
    for shape in [(5, 1, 1), (5, 4, 1), (5, 1, 2), (1, 1, 1)]
    for options in [{"ome": True}, {}, {"metadata": {"axes": "CYX"}}]
  ],
)
def test_tiny_images(tmp_path, shape, options):
  path = tmp_path / "tiny.tiff"
  data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape) + 1
  tifffile.imwrite(path, data, photometric="minisblack", **options)
  raw, _, num_channels = read(path, *range(shape[0]))
  assert num_channels == shape[0]
  np.testing.assert_array_equal(raw.stack, np.moveaxis(data, 0, -1))


@pytest.mark.parametrize(
  ("data", "options", "words"),
  [
    (np.zeros((2, 3, 8, 9)), {"metadata": {"axes": "ZCYX"}}, "axes ZCYX"),
    (
      np.zeros((4, 8, 9), np.uint8),
      {"ome": True, "metadata": {"axes": "ZYX"}},
      "axes ZYX",
    ),
    (np.zeros((3, 8, 9), np.complex64), {}, "complex64"),
  ],
)
def test_other_axes_and_dtypes_are_refused(tmp_path, data, options, words):
  path = tmp_path / "odd.tiff"
  tifffile.imwrite(path, data, photometric="minisblack", **options)
  with pytest.raises(ValueError, match=rf"odd\.tiff: found.*{words}.*expected"):
    read(path, 0)


def test_images_of_different_sizes_are_refused(tmp_path):
  path = tmp_path / "two.tiff"
  with tifffile.TiffWriter(path) as file:
    file.write(np.zeros((8, 9), np.uint8))
    file.write(np.zeros((4, 5), np.uint8))
  with pytest.raises(ValueError, match="found 2 images"):
    read(path, 0)


@pytest.mark.parametrize("data", [b"", b"II", b"II*\0", b"not a TIFF at all"])
def test_other_files_are_refused(tmp_path, data):
  path = tmp_path / "x.tif"
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r"x\.tif: found .* expected"):
    read(path, 0)


def test_ome_planes_that_are_not_there_are_refused(tmp_path):
  path = tmp_path / "a.ome.tif"
  write_array(ome=True, metadata=OME)(path)
  data = path.read_bytes()
  assert data.count(b'SizeC="5"') == 1
  path.write_bytes(data.replace(b'SizeC="5"', b'SizeC="7"'))
  with pytest.raises(ValueError, match="expected"):
    read(path, 6)


def test_names_of_another_count_are_no_names(tmp_path):
  path = tmp_path / "a.tif"
  tifffile.imwrite(
    path, PLANES, imagej=True, metadata={"Labels": ["x", "y", "z"]}
  )
  assert read(path, 0)[1] == []


def test_fluorophores_are_part_of_ome_names(tmp_path):
  path = tmp_path / "a.ome.tif"
  channel = {"Name": ["DNA", "CD3"], "Fluor": ["Ir191", "Er170"]}
  tifffile.imwrite(
    path, PLANES[:2], ome=True, metadata={"axes": "CYX", "Channel": channel}
  )
  assert read(path, 0)[1] == ["DNA_Ir191", "CD3_Er170"]


def make_ome(x, y, unit="\u00b5m"):
  sizes = {"PhysicalSizeX": x, "PhysicalSizeY": y}
  units = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
  return {"ome": True, "metadata": {**OME, **sizes, **units}}


@pytest.mark.parametrize(
  ("options", "size", "num_warnings"),
  [
    ({}, None, 0),
    (make_ome(0.5, 0.5), 0.5, 0),
    (make_ome(500, 500, "nm"), 0.5, 0),
    (make_ome(0.002, 0.002, "mm"), 2.0, 0),
    (make_ome(5e-7, 5e-7, "m"), 0.5, 0),
    (make_ome(5000, 5000, "\u00c5"), 0.5, 0),
    (make_ome(0.5, 0.5, "Micrometre"), 0.5, 0),
    ({"ome": True, "metadata": {**OME, "PhysicalSizeX": 0.5}}, 0.5, 0),
    (make_ome(1.0, 2.0), None, 1),
    (make_ome(300, 300), None, 1),
    (make_ome(1.0, 1.0, "pixel"), None, 0),
    (
      {"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}},
      0.5,
      0,
    ),
    (
      {"imagej": True, "resolution": (1, 1), "metadata": {"unit": "micron"}},
      1.0,
      0,
    ),
    ({"imagej": True, "resolution": (2, 2)}, None, 0),
    ({"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}, 1.0, 0),
    ({"resolution": (25400, 25400), "resolutionunit": "INCH"}, 1.0, 0),
    ({"resolution": (2e3, 2e3), "resolutionunit": "MILLIMETER"}, 0.5, 0),
    ({"resolution": (2, 2), "resolutionunit": "MICROMETER"}, 0.5, 0),
    ({"resolution": (72, 72), "resolutionunit": "INCH"}, None, 0),
    ({"resolution": (1, 1), "resolutionunit": "NONE"}, None, 0),
  ],
)
def test_pixel_size(tmp_path, options, size, num_warnings):
  path = tmp_path / "a.tif"
  tifffile.imwrite(path, PLANES, **options)
  raw = read(path, 0)[0]
  expected = size if size is None else pytest.approx(size, rel=1e-6)
  assert raw.pixel_size_um == expected
  assert len(raw.warnings) == num_warnings


def test_only_asked_pages_are_decoded(tmp_path, monkeypatch):
  path = tmp_path / "a.tif"
  write_array(ome=True, metadata=OME, compression="zlib")(path)
  decoded = []
  asarray = tifffile.TiffPage.asarray
  monkeypatch.setattr(
    tifffile.TiffPage,
    "asarray",
    lambda self, *a, **k: decoded.append(self.index) or asarray(self, *a, **k),
  )
  frame = tifffile.TiffFrame.asarray
  monkeypatch.setattr(
    tifffile.TiffFrame,
    "asarray",
    lambda self, *a, **k: decoded.append(self.index) or frame(self, *a, **k),
  )
  read(path, 4, 2)
  assert sorted(set(decoded)) == [2, 4]


def test_threads_do_not_take_each_others_errors(tmp_path):
  good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
  write_array(ome=True, metadata=OME)(good)
  bad.write_bytes(good.read_bytes()[:5000])
  outcomes = {good: [], bad: []}

  def work(path):
    for _ in range(20):
      try:
        read(path, 0)
        outcomes[path].append("read")
      except ValueError:
        outcomes[path].append("refused")

  threads = [threading.Thread(target=work, args=[path]) for path in outcomes]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert outcomes == {good: ["read"] * 20, bad: ["refused"] * 20}


def test_read_pixels_keeps_the_dtype(tmp_path):
  path = tmp_path / "a.tif"
  write_array(byteorder=">", **GREY)(path)
  pixels = tiff.read_pixels(path)
  assert pixels.dtype == np.uint16
  np.testing.assert_array_equal(pixels, np.moveaxis(PLANES, 0, -1))
  with pytest.raises(ValueError, match="no such file"):
    tiff.read_pixels(tmp_path / "b.tif")


def find_ifds(data):
  """Lists the places of the links between the pages of a little TIFF."""
  places, place = [], 4
  while offset := int.from_bytes(data[place : place + 4], "little"):
    places.append(place)
    place = (
      offset + 2 + 12 * int.from_bytes(data[offset : offset + 2], "little")
    )
  return [*places, place]


@pytest.mark.parametrize("num_pages", [3, 150])
@pytest.mark.parametrize("target", [0, 1, -1])
def test_a_chain_of_pages_without_an_end_is_refused(
  tmp_path, num_pages, target
):
  path = tmp_path / "loop.tif"
  planes = np.zeros((num_pages, 2, 3), np.uint8)
  with tifffile.TiffWriter(path) as file:
    for plane in planes:
      file.write(plane, metadata=None)
  data = bytearray(path.read_bytes())
  links = find_ifds(data)
  assert len(links) == num_pages + 1
  first = links[:-1][target]
  data[links[-1] : links[-1] + 4] = data[first : first + 4]
  path.write_bytes(data)
  with pytest.raises(ValueError, match="leads back to an earlier page"):
    read(path, 0)


@pytest.mark.parametrize("damage", ["its end", "its middle"])
def test_a_broken_description_by_ome_is_told(tmp_path, damage):
  """Else its names and its pixel size were lost without a word."""
  path = tmp_path / "a.ome.tiff"
  write.write_stack(path, np.ones((4, 5, 2), np.float32), ["CD45", "DNA1"])
  data = path.read_bytes()
  part = b"</OME>" if damage == "its end" else b"</Pixels>"
  assert data.count(part) == 1
  path.write_bytes(data.replace(part, part.replace(b">", b"?")))
  with pytest.raises(ValueError, match=r"a\.ome\.tiff: found broken OME-XML"):
    tiff.read_tiff(path, lambda names, count: None, path)


@pytest.mark.filterwarnings("error")
def test_values_beyond_float32_are_infinite_without_a_warning(tmp_path):
  path = tmp_path / "a.tif"
  tifffile.imwrite(path, np.array([[1e300, -1e300, 2.0]]))
  np.testing.assert_array_equal(
    read(path, 0)[0].stack[..., 0], [[np.inf, -np.inf, 2]]
  )


@pytest.mark.filterwarnings("error")
def test_a_file_that_cannot_be_laid_out_is_closed(tmp_path, monkeypatch):
  path = tmp_path / "a.tif"
  write_array(ome=True, metadata=OME)(path)
  opened = []

  def fail(file):
    opened.append(file.filehandle)
    raise IndexError("no page")

  monkeypatch.setattr(ifds, "_spell_description", fail)
  with pytest.raises(ValueError, match="unreadable TIFF"):
    read(path, 0)
  assert [handle.closed for handle in opened] == [True]


def test_a_file_that_is_opened_with_complaints_is_closed(tmp_path, monkeypatch):
  path = tmp_path / "a.tif"
  write_array(ome=True, metadata=OME)(path)
  path.write_bytes(path.read_bytes()[:5000])
  opened = []
  open_tiff = ifds.open_tiff

  def watch(path):
    opened.append(open_tiff(path))
    return opened[-1]

  monkeypatch.setattr(tiff, "open_tiff", watch)
  with pytest.raises(ValueError, match="invalid value offset"):
    read(path, 0)
  assert [file.filehandle.closed for file in opened] == [True]


BLOCK = b'IFD="0" PlaneCount="2"'


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    (b'SizeC="2"', b'SizeC="1"', "found 2 channels in OME-XML, expected SizeC"),
    (BLOCK, b'FirstC="9"', "found FirstC 9 in OME-XML, expected 0 to 1"),
    (BLOCK, b'FirstC="-1"', "found FirstC -1 in OME-XML"),
    (BLOCK, b'IFD="-1"', "found an IFD below 0"),
  ],
)
def test_a_description_of_other_planes_is_told(tmp_path, old, new, message):
  """Else a channel is left out, or channels change places, without a word."""
  path = tmp_path / "a.ome.tiff"
  write.write_stack(path, np.ones((4, 5, 2), np.float32), ["CD45", "DNA1"])
  data = path.read_bytes()
  assert data.count(old) == 1
  path.write_bytes(data.replace(old, new.ljust(len(old))))
  with pytest.raises(ValueError, match=message):
    tiff.read_tiff(path, lambda names, count: None, path)


def test_a_pixel_size_that_is_no_number_is_told(tmp_path):
  path = tmp_path / "a.ome.tiff"
  write.write_stack(path, np.ones((4, 5, 2), np.float32), ["CD45", "DNA1"], 1.0)
  data = path.read_bytes()
  assert b'PhysicalSizeX="1.0"' in data
  path.write_bytes(data.replace(b'SizeX="1.0"', b'SizeX="1,0"'))
  found, *_ = read(path, 0, 1)
  assert found.pixel_size_um is None
  assert "pixel size of '1,0' " in found.warnings[0]
