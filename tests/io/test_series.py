"""Optical pages, thumbnails, and markers on other axes than channels."""

import json

import numpy as np
import pytest
import tifffile
from ome_files import write_pages, write_xml

from dicexmbd_jax.io import images, tiff
from dicexmbd_jax.types import ImageSource, Panel, PanelRow

PLANES = np.random.default_rng(2).poisson(4, (3, 40, 60)).astype(np.uint16)
OPTICAL = np.full((90, 80, 3), 200, np.uint8)
SMALL = np.full((10, 15), 7, np.uint16)
GREY = {"photometric": "minisblack", "metadata": None}


def read(path, panel=None):
  source = ImageSource("a", path)
  if panel is not None:
    loaded = images.read_image(source, panel)
  else:
    loaded = images.read_every_channel(source)
  return np.moveaxis(loaded.stack, -1, 0), loaded


def write_all(path, *pages, **options):
  with tifffile.TiffWriter(path, **options) as file:
    for pixels, page_options in pages:
      file.write(pixels, **page_options)


def make_pages(planes, **options):
  return [(plane, {**GREY, **options}) for plane in planes]


def make_mibi(*kinds):
  """Pages as MIBI's instruments write them: a kind in JSON, a name each."""
  pages = []
  for kind, pixels in kinds:
    text = json.dumps({"image.type": kind, "mibi.version": "1"})
    tag = (285, "s", 0, f"{kind}{len(pages)}", True)
    grey = "rgb" if pixels.ndim == 3 else "minisblack"
    options = {"photometric": grey, "metadata": None, "description": text}
    pages.append((pixels, {**options, "extratags": [tag]}))
  return pages


