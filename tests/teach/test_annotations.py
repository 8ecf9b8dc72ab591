import numpy as np
import pandas as pd
import pytest
import tifffile

from dicexmbd_jax.io import write
from dicexmbd_jax.teach import annotations, drawings


def test_strokes_come_back_as_uint8(tmp_path):
  strokes = np.array([[0, 1], [2, 3]], np.uint8)
  path = tmp_path / "a.tiff"
  write.write_strokes(path, strokes, 1.0)
  assert tifffile.imread(path).dtype == np.uint8
  found = drawings.read_strokes(path, strokes.shape)
  np.testing.assert_array_equal(found, strokes)


@pytest.mark.parametrize(
  "strokes", [np.zeros((2, 2), np.int32), np.zeros((2, 2, 1), np.uint8)]
)
def test_only_uint8_planes_are_written(tmp_path, strokes):
  with pytest.raises(ValueError, match="expected uint8"):
    write.write_strokes(tmp_path / "a.tiff", strokes)


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    (np.array([[0, 65535]], np.uint16), [[0, 1]]),
    (np.array([[0, 51]], np.uint8), [[0, 0.2]]),
    (np.array([[0.25, 1]], np.float32), [[0.25, 1]]),
  ],
)
def test_uncertainty_is_a_share(tmp_path, values, expected):
  tifffile.imwrite(tmp_path / "a.tiff", values)
  found = annotations.read_uncertainty(tmp_path / "a.tiff")
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize(
  "values",
  [
    np.array([[0, 1.5]], np.float32),
    np.array([[0, np.nan]], np.float32),
    np.zeros((3, 8, 8), np.float32),
  ],
)
def test_what_is_no_uncertainty_is_refused(tmp_path, values):
  tifffile.imwrite(tmp_path / "a.tiff", values, photometric="minisblack")
  with pytest.raises(ValueError, match="expected one plane"):
    annotations.read_uncertainty(tmp_path / "a.tiff")


def test_history_comes_back_in_its_order(tmp_path):
  path = tmp_path / "history.csv"
  assert annotations.read_history(path) == []
  history = [{"02": 0.25, "01": 0.5}, {"02": 0.125}]
  annotations.write_history(path, history)
  assert annotations.read_history(path) == history
  assert list(pd.read_csv(path)["round"]) == [1, 1, 2]


def test_regions_come_back_by_image(tmp_path):
  path = tmp_path / "regions.csv"
  rows = {"image": ["a", "a"], "y_px": [0, 5], "x_px": [1, 6]}
  sizes = {"height_px": [2, 2], "width_px": [3, 3]}
  pd.DataFrame(rows | sizes).to_csv(path, index=False)
  assert annotations.read_regions(path) == {
    "a": [(slice(0, 2), slice(1, 4)), (slice(5, 7), slice(6, 9))]
  }


@pytest.mark.parametrize("read", ["read_history", "read_regions"])
def test_tables_without_their_columns_are_refused(tmp_path, read):
  path = tmp_path / "table.csv"
  path.write_text("image,other\na,1\n")
  with pytest.raises(ValueError, match="found no column"):
    getattr(annotations, read)(path)


def test_regions_outside_of_reason_are_refused(tmp_path):
  path = tmp_path / "regions.csv"
  path.write_text("image,y_px,x_px,height_px,width_px\na,-3,0,4,4\n")
  with pytest.raises(ValueError, match="expected 0 to 2147483648 px"):
    annotations.read_regions(path)
