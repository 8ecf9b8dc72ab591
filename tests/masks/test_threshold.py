import cellprofiler
import hypothesis
import numpy as np
import pytest
import skimage.filters
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dicexmbd_jax.masks import threshold


def find(values, method="cellprofiler3"):
  return threshold.find_threshold(lambda: [values], method)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_fixed_step_iteration(seed):
  rng = np.random.default_rng(seed)
  values = rng.beta(0.3, rng.uniform(0.5, 3), size=(40, 30))
  expected = cellprofiler.threshold_li(values)
  assert find(values) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_equals_todays_li(seed):
  rng = np.random.default_rng(seed)
  values = rng.beta(0.3, rng.uniform(0.5, 3), size=(40, 30))
  expected = skimage.filters.threshold_li(values, tolerance=0.5 / 65536)
  assert find(values, "cellprofiler4") == pytest.approx(expected, abs=1e-12)


def test_todays_tolerance_is_half_the_least_gap():
  values = np.array([[0.1, 0.2, 0.35, 0.9, 0.9]])
  expected = skimage.filters.threshold_li(values)
  assert find(values, "cellprofiler4") == pytest.approx(expected, abs=1e-12)
  assert threshold.find_tolerance([values]) == pytest.approx(0.05)
  crowded = np.array([[0.1, 0.1 + 1e-7, 0.9]])
  assert threshold.find_tolerance([crowded]) == 0.5 / 65536


@pytest.mark.parametrize("method", ["cellprofiler3", "cellprofiler4"])
def test_parts_hardly_matter(method):
  values = np.random.default_rng(1).random((64, 20)) ** 3
  whole = find(values, method)
  for rows in (1, 7, 50):
    parts = [values[y : y + rows] for y in range(0, 64, rows)]
    result = threshold.find_threshold(lambda s=parts: s, method)
    assert result == pytest.approx(whole, abs=1e-14)  # Sums are rounded.


@pytest.mark.parametrize("method", ["cellprofiler3", "cellprofiler4"])
@pytest.mark.parametrize(
  ("value", "expected"), [(0, 1), (0.4, 1), (0.5, 0), (1, 0)]
)
def test_a_constant_map_is_all_or_nothing(method, value, expected):
  assert find(np.full((3, 4), float(value)), method) == expected


def test_a_cut_above_the_greatest_value_is_that_value():
  values = np.full((100, 100), 0.9)
  values[0, 0] = 0.1
  assert find(values) == 0.9


@hypothesis.settings(deadline=None)
@hypothesis.given(
  hnp.arrays(float, (5, 6), elements=st.floats(0, 1, width=32)),
  st.sampled_from(["cellprofiler3", "cellprofiler4"]),
)
def test_lies_within_the_values(values, method):
  with np.errstate(all="raise"):
    result = find(values, method)
  if np.ptp(values) >= threshold.MIN_RANGE:
    assert values.min() <= result <= values.max()
  else:
    assert result in (0, 1)
