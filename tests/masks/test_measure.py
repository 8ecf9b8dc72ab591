import time

import hypothesis
import numpy as np
import pandas as pd
import pytest
import skimage.measure
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dicexmbd_jax.io import tiff
from dicexmbd_jax.io.labels import read_labels
from dicexmbd_jax.masks import measure

CELLS = np.array(
  [
    [1, 1, 0, 0, 0],
    [1, 1, 0, 7, 0],
    [0, 0, 0, 0, 0],
    [3, 3, 3, 0, 0],
  ],
  np.int32,
)
masks = hnp.arrays(
  np.int32,
  hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
  elements=st.sampled_from([0, 0, 0, 1, 2, 5, 9]),
)


def test_intensities_are_means_of_raw_counts():
  stack = np.stack([np.arange(20.0).reshape(4, 5), np.ones((4, 5))], axis=-1)
  table = measure.measure_intensities(
    stack.astype(np.float32), CELLS, ["A", "B"]
  )
  expected = {
    "Object": [1, 3, 7],
    "A": [3.0, 16.0, 8.0],
    "B": [1.0, 1.0, 1.0],
  }
  pd.testing.assert_frame_equal(table, pd.DataFrame(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">u2"])
@pytest.mark.parametrize("num_channels", range(1, 6))
def test_intensities_are_sums_in_raster_order(num_channels, dtype):
  rng = np.random.default_rng(num_channels)
  cells = rng.integers(0, 9, (30, 40), np.int32)
  stack = rng.gamma(0.5, 99, (30, 40, num_channels)).astype(dtype)
  names = [f"marker {k}" for k in range(num_channels)]
  areas = np.bincount(cells.ravel())
  for laid in (stack, np.moveaxis(np.moveaxis(stack, -1, 0).copy(), 0, -1)):
    table = measure.measure_intensities(laid, cells, names)
    for k, name in enumerate(names):
      sums = np.bincount(cells.ravel(), stack[..., k].ravel())
      np.testing.assert_array_equal(table[name], (sums / areas)[1:])


def test_regions_of_tiny_cells():
  table = measure.measure_regions(CELLS)
  assert list(table["Object"]) == [1, 3, 7]
  assert list(table["area"]) == [4, 3, 1]
  assert list(table["centroid-0"]) == [0.5, 3.0, 1.0]
  assert list(table["centroid-1"]) == [0.5, 1.0, 3.0]
  long = 4 * np.sqrt(2 / 3)
  np.testing.assert_allclose(table["axis_major_length"], [2, long, 0])
  np.testing.assert_allclose(table["axis_minor_length"], [2, 0, 0])
  np.testing.assert_allclose(table["eccentricity"], [0, 1, 0])


def test_neighbors_touch_once_grown():
  pairs = {
    0.0: [],
    1.0: [(1, 3), (1, 7), (3, 1), (3, 7), (7, 1), (7, 3)],
  }
  for distance_px, expected in pairs.items():
    table = measure.measure_neighbors(CELLS, distance_px)
    found = list(zip(table["Object"], table["Neighbor"], strict=True))
    assert found == expected
  assert table["Distance"].isna().all()


def test_neighbors_share_an_edge_not_a_corner():
  cells = np.array([[1, 0], [0, 2]], np.int32)
  assert len(measure.measure_neighbors(cells, 0.0)) == 0
  touching = np.array([[1, 2]], np.int32)
  assert len(measure.measure_neighbors(touching, 0.0)) == 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (1, 9)])
def test_empty_masks_give_empty_tables_of_the_same_columns(shape):
  empty = np.zeros(shape, np.int32)
  full = np.arange(1, empty.size + 1, dtype=np.int32).reshape(shape)
  stack = np.zeros((*shape, 2), np.float32)
  for function in (
    lambda cells: measure.measure_intensities(stack, cells, ["A", "B"]),
    measure.measure_regions,
    measure.measure_neighbors,
  ):
    table = function(empty)
    assert len(table) == 0
    pd.testing.assert_series_equal(table.dtypes, function(full).dtypes)


@pytest.mark.parametrize(
  ("shape", "names"),
  [
    ((4, 5, 2), ["A"]),
    ((5, 4, 1), ["A"]),
    ((4, 5, 2), ["A", "A"]),
    ((4, 5, 1), ["Object"]),
  ],
)
def test_intensities_refuse_what_does_not_fit(shape, names):
  with pytest.raises(ValueError, match="expected"):
    measure.measure_intensities(np.zeros(shape, np.float32), CELLS, names)


