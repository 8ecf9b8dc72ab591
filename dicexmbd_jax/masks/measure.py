"""Tables of cells: intensities, shapes, neighbours, in steinbock's columns."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int64

from dicexmbd_jax import storage
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
  objects = _list_objects(cells)
  areas, *sums = np.zeros((1 + len(names), len(objects) + 1))
  for part, index in _index_strips(cells, objects):
    places = index.ravel()
    areas = _add(areas, places)
    for channel, total in enumerate(sums):
      counts = stack[part, :, channel].ravel()
      sums[channel] = _add(total, places, counts)
  means = (total[1:] / areas[1:] for total in sums)
  return pd.DataFrame(
    {"Object": objects, **dict(zip(names, means, strict=True))}
  )


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
  objects = _list_objects(cells)
  areas, y, x, var_y, var_x, covariance = np.zeros((6, len(objects)))
  for index, rows, columns in _walk_cells(cells, objects):
    areas = _add(areas, index)
    y, x = _add(y, index, rows), _add(x, index, columns)
  y, x = y / areas, x / areas
  # Central moments from centred coordinates: raw ones would lose digits.
  for index, rows, columns in _walk_cells(cells, objects):
    dy, dx = rows - y[index], columns - x[index]
    var_y, var_x = _add(var_y, index, dy * dy), _add(var_x, index, dx * dx)
    covariance = _add(covariance, index, dy * dx)
  var_y, var_x, covariance = var_y / areas, var_x / areas, covariance / areas
  major, minor = _find_eigenvalues(var_y, var_x, covariance)
  with np.errstate(divide="ignore", invalid="ignore"):
    eccentricity = np.where(major > 0, np.sqrt(1 - minor / major), 0.0)
  axes = 4 * np.sqrt(major), 4 * np.sqrt(minor)
  values = (areas.astype(np.int64), y, x, *axes, eccentricity)
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
  touching = [
    _list_touching(grown[part.start : part.stop + 1])
    for part in storage.cut_strips(grown.shape, 16)
  ]
  pairs = np.unique(np.concatenate(touching))
  return pd.DataFrame(
    {
      "Object": pairs >> 32,
      "Neighbor": pairs & (2**32 - 1),
      "Distance": np.full(len(pairs), np.nan, np.float32),
    }
  )


def _list_touching(grown: Labels) -> Int64[np.ndarray, " n"]:
  """Lists the pairs of ids whose pixels share an edge, rising.

  Returns:
    Both ids of a pair in one number, which sorts as the pair does; both ways.
  """
  sides = [(grown[1:], grown[:-1]), (grown[:, 1:], grown[:, :-1])]
  touching = [
    (one[mask].astype(np.int64), other[mask].astype(np.int64))
    for one, other in sides
    for mask in [(one != other) & (one > 0) & (other > 0)]
  ]
  one_way = [one << 32 | other for one, other in touching]
  other_way = [other << 32 | one for one, other in touching]
  return np.unique(np.concatenate([*one_way, *other_way]))


def _list_objects(cells: Labels) -> Int64[np.ndarray, " n"]:
  """Lists the ids, rising."""
  found = [np.zeros(1, cells.dtype)]
  for part in storage.cut_strips(cells.shape, 8):
    flat = cells[part].ravel()
    # Cells are wide: where a run begins tells all ids.
    begins = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    found += [flat[:1], flat[begins]]
  return np.unique(np.concatenate(found))[1:].astype(np.int64)


def _index_strips(
  cells: Labels, objects: Int64[np.ndarray, " n"]
) -> Iterator[tuple[slice, Int64[np.ndarray, "y x"]]]:
  """Numbers the pixels, strip by strip, by their ids' places in the list.

  Yields:
    The strip's rows; 1 where a pixel has the first id, 0 for background.
  """
  is_gapless = len(objects) == 0 or objects[-1] == len(objects)
  known = np.append(0, objects)
  for part in storage.cut_strips(cells.shape, 40):
    strip = cells[part]
    index = strip if is_gapless else np.searchsorted(known, strip)
    yield part, index.astype(np.int64)


def _walk_cells(
  cells: Labels, objects: Int64[np.ndarray, " n"]
) -> Iterator[tuple[Int64[np.ndarray, " k"], ...]]:
  """Yields the cells' pixels, strip by strip, in raster order.

  Yields:
    The place of each pixel's id in the list, its row and its column.
  """
  for part, index in _index_strips(cells, objects):
    rows, columns = np.nonzero(index)
    yield index[rows, columns] - 1, rows + part.start, columns


def _add(
  sums: np.ndarray, places: np.ndarray, values: np.ndarray | None = None
) -> np.ndarray:
  """Returns sums with values, or ones, added in order, whatever the strips."""
  if not sums.any():  # The same to the bit, and sooner.
    return np.bincount(places, values, len(sums)).astype(np.float64)
  if values is None:
    return sums + np.bincount(places, minlength=len(sums))
  # The sums come first, so that they go on where they ended.
  places = np.concatenate([np.arange(len(sums)), places])
  return np.bincount(places, np.concatenate([sums, values]), len(sums))


def _find_eigenvalues(
  var_y: np.ndarray, var_x: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Finds both eigenvalues of 2x2 covariances, the larger first, none < 0."""
  mean = (var_y + var_x) / 2
  spread = np.hypot((var_y - var_x) / 2, covariance)
  return mean + spread, np.maximum(mean - spread, 0.0)
