"""Nuclei that are joined, by the saddle between them, and that are too dim."""

import numpy as np
import pytest
from skimage import morphology, segmentation

from dicexmbd_jax.masks import nuclei, saddles
from dicexmbd_jax.masks.blocks import cut_blocks
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.settings import Settings


class Plane:
  """Stands for WorkingMaps: one plane, cut into parts of a given edge."""

  def __init__(self, plane, part=64):
    self.plane = np.asarray(plane, np.float64)
    self.part = part

  def cut_parts(self):
    return cut_blocks(self.plane.shape, self.part)

  def read_smooth(self, window):
    return self.plane[window.slices]


# Peaks of 0.9, 0.8 and 0.7; saddles of 0.75 (0.05 deep) and 0.5 (0.2 deep).
HEIGHTS = [[0.9, 0.75, 0.8, 0.5, 0.7]]
LABELS = np.array([[1, 1, 2, 3, 3]], np.int32)


@pytest.mark.parametrize(
  ("min_depth", "expected"),
  [
    (0.0, [1, 1, 2, 3, 3]),
    (0.04, [1, 1, 2, 3, 3]),
    (0.06, [1, 1, 1, 2, 2]),
    (0.19, [1, 1, 1, 2, 2]),
    (0.21, [1, 1, 1, 1, 1]),
  ],
)
def test_a_saddle_joins_if_it_is_shallow(min_depth, expected):
  found = saddles.join_nuclei(LABELS, Plane(HEIGHTS), min_depth)
  assert found.tolist() == [expected]
  assert LABELS.tolist() == [[1, 1, 2, 3, 3]]  # Not edited.


def test_a_joined_nucleus_has_the_higher_peak():
  """The third is deep enough below the second, but not below the first."""
  heights = [[0.3, 0.9, 0.85, 0.88, 0.4, 0.6]]
  labels = np.array([[1, 2, 2, 3, 3, 4]], np.int32)
  found = saddles.join_nuclei(labels, Plane(heights), 0.1)
  # 2 and 3 join (0.03); 1 has no peak of its own above its saddle; 4 stays.
  assert found.tolist() == [[1, 1, 1, 1, 1, 2]]


@pytest.mark.parametrize(
  ("min_depth", "min_peak", "expected"),
  [
    (0.0, 0.7, [1, 1, 2, 3, 3]),  # A peak of just this stays.
    (0.0, 0.75, [1, 1, 2, 0, 0]),
    (0.0, 0.85, [1, 1, 0, 0, 0]),
    (0.06, 0.75, [1, 1, 1, 0, 0]),
    (0.06, 0.85, [1, 1, 1, 0, 0]),  # The second has the first one's peak.
    (0.21, 0.85, [1, 1, 1, 1, 1]),
    (0.21, 1.0, [0, 0, 0, 0, 0]),
  ],
)
def test_a_dim_nucleus_is_dropped_if_it_joins_no_other(
  min_depth, min_peak, expected
):
  found = saddles.join_nuclei(LABELS, Plane(HEIGHTS), min_depth, min_peak)
  assert found.tolist() == [expected]


def test_a_dim_nucleus_leaves_no_gap_in_the_numbers():
  labels = np.array([[1, 0, 2, 0, 3]], np.int32)
  plane = Plane([[0.6, 0.1, 0.3, 0.1, 0.9]])
  found = saddles.join_nuclei(labels, plane, 0.1, 0.5)
  assert found.tolist() == [[1, 0, 0, 0, 2]]


def test_a_single_nucleus_can_be_dim():
  labels, plane = np.array([[0, 1]], np.int32), Plane([[0.1, 0.3]])
  assert saddles.join_nuclei(labels, plane, 0.1, 0.2).tolist() == [[0, 1]]
  assert saddles.join_nuclei(labels, plane, 0.1, 0.5).tolist() == [[0, 0]]


def test_nuclei_touch_at_corners_and_not_over_background():
  labels = np.array([[1, 0, 3], [0, 2, 0], [0, 0, 0], [4, 4, 4]], np.int32)
  found = saddles.join_nuclei(labels, Plane(np.ones((4, 3))), 0.5)
  assert found.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [2, 2, 2]]


@pytest.mark.parametrize("labels", [np.zeros((3, 4)), np.ones((3, 4))])
def test_less_than_two_nuclei_stay(labels):
  labels = labels.astype(np.int32)
  found = saddles.join_nuclei(labels, Plane(np.ones((3, 4))), 0.5)
  np.testing.assert_array_equal(found, labels)


def draw_bumps(seed):
  """Returns a smooth plane of 0..1 and the watershed of all its maxima."""
  rng = np.random.default_rng(seed)
  plane = Plane(rng.random((70, 83))).plane
  for _ in range(6):
    padded = np.pad(plane, 1, mode="edge")
    plane = sum(
      padded[y : y + 70, x : x + 83] for y in range(3) for x in range(3)
    )
    plane = plane / 9
  plane = (plane - plane.min()) / (plane.max() - plane.min())
  markers = morphology.label(morphology.local_maxima(plane))
  labels = segmentation.watershed(-plane, markers, connectivity=2)
  return plane, labels.astype(np.int32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("min_depth", [0.05, 0.15])
def test_as_many_nuclei_stay_as_there_are_h_maxima(seed, min_depth):
  plane, labels = draw_bumps(seed)
  found = saddles.join_nuclei(labels, Plane(plane), min_depth)
  maxima = morphology.label(morphology.h_maxima(plane, min_depth))
  assert 1 < found.max() == maxima.max() < labels.max()
  # Each of them in a nucleus of its own.
  inside = [set(found[maxima == i]) for i in range(1, maxima.max() + 1)]
  assert all(len(one) == 1 for one in inside)
  assert len(set.union(*inside)) == maxima.max()


def test_parts_do_not_matter():
  plane, labels = draw_bumps(5)
  whole = saddles.join_nuclei(labels, Plane(plane, 200), 0.1)
  for part in (1, 7, 32):
    parts = saddles.join_nuclei(labels, Plane(plane, part), 0.1)
    np.testing.assert_array_equal(parts, whole)


def test_a_noisy_nucleus_stays_whole():
  """A wide plateau with noise, as of a large nucleus; and a small one."""
  y, x = np.mgrid[:40, :60]
  noise = np.random.default_rng(0).normal(0, 0.02, (40, 60))
  nucleus = np.where(np.hypot(y - 20, x - 20) < 14, 0.9 + noise, 0.05)
  nucleus[np.hypot(y - 20, x - 44) < 4] = 0.9
  pixels = np.stack([nucleus, 0 * nucleus, 1 - nucleus], -1).astype(np.float32)
  counts = []
  for min_depth in (0.0, 0.1):
    settings = Settings(smoothing_px=1.0, min_saddle_depth=min_depth)
    found = nuclei.find_nuclei(WorkingMaps(pixels, settings), settings)
    counts.append(int(found.max()))
  assert counts[0] > 10 and counts[1] == 2, counts