@hypothesis.settings(deadline=None)
@hypothesis.given(masks)
def test_regions_equal_scikit_image(cells):
  table = measure.measure_regions(cells)
  expected = skimage.measure.regionprops_table(
    cells, properties=("label", *measure.REGION_COLUMNS[:1], "centroid")
  )
  np.testing.assert_array_equal(table["Object"], expected["label"])
  np.testing.assert_array_equal(table["area"], expected["area"])
  for axis in ("centroid-0", "centroid-1"):
    np.testing.assert_allclose(table[axis], expected[axis], atol=1e-12)
  shapes = skimage.measure.regionprops(cells)
  for row, region in zip(table.itertuples(), shapes, strict=True):
    assert row.axis_major_length == pytest.approx(region.axis_major_length)
    # A root: round-off of 1e-16 in a line's moments comes out as 1e-8.
    assert row.axis_minor_length == pytest.approx(
      region.axis_minor_length, abs=1e-6
    )
    assert row.eccentricity == pytest.approx(region.eccentricity, abs=1e-6)


@hypothesis.settings(deadline=None)
@hypothesis.given(masks, st.floats(0, 5))
def test_neighbors_are_mutual_sorted_and_grow_with_distance(cells, distance):
  table = measure.measure_neighbors(cells, distance)
  pairs = list(zip(table["Object"], table["Neighbor"], strict=True))
  assert pairs == sorted(set(pairs))
  assert set(pairs) == {(other, one) for one, other in pairs}
  assert all(one != other for one, other in pairs)
  assert {one for pair in pairs for one in pair} <= set(np.unique(cells)) - {0}


@hypothesis.settings(deadline=None)
@hypothesis.given(masks)
def test_ids_only_rename(cells):
  stack = np.random.default_rng(0).random((*cells.shape, 2), np.float32)
  renamed = np.where(cells > 0, cells * 1000 + 5, 0).astype(np.int32)
  for function in (
    lambda labels: measure.measure_intensities(stack, labels, ["A", "B"]),
    measure.measure_regions,
    measure.measure_neighbors,
  ):
    table, other = function(cells), function(renamed)
    for name in {"Object", "Neighbor"} & set(table):
      table[name] = table[name] * 1000 + 5
    pd.testing.assert_frame_equal(table, other)


def test_arguments_are_not_changed():
  cells, stack = CELLS.copy(), np.ones((4, 5, 1), np.float32)
  for array in (cells, stack):
    array.setflags(write=False)
  measure.measure_intensities(stack, cells, ["A"])
  measure.measure_regions(cells)
  measure.measure_neighbors(cells)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["ilastik", "deepcell"])
def test_tables_equal_steinbocks(real_data, kind):
  folder = real_data / "imc_testdata"
  names = list(pd.read_csv(folder / "panel.csv")["name"])
  paths = sorted((folder / f"masks_{kind}").glob("*.tiff"))
  assert len(paths) == 15
  for path in paths:
    cells = read_labels(path)
    stack = tiff.read_pixels(folder / "img" / path.name)
    tables = {
      "intensities": measure.measure_intensities(stack, cells, names),
      "regionprops": measure.measure_regions(cells),
      "neighbors": measure.measure_neighbors(cells),
    }
    for name, table in tables.items():
      expected = folder / f"{name}_{kind}" / f"{path.stem}.csv"
      if name != "intensities" and kind == "deepcell":
        continue  # Measured by ilastik's masks only.
      pd.testing.assert_frame_equal(
        table,
        pd.read_csv(expected),
        check_dtype=False,
        rtol=1e-12,
        atol=1e-12,
      )


@pytest.mark.real
def test_five_thousand_cells_are_measured_in_a_second_each(real_data):
  cells = read_labels(real_data / "spleen_imc" / "masks" / "ROI010.tiff")
  cells = np.concatenate([cells, np.where(cells, cells + cells.max(), 0)])
  cells = np.ascontiguousarray(cells, np.int32)
  assert len(np.unique(cells)) > 5000
  stack = np.ones((*cells.shape, 36), np.float32)
  names = [str(channel) for channel in range(36)]
  for function in (
    lambda: measure.measure_intensities(stack, cells, names),
    lambda: measure.measure_regions(cells),
    lambda: measure.measure_neighbors(cells),
  ):
    started = time.process_time()
    function()
    assert time.process_time() - started < 1


@pytest.mark.parametrize("seed", range(5))
def test_files_and_strips_do_not_matter(seed, cut_finely):
  rng = np.random.default_rng(seed)
  cells = rng.integers(1, 99, (60, 70), np.int32)
  cells[rng.random(cells.shape) < (0.97, 0.9, 0.5)[seed % 3]] = 0
  stack = rng.gamma(0.5, 9, (60, 70, 2)).astype(np.float32)

  def measure_all():
    return [
      measure.measure_intensities(stack, cells, ["A", "B"]),
      measure.measure_regions(cells),
      measure.measure_neighbors(cells),
      measure.measure_neighbors(cells, 7.3),
    ]

  whole = measure_all()
  with cut_finely():
    for cut, table in zip(measure_all(), whole, strict=True):
      pd.testing.assert_frame_equal(cut, table, check_exact=True)
