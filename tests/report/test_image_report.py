import dataclasses
import json
import pathlib

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as pillow

from dicexmbd_jax.report import image_report
from dicexmbd_jax.types import ImageRecord, ImageSource, LoadedImage

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def make_report(stem="ROI001", num_cells=3):
  regions = pd.DataFrame(
    {
      "area": [40.0, 80.0, 120.0],
      "centroid-0": [1.0, 10.0, 30.0],
      "centroid-1": [2.0, 20.0, 90.0],
    }
  )
  counts = {"Object": [1, 2, 3], "CD3": [0.0, 0.1, 1.0], "DNA": [10.0, 20, 30]}
  record = ImageRecord(
    source=ImageSource(stem, pathlib.Path("img/ROI001.tiff")),
    loaded=LoadedImage(
      stack=np.zeros((50, 100, 2), np.float32),
      names=("CD3", "DNA"),
      nuclear=(1,),
      membrane=(0,),
      pixel_size_um=0.5,
      origin={"source_file": "ROI001.tiff"},
    ),
    pixel_size_um=0.5,
    doubt=0.25,
    warnings=("dim",),
    tables={
      "regionprops": regions[:num_cells],
      "intensities": pd.DataFrame(counts)[:num_cells],
    },
  )
  return image_report.summarise_image(
    record,
    pillow.new("RGB", (400, 200), (128, 128, 128)),
    {"read": 0.5, "segment": 1.25},
  )


def test_summarise_image_counts_in_the_images_own_units():
  report = make_report()
  assert report.num_cells == 3
  assert report.size_um == (25.0, 50.0)
  assert report.density_per_mm2 == pytest.approx(3 / 1250e-6)
  assert report.area_um2.median == 20.0  # 80 px of 0.25 um2.
  assert report.area_um2.histogram == (0, 1, 1, 1)
  assert [marker.name for marker in report.markers] == ["CD3", "DNA"]
  assert report.markers[1].median == 20.0
  # log10(1 + 10 * 0.1) = 0.301, log10(1 + 10 * 1) = 1.04.
  assert report.markers[0].histogram == (1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1)
  assert report.pictures["overview"].width_um == 50.0
  assert report.doubt == 0.25
  assert report.warnings == ("dim",)
  assert report.error is None


def test_summarise_image_without_cells_has_no_numbers_and_no_nan():
  report = make_report(num_cells=0)
  assert report.num_cells == 0
  assert report.density_per_mm2 == 0
  assert report.area_um2.median is None
  assert report.markers[0] == image_report.Distribution("CD3", (), ())
  json.dumps(image_report.dump_report(report), allow_nan=False)


def test_describe_areas_gathers_the_large_ones_in_the_last_bin():
  areas = image_report.describe_areas(np.array([0.0, 9.99, 10.0, 500.0, 1e9]))
  assert areas.histogram[:2] == (2, 1)
  assert len(areas.histogram) == image_report.NUM_AREA_BINS
  assert areas.histogram[-1] == 2


@hypothesis.given(hnp.arrays(np.float32, st.integers(0, 20), elements=FLOATS))
def test_distributions_keep_every_finite_value(values):
  num_finite = int(np.isfinite(values).sum())
  for part in (
    image_report.describe_areas(values),
    image_report.describe_intensities("x", values),
  ):
    assert sum(part.histogram) == num_finite
    assert len(part.quantiles) == (5 if num_finite else 0)
    assert list(part.quantiles) == sorted(part.quantiles)
    json.dumps(dataclasses.asdict(part), allow_nan=False)


def test_pool_distributions_equals_the_distribution_of_all():
  rng = np.random.default_rng(1)
  parts = [rng.gamma(2, scale, 50) for scale in (0.1, 3, 40)]
  pooled = image_report.pool_distributions(
    [image_report.describe_intensities("CD3", part) for part in parts]
  )
  whole = image_report.describe_intensities("CD3", np.concatenate(parts))
  assert pooled.histogram == whole.histogram
  assert pooled.name == "CD3"


def test_report_survives_the_way_to_disk():
  odd = 'a "b" <c> \u202e \udcff 日本'
  for report in (
    make_report(odd),
    image_report.ImageReport(
      odd, "img/x.tiff", error="x.tiff: found 1, expected 2"
    ),
  ):
    text = json.dumps(image_report.dump_report(report))
    assert text.isascii()
    assert image_report.parse_report(json.loads(text)) == report


def test_parse_report_compact_keeps_the_small_picture_only():
  data = json.loads(json.dumps(image_report.dump_report(make_report())))
  assert set(image_report.parse_report(data, True).pictures) == {"small"}
  assert set(image_report.parse_report(data).pictures) == {"small", "overview"}


@pytest.mark.parametrize(
  ("text", "match"),
  [
    ("[]", "schema None, expected 3"),
    ('{"schema": 1}', "schema 1, expected 3"),
    ('{"schema": 3, "stem": "a"}', "damaged"),
  ],
)
def test_parse_report_refuses_other_text(text, match):
  with pytest.raises(ValueError, match=match):
    image_report.parse_report(json.loads(text))


def test_density_is_unknown_without_pixels_or_size():
  report = image_report.ImageReport("a", "a.tiff", num_cells=0)
  assert report.density_per_mm2 is None
  empty = dataclasses.replace(report, shape=(0, 5), pixel_size_um=1.0)
  assert empty.density_per_mm2 is None
