"""Strokes as napari, GIMP, ImageJ, QuPath and Zarr's writers save them."""

import json
import zipfile

import numpy as np
import PIL.Image
import pytest
import roifile
import tifffile

from dicexmbd_jax.io.drawings import list_drawings
from dicexmbd_jax.teach import drawings

SHAPE = (20, 30)
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def make_strokes():
  strokes = np.zeros(SHAPE, np.uint8)
  strokes[3, 4:9] = 1
  strokes[8:12, 20] = 2
  strokes[15, 2:5] = 3
  return strokes


def read(path):
  return drawings.read_strokes(path, SHAPE)


def check(path):
  found = read(path)
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, make_strokes())


def refuse(path):
  with pytest.raises(ValueError) as error:
    read(path)
  line = str(error.value)
  assert line.startswith(f"{path}: found")
  assert "expected" in line
  assert "\n" not in line
  return line


# napari.


@pytest.mark.parametrize("kind", ["agree", "one", "shared"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_napari_paints_on_a_stack(tmp_path, kind, dtype):
  """In all planes, in one, or each class in another."""
  strokes = make_strokes()
  planes = np.zeros((25, *SHAPE), dtype)
  if kind == "agree":
    planes[:] = strokes
  elif kind == "one":
    planes[7] = strokes
  else:
    for k in (1, 2, 3):
      planes[5 * k] = strokes * (strokes == k)
  tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack")
  check(tmp_path / "a.tif")


@pytest.mark.parametrize("num_planes", [3, 4])
def test_three_planes_are_no_colours(tmp_path, num_planes):
  planes = np.stack([make_strokes()] * num_planes)
  tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack")
  check(tmp_path / "a.tif")


def test_planes_that_contradict_one_another(tmp_path):
  planes = np.stack([make_strokes()] * 5)
  planes[2, 3, 4] = 2
  tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack")
  line = refuse(tmp_path / "a.tif")
  assert "two classes in 1 pixels of its 5 planes" in line
  assert "in napari" in line


def test_a_cell_mask_is_no_drawing(tmp_path):
  tifffile.imwrite(tmp_path / "a.tif", np.arange(600).reshape(SHAPE))
  assert "found the label 599" in refuse(tmp_path / "a.tif")


# GIMP.


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "white", "TIFF", "P", "LA"])
def test_gimp_paints_in_colours(tmp_path, mode):
  strokes = make_strokes()
  rgb = COLOURS[strokes]
  path = tmp_path / "a.png"
  if mode == "TIFF":
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb")
  elif mode == "white":
    rgb[strokes == 0] = 255
    PIL.Image.fromarray(rgb).save(path)
  elif mode == "RGBA":
    alpha = np.where(strokes, 255, 0).astype(np.uint8)
    rgb[strokes == 0] = 77  # What lies below is of no account.
    PIL.Image.fromarray(np.dstack([rgb, alpha])).save(path)
  elif mode == "LA":
    alpha = np.where(strokes, 255, 0).astype(np.uint8)
    PIL.Image.fromarray(np.dstack([strokes, alpha])).save(path)
  else:
    PIL.Image.fromarray(rgb).convert(mode).save(path)
  check(path)


@pytest.mark.parametrize("has_colours", [True, False])
def test_palettes_by_colour_or_else_by_number(tmp_path, has_colours):
  picture = PIL.Image.fromarray(make_strokes()).convert("P")
  order = [0, 1, 2, 3]
  colours = COLOURS[order] if has_colours else COLOURS[order] // 2 + 60
  picture.putpalette(colours.astype(np.uint8).tobytes())
  picture.save(tmp_path / "a.png")
  check(tmp_path / "a.png")


