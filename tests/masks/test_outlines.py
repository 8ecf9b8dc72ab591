import hypothesis
import numpy as np
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from matplotlib import path as mpl_path

from dicexmbd_jax.masks import outlines


def fill(polygons, shape):
  """Draws polygons by their rings' parity at the pixels' centres."""
  y, x = np.mgrid[: shape[0], : shape[1]]
  points = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], -1)
  inside = np.zeros(shape, bool)
  for polygon in polygons:
    for ring in polygon:
      inside ^= mpl_path.Path(ring).contains_points(points).reshape(shape)
  return inside


def measure_area(ring):
  x, y = np.array(ring).T
  return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def test_a_pixel_and_its_place():
  labels = np.zeros((4, 5), np.int32)
  labels[2, 3] = 7
  assert outlines.trace_labels(labels) == {
    7: [[[(3, 2), (4, 2), (4, 3), (3, 3), (3, 2)]]]
  }


def test_pieces_that_share_a_corner_are_two():
  polygons = outlines.trace_object(np.eye(2, dtype=bool))
  assert [len(polygon) for polygon in polygons] == [1, 1]


def test_a_hole_that_touches_the_outside_at_a_corner():
  is_inside = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
  polygons = outlines.trace_object(is_inside)
  (polygon,) = polygons
  assert sum(map(measure_area, polygon)) == 7
  np.testing.assert_array_equal(fill(polygons, (3, 3)), is_inside)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  arrays.arrays(np.int32, (6, 7), elements=strategies.integers(0, 2))
)
def test_filling_gives_the_mask_again(labels):
  found = outlines.trace_labels(labels)
  assert sorted(found) == sorted(set(np.unique(labels)) - {0})
  for number, polygons in found.items():
    np.testing.assert_array_equal(
      fill(polygons, labels.shape), labels == number
    )
    area = sum(measure_area(ring) for polygon in polygons for ring in polygon)
    assert area == (labels == number).sum()
    for polygon in polygons:
      assert measure_area(polygon[0]) > 0
      assert all(measure_area(ring) < 0 for ring in polygon[1:])