RGB = {"photometric": "rgb", "metadata": None}
FILES = {
  "optical page behind": [*make_pages(PLANES), (OPTICAL, RGB)],
  "optical page in front": [(OPTICAL, RGB), *make_pages(PLANES)],
  "optical page of the same size": [
    *make_pages(PLANES), (np.zeros((40, 60, 3), np.uint8), RGB)
  ],
  "thumbnail": [*make_pages(PLANES), *make_pages([SMALL])],
  "larger single plane": [
    *make_pages(PLANES), *make_pages([np.ones((100, 70), np.uint16)])
  ],
  "reduced copies": [
    *make_pages(PLANES),
    *make_pages(PLANES[:, ::2, ::2], subfiletype=1),
  ],
  "copies not marked as reduced": [
    *make_pages(PLANES), *make_pages(PLANES[:, ::2, ::2])
  ],
  "MIBI": make_mibi(
    *[("SIMS", plane) for plane in PLANES],
    ("Optical", OPTICAL),
    ("SED", np.zeros((40, 60), np.uint8)),
    ("Label", np.zeros((30, 30), np.uint8)),
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_channel_is_passed_over_with_a_warning(tmp_path, name):
  path = tmp_path / "a.tif"
  write_all(path, *FILES[name])
  stack, loaded = read(path)
  np.testing.assert_array_equal(stack, PLANES)
  if "copies" not in name:  # Levels of one image.
    (line,) = loaded.warnings
    assert line.startswith("passed over beside the channels: ")
  if name == "MIBI":
    assert loaded.names == ("SIMS0", "SIMS1", "SIMS2")


def test_one_channel_beside_an_optical_page(tmp_path):
  path = tmp_path / "a.tif"
  write_all(path, *make_pages(PLANES[:1]), (OPTICAL, RGB))
  np.testing.assert_array_equal(read(path)[0], PLANES[:1])


@pytest.mark.parametrize("is_first", [True, False])
def test_a_thumbnail_in_an_ome_tiff(tmp_path, is_first):
  """Names and pixel size are those of the image that is read."""
  path = tmp_path / "a.ome.tif"
  main = (
    PLANES,
    {
      "photometric": "minisblack",
      "metadata": {
        "axes": "CYX",
        "Channel": {"Name": ["DNA", "CD45", "CD3"]},
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5,
      },
    },
  )
  thumbnail = (
    OPTICAL[:20, :30],
    {"photometric": "rgb", "metadata": {"axes": "YXS", "PhysicalSizeX": 9}},
  )
  pages = [thumbnail, main] if is_first else [main, thumbnail]
  write_all(path, *pages, ome=True)
  stack, loaded = read(path)
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.names == ("DNA", "CD45", "CD3")
  assert loaded.pixel_size_um == 0.5
  assert loaded.warnings == (
    "passed over beside the channels: YXS (20, 30, 3)",
  )


@pytest.mark.parametrize(
  "pages",
  [
    [*make_pages(PLANES), *make_pages(PLANES[:2].astype(np.uint8))],
    [*make_pages(PLANES), *make_pages(np.ones((2, 30, 50), np.uint16))],
    [*make_pages(PLANES[:1]), *make_pages(np.ones((1, 30, 50), np.uint16))],
  ],
)
def test_several_images_are_refused(tmp_path, pages):
  path = tmp_path / "a.tif"
  write_all(path, *pages)
  with pytest.raises(ValueError, match=r"a\.tif: found 2 images .*expected"):
    read(path)


def test_masks_are_read_from_files_of_one_image_only(tmp_path):
  path = tmp_path / "a.tif"
  write_all(path, *make_pages(PLANES), (OPTICAL, RGB))
  with pytest.raises(ValueError, match="found several images"):
    tiff.read_pixels(path)


def make_panel(num_rows):
  rows = [
    PanelRow(None, f"M{k}", True, k == 0, k == 1) for k in range(num_rows)
  ]
  return Panel("panel.csv", tuple(rows))


@pytest.mark.parametrize("axis", ["Z", "T"])
@pytest.mark.parametrize("num_files", [1, 3])
def test_markers_on_other_axes(tmp_path, axis, num_files):
  """Only for a panel of as many rows, and never without a word."""
  names = [f"f{k}.ome.tif" for k in range(num_files)]
  blocks = [
    (names[k % num_files], f"u{k % num_files}", k // num_files, {axis: k})
    for k in range(3)
  ]
  for k, name in enumerate(names):
    xml = write_xml([blocks], {axis: 3}, f"u{k}", size_px=(40, 60))
    write_pages(tmp_path / name, PLANES[k::num_files], xml)
  path = tmp_path / names[0]
  stack, loaded = read(path, make_panel(3))
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.names == ("M0", "M1", "M2")
  (line,) = loaded.warnings
  assert "slices or times are taken for the panel's channels" in line
  with pytest.raises(ValueError, match=r"found 3 channel\(s\) without names"):
    read(path, make_panel(2))
  for refuse in (read, tiff.read_pixels):
    with pytest.raises(ValueError, match=r"f0\.ome\.tif: found axes \w*YX of"):
      refuse(path)


NAMED = {"axes": "CYX", "Channel": {"Name": ["X", "CD3", "CD8"]}}
SIZED = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
OWN = {"photometric": "minisblack", "metadata": {**NAMED, **SIZED}}
COLOURS = np.zeros((40, 60, 3), np.uint8)
OTHER_OME = {
  "photometric": "rgb",
  "metadata": {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25},
}
OTHER = {"photometric": "rgb"}


@pytest.mark.parametrize("is_ome", [False, True])
@pytest.mark.parametrize("is_in_front", [False, True])
def test_names_and_size_are_those_of_the_image_that_is_read(
  tmp_path, is_ome, is_in_front
):
  path = tmp_path / "a.tif"
  optical = COLOURS, OTHER_OME if is_ome else OTHER
  pages = [optical, (PLANES, OWN)] if is_in_front else [(PLANES, OWN), optical]
  write_all(path, *pages, ome=is_ome)
  stack, loaded = read(path)
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.names == ("X", "CD3", "CD8")
  assert loaded.pixel_size_um == (0.5 if is_ome else None)


@pytest.mark.parametrize("is_in_front", [False, True])
def test_resolution_tags_are_those_of_the_image_that_is_read(
  tmp_path, is_in_front
):
  def tag(um):
    return {"resolution": (1e4 / um, 1e4 / um), "resolutionunit": 3}

  path = tmp_path / "a.tif"
  optical = [(COLOURS, {**RGB, **tag(0.25)})]
  ions = make_pages(PLANES, **tag(1.0))
  write_all(path, *(optical + ions if is_in_front else ions + optical))
  assert read(path)[1].pixel_size_um == 1.0


def test_notes_are_those_of_the_first_of_many_planes(tmp_path):
  path = tmp_path / "a.tif"
  write_all(path, *[(p, {"photometric": "minisblack"}) for p in PLANES])
  assert tiff.read_notes(path) == {"shape": [40, 60]}


def test_two_slices_are_no_nuclei_and_membranes(tmp_path):
  path = tmp_path / "a.ome.tif"
  tifffile.imwrite(path, PLANES[:2], ome=True, metadata={"axes": "ZYX"})
  with pytest.raises(ValueError, match=r"found axes ZYX of \(2, 40, 60\)"):
    images.read_image(ImageSource("a", path), None)


def test_channels_and_slices_are_refused(tmp_path):
  path = tmp_path / "a.ome.tif"
  pixels = np.zeros((3, 2, 8, 9), np.uint8)
  tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "ZCYX"})
  with pytest.raises(ValueError, match="found axes ZCYX"):
    read(path, make_panel(6))


WRONG = [b"\xb5", b"\xe9", b"\x81", b"\xff"]  # The third is no cp1252 either.


@pytest.mark.parametrize("byte", WRONG)
@pytest.mark.parametrize("kind", ["ome", "json", "pages"])
def test_a_label_that_is_no_utf8_costs_no_names(tmp_path, kind, byte):
  path = tmp_path / "a.tif"
  names = ["X#1", "CD3", "CD8"]
  metadata = {"axes": "CYX", "Channel": {"Name": names}}
  if kind == "pages":
    tags = [[(285, "s", 0, name, True)] for name in names]
    pages = make_pages(PLANES)
    write_all(path, *[
      (page, {**options, "extratags": tag})
      for (page, options), tag in zip(pages, tags, strict=True)
    ])  # fmt: skip
  else:
    options = {"photometric": "minisblack", "metadata": metadata}
    write_all(path, (PLANES, options), ome=kind == "ome")
  data = path.read_bytes()
  assert data.count(b"X#1") == 1
  path.write_bytes(data.replace(b"X#1", b"X" + byte + b"1"))
  stack, loaded = read(path)
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.names == (f"X{byte.decode('latin-1')}1", "CD3", "CD8")


def test_broken_labels_of_imagej_are_told(tmp_path):
  path = tmp_path / "a.tif"
  labels = {"Labels": ["Xb1", "CD3", "CD8"]}
  tifffile.imwrite(path, PLANES, imagej=True, metadata=labels)
  data = path.read_bytes()
  for order, wrong in (("be", b"\xdc\xb5"), ("le", b"\xb5\xdc")):
    old = "Xb1".encode(f"utf-16-{order}")
    data = data.replace(old, old[:2] + wrong + old[4:])
  path.write_bytes(data)
  stack, loaded = read(path)
  np.testing.assert_array_equal(stack, PLANES)
  assert loaded.warnings == (
    "labels of ImageJ's slices are broken; channels go by their places",
  )