def test_colours_of_ones_own(tmp_path):
  rgb = COLOURS[make_strokes()]
  rgb[make_strokes() == 2] = (200, 30, 220)
  PIL.Image.fromarray(rgb).save(tmp_path / "a.png")
  line = refuse(tmp_path / "a.png")
  assert "1 other colours, as #c81edc, in 4 pixels" in line
  assert "in GIMP" in line
  legend = "name,colour,class\n,#c81edc,2\n"
  (tmp_path / "classes.csv").write_text(legend)
  check(tmp_path / "a.png")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("name,class\na,1\n", "found columns name, class, expected name, colour"),
    ("name,colour,class\na,,7\n", "found class 7, expected 1, 2 or 3"),
    ("name,colour,class\na,red,1\n", "found the colour 'red'"),
  ],
)
def test_wrong_legends(tmp_path, text, message):
  (tmp_path / "classes.csv").write_text(text)
  with pytest.raises(ValueError, match=message):
    drawings.read_legend(tmp_path)


# ImageJ.


def make_roi(points, kind, **fields):
  roi = roifile.ImagejRoi.frompoints(np.array(points, float)[:, ::-1])
  roi.roitype = kind
  for name, value in fields.items():
    setattr(roi, name, value)
  return roi


def write_rois(path, *rois):
  with zipfile.ZipFile(path, "w") as archive:
    for k, roi in enumerate(rois):
      archive.writestr(f"{k}.roi", roi.tobytes())


def test_imagej_saves_rois(tmp_path):
  kinds = roifile.ROI_TYPE
  write_rois(
    tmp_path / "a.zip",
    make_roi([(3, 4), (3, 8)], kinds.FREELINE, name="nucleus-1"),
    make_roi([(8, 20), (8, 21), (12, 21), (12, 20)], kinds.POLYGON, group=2),
    make_roi(
      [(15, 2), (15, 3), (15, 4)],
      kinds.POINT,
      name="0015-0002",
      stroke_color=b"\xff\x00\x00\xff",
    ),
  )
  check(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["RECT", "OVAL", "LINE"])
def test_imagej_shapes_without_points(tmp_path, kind):
  roi = roifile.ImagejRoi(
    roitype=roifile.ROI_TYPE[kind], left=4, top=3, right=10, bottom=9
  )
  roi.x1, roi.y1, roi.x2, roi.y2, roi.name = 4, 3, 9, 8, "bg"
  roi.tofile(tmp_path / "a.roi")
  found = read(tmp_path / "a.roi")
  expected = {"RECT": 36, "OVAL": 32, "LINE": 6}[kind]
  assert abs((found == 3).sum() - expected) <= (4 if kind == "OVAL" else 0)
  assert not found[:3].any()
  assert not found[9:].any()


def test_rois_without_a_class(tmp_path):
  roi = make_roi([(3, 4), (3, 8)], roifile.ROI_TYPE.FREELINE, name="0003-4")
  write_rois(tmp_path / "a.zip", roi)
  line = refuse(tmp_path / "a.zip")
  assert "(0003-4)" in line
  assert "in ImageJ, its name, its group" in line
  legend = "name,colour,class\n0003-4,,1\n"
  (tmp_path / "classes.csv").write_text(legend)
  assert (read(tmp_path / "a.zip") == 1).sum() == 5


@pytest.mark.parametrize("name", ["a.roi", "a.zip"])
def test_broken_rois(tmp_path, name):
  path = tmp_path / name
  if name == "a.zip":
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("1.roi", b"Iout\0\0")
  else:
    path.write_bytes(b"nothing")
  assert "ImageJ's ROI Manager" in refuse(path)


# QuPath.


def make_feature(kind, coordinates, label="Nucleus", **properties):
  classification = {"name": label, "color": [1, 2, 3]} if label else None
  return {
    "type": "Feature",
    "geometry": {"type": kind, "coordinates": coordinates},
    "properties": {"classification": classification, **properties},
  }


FEATURES = [
  make_feature("LineString", [[4.5, 3.2], [8.5, 3.9]]),
  make_feature(
    "Polygon", [[[20, 8], [21, 8], [21, 12], [20, 12], [20, 8]]], "Cytoplasm"
  ),
  make_feature(
    "MultiPoint", [[2.5, 15.5], [3, 15], [4.9, 15.9]], None, name="Background"
  ),
]


