"""Tables of cells: intensities, shapes, neighbours, in steinbock's columns."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int64

from dicexmbd_jax.masks.distance import grow_labels
from dicexmbd_jax.types import Labels, Stack

REGION_COLUMNS = (
  "area",
  "centroid-0",
  "centroid-1",
  "axis_major_length",
  "axis_minor_length",
  "eccentricity",
)


def measure_intensities(
  stack: Stack, cells: Labels, names: Sequence[str]
) -> pd.DataFrame:
  """Measures the mean count of every channel in every cell.

  Sums are of float64, so that large cells lose nothing. Columns and order are
  those of steinbock's `intensities`.

  Args:
    stack: counts (y, x, m).
    cells: labels (y, x); ids may have gaps.
    names: the m channels' names, unique.

  Returns:
    One row per cell in the order of ids: Object (int64), then a float64 column
    per channel, in counts per pixel. No rows for an empty mask.

  Raises:
    ValueError: shapes or names do not fit together.
  """
  if stack.shape[:2] != cells.shape or stack.shape[2:] != (len(names),):
    raise ValueError(
      f"stack has shape {stack.shape}, expected {(*cells.shape, len(names))} "
      f"for cells of shape {cells.shape} and {len(names)} names"
    )
  if len(set(names)) != len(names):
    raise ValueError(f"names repeat: {names}, expected unique names")
  objects, index = _index_objects(cells)
  places = index.ravel()
  areas = np.bincount(places)[1:]
  table = {"Object": objects}
  for channel, name in enumerate(names):
    counts = stack[..., channel].ravel()
    table[name] = np.bincount(places, weights=counts)[1:] / areas
  return pd.DataFrame(table)


def measure_regions(cells: Labels) -> pd.DataFrame:
  """Measures size, place and shape of every cell.

  The columns are those of steinbock's `regionprops`, the definitions those of
  skimage.measure.regionprops: axes of the ellipse with the same second
  central moments, zero for a single pixel; eccentricity 0 is a circle.

  Args:
    cells: labels (y, x); ids may have gaps.

  Returns:
    One row per cell in the order of ids: Object, area in px (int64),
    centroid-0 (y), centroid-1 (x), axis_major_length, axis_minor_length in px
    and eccentricity (float64). No rows for an empty mask.
  """
  objects, index = _index_objects(cells)
  rows, columns = np.nonzero(index)
  index = index[rows, columns] - 1
  count = len(objects)
  areas = np.bincount(index, minlength=count)
  y = np.bincount(index, weights=rows, minlength=count) / areas
  x = np.bincount(index, weights=columns, minlength=count) / areas
  # Central moments from centred coordinates: raw ones would lose digits.
  dy, dx = rows - y[index], columns - x[index]
  var_y, var_x, covariance = (
    np.bincount(index, weights=product, minlength=count) / areas
    for product in (dy * dy, dx * dx, dy * dx)
  )
  major, minor = _find_eigenvalues(var_y, var_x, covariance)
  with np.errstate(divide="ignore", invalid="ignore"):
    eccentricity = np.where(major > 0, np.sqrt(1 - minor / major), 0.0)
  axes = 4 * np.sqrt(major), 4 * np.sqrt(minor)
  values = (areas, y, x, *axes, eccentricity)
  return pd.DataFrame(
    {"Object": objects, **dict(zip(REGION_COLUMNS, values, strict=True))}
  )


def measure_neighbors(cells: Labels, distance_px: float = 4.0) -> pd.DataFrame:
  """Finds the cells that touch once all have grown by a few pixels.

  This is steinbock's neighbourhood by pixel expansion: every background pixel
  up to `distance_px` (Euclidean, inclusive) from a cell goes to the nearest
  one, ties as scipy.ndimage.distance_transform_edt breaks them, and cells
  that then share a pixel's edge are neighbours. Steinbock gives no distance
  for such pairs, so that column is empty here, too.

  Args:
    cells: labels (y, x); ids may have gaps.
    distance_px: how far cells grow.

  Returns:
    Both directions of every pair, ordered by Object, then Neighbor (int64);
    Distance is NaN (float32). No rows for an empty mask.
  """
  grown = grow_labels(cells, distance_px)
  sides = [(grown[1:], grown[:-1]), (grown[:, 1:], grown[:, :-1])]
  touching = [
    (one[mask].astype(np.int64), other[mask].astype(np.int64))
    for one, other in sides
    for mask in [(one != other) & (one > 0) & (other > 0)]
  ]
  # Both ids of a pair in one number, which sorts as the pair does.
  one_way = [one << 32 | other for one, other in touching]
  other_way = [other << 32 | one for one, other in touching]
  pairs = np.unique(np.concatenate([*one_way, *other_way]))
  return pd.DataFrame(
    {
      "Object": pairs >> 32,
      "Neighbor": pairs & (2**32 - 1),
      "Distance": np.full(len(pairs), np.nan, np.float32),
    }
  )


def _index_objects(
  cells: Labels,
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "y x"]]:
  """Lists the ids, rising, and numbers the pixels by their place in the list.

  Returns:
    The ids; and 1 where a pixel has the first of them, 0 for background.
  """
  flat = cells.ravel()
  # Cells are wide: where a run begins tells all ids.
  begins = np.flatnonzero(flat[1:] != flat[:-1]) + 1
  known = np.unique(np.concatenate([[0], flat[:1], flat[begins]]))
  is_gapless = known[-1] + 1 == len(known)
  index = cells if is_gapless else np.searchsorted(known, cells)
  return known[1:].astype(np.int64), index.astype(np.int64)


def _find_eigenvalues(
  var_y: np.ndarray, var_x: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Finds both eigenvalues of 2x2 covariances, the larger first, none < 0."""
  mean = (var_y + var_x) / 2
  spread = np.hypot((var_y - var_x) / 2, covariance)
  return mean + spread, np.maximum(mean - spread, 0.0)