@pytest.mark.parametrize("wrapping", ["collection", "list"])
def test_qupath_saves_geojson(tmp_path, wrapping):
  data = FEATURES
  if wrapping == "collection":
    data = {"type": "FeatureCollection", "features": FEATURES}
  (tmp_path / "a.geojson").write_text(json.dumps(data))
  check(tmp_path / "a.geojson")


def test_holes_stay_empty(tmp_path):
  outer = [[2, 2], [12, 2], [12, 12], [2, 12], [2, 2]]
  inner = [[4, 4], [8, 4], [8, 8], [4, 8], [4, 4]]
  one = make_feature("MultiPolygon", [[outer, inner]])
  (tmp_path / "a.geojson").write_text(json.dumps(one))
  found = read(tmp_path / "a.geojson")
  assert (found == 1).sum() == 100 - 16
  assert not found[4:8, 4:8].any()


@pytest.mark.parametrize(
  ("data", "message"),
  [
    ({"a": 1}, "found no GeoJSON of shapes (KeyError 'geometry')"),
    ([make_feature("Circle", [])], "of type Circle"),
    ([make_feature("Point", [1e9, 1])], "points that are missing or not"),
    ([make_feature("Point", [3, 3], "Tumor")], "of no class (Tumor)"),
    ([make_feature("Point", [300, 3])], "outside of the image's (20, 30)"),
    ([7], "found no GeoJSON"),
  ],
)
def test_other_geojson_is_refused(tmp_path, data, message):
  (tmp_path / "a.geojson").write_text(json.dumps(data))
  line = refuse(tmp_path / "a.geojson")
  assert message in line
  assert "QuPath" in line or "of this name" in line


# Zarr.


@pytest.mark.parametrize("name", ["", "labels/strokes/0", "0"])
def test_zarr_labels(tmp_path, name):
  zarr = pytest.importorskip("zarr")
  path = tmp_path / "a.zarr"
  strokes = make_strokes()[None, None]
  if name:
    group = zarr.open_group(path, mode="w")
    array = group.create_array(name, shape=strokes.shape, dtype="u1")
    array[...] = strokes
  else:
    zarr.save_array(path, strokes)
  check(path)


def test_zarr_of_many_things(tmp_path):
  zarr = pytest.importorskip("zarr")
  group = zarr.open_group(tmp_path / "a.zarr", mode="w")
  for name in ("b", "c"):
    group.create_array(name, shape=SHAPE, dtype="u1")
  assert "members b, c" in refuse(tmp_path / "a.zarr")


# Folders.


def test_a_folder_of_all_kinds(tmp_path):
  strokes = make_strokes()
  tifffile.imwrite(tmp_path / "a.tiff", strokes)
  PIL.Image.fromarray(COLOURS[strokes]).save(tmp_path / "b.png")
  roi = make_roi([(3, 4), (3, 8)], roifile.ROI_TYPE.FREELINE, name="nucleus")
  write_rois(tmp_path / "c.zip", roi)
  (tmp_path / "d.geojson").write_text(json.dumps(FEATURES))
  (tmp_path / "e.zarr").mkdir()
  (tmp_path / "f.xcf").write_bytes(b"gimp xcf")
  (tmp_path / "classes.csv").write_text(drawings.LEGEND_TEXT)
  found, failures = list_drawings(tmp_path)
  assert [one.stem for one in found] == list("abcde")
  [(path, line)] = failures
  assert path.name == "f.xcf"
  assert "File > Export As" in line


def test_two_drawings_of_a_name_are_failures(tmp_path):
  tifffile.imwrite(tmp_path / "a.tiff", make_strokes())
  PIL.Image.fromarray(make_strokes()).save(tmp_path / "a.png")
  found, failures = list_drawings(tmp_path)
  assert not found
  assert len(failures) == 2


def test_a_folder_of_rois_alone(tmp_path):
  roi = make_roi([(3, 4), (3, 8)], roifile.ROI_TYPE.FREELINE, name="nucleus")
  write_rois(tmp_path / "c.zip", roi)
  found, failures = list_drawings(tmp_path)
  assert [one.stem for one in found] == ["c"]
  assert not failures
