"""Tables of cells: intensities, shapes, neighbours, in steinbock's columns."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int32, Int64

from dicexmbd_jax import storage
from dicexmbd_jax.masks.compiler import compile_kernel
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
  if "Object" in names:
    raise ValueError("names: found Object, the column of ids, expected another")
  objects = _list_objects(cells)
  areas = np.zeros(len(objects) + 1)
  sums = np.zeros((len(names), len(objects) + 1))
  planes = np.moveaxis(stack, -1, 0)
  if planes.dtype != np.float32:  # Of any kind and byte order.
    planes = planes.astype(np.float64)
  for runs in _list_run_strips(cells, objects):
    areas += np.bincount(runs[:, 3], runs[:, 2] - runs[:, 1], len(areas))
    add_counts(planes, runs, sums)
  means = sums[:, 1:] / areas[1:]
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
  sums = np.zeros((3, len(objects) + 1))
  for runs in _list_run_strips(cells, objects):
    add_places(runs, sums)
  areas, y, x = sums[:, 1:]
  y, x = y / areas, x / areas
  # Central moments from centred coordinates: raw ones would lose digits.
  moments = np.zeros((3, len(objects) + 1))
  for runs in _list_run_strips(cells, objects):
    add_moments(runs, np.append(0, y), np.append(0, x), moments)
  var_y, var_x, covariance = moments[:, 1:] / areas
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
  touching = np.concatenate(
    [
      _list_touching(grown[part.start : part.stop + 1])
      for part in storage.cut_strips(grown.shape, 16)
    ]
  )
  one_way = np.unique(touching)
  other_way = (one_way & (2**32 - 1)) << 32 | one_way >> 32
  pairs = np.sort(np.concatenate([one_way, other_way]))
  return pd.DataFrame(
    {
      "Object": pairs >> 32,
      "Neighbor": pairs & (2**32 - 1),
      "Distance": np.full(len(pairs), np.nan, np.float32),
    }
  )


def _list_touching(grown: Labels) -> Int64[np.ndarray, " n"]:
  """Lists the pairs of ids whose pixels share an edge, some several times."""
  pairs = np.empty(2 * grown.size, np.int64)
  count = fill_touching(grown, np.zeros(grown.shape[1], np.int64), pairs)
  return pairs[:count].copy()


@compile_kernel
def fill_touching(grown, last_beside, pairs):
  """Lists the pairs of ids whose pixels share an edge.

  Args:
    grown: (y, x), 0 = background.
    last_beside: int64 (x,), zeros; room for a row's pairs.
    pairs: int64, two for each pixel; becomes both ids of a pair in one number,
      the smaller first, which sorts as the pair does. A pair may come several
      times.

  Returns:
    The number of pairs.
  """
  height, width = grown.shape
  count = 0
  # Borders are long: of a pair that the pixel before had, too, one will do.
  for y in range(height):
    last_below = 0
    for x in range(width):
      here = grown[y, x]
      beside = pair_ids(here, grown[y, x + 1]) if x + 1 < width else 0
      if beside != 0 and beside != last_beside[x]:
        pairs[count] = beside
        count += 1
      last_beside[x] = beside
      below = pair_ids(here, grown[y + 1, x]) if y + 1 < height else 0
      if below != 0 and below != last_below:
        pairs[count] = below
        count += 1
      last_below = below
  return count


@compile_kernel
def pair_ids(one, other):
  """Returns two ids in one number, 0 where they are equal or background."""
  if one == other or one == 0 or other == 0:
    return 0
  low, high = (one, other) if one < other else (other, one)
  return np.int64(low) << 32 | np.int64(high)


def _list_objects(cells: Labels) -> Int64[np.ndarray, " n"]:
  """Lists the ids, rising."""
  found = [np.zeros(1, cells.dtype)]
  for part in storage.cut_strips(cells.shape, 8):
    flat = cells[part].ravel()
    # Cells are wide: where a run begins tells all ids.
    begins = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    found += [flat[:1], flat[begins]]
  return np.unique(np.concatenate(found))[1:].astype(np.int64)


def _list_run_strips(
  cells: Labels, objects: Int64[np.ndarray, " n"]
) -> Iterator[Int32[np.ndarray, "k 4"]]:
  """Yields the runs of equal ids along rows, as list_runs, strip by strip.

  Ids are their places in the list, 1 for the first.
  """
  is_gapless = len(objects) == 0 or objects[-1] == len(objects)
  known = np.append(0, objects)
  for part in storage.cut_strips(cells.shape, 40):
    strip = cells[part]
    index = strip if is_gapless else np.searchsorted(known, strip)
    labels = np.ascontiguousarray(index, np.int32)
    runs = np.empty((labels.size, 4), np.int32)
    yield runs[: list_runs(labels, part.start, runs)]


@compile_kernel
def list_runs(labels, top, runs):
  """Lists the runs of equal labels along rows.

  0 5 5 7 in row 3 gives (3, 1, 3, 5) and (3, 3, 4, 7).

  Args:
    labels: int32 (y, x); 0 is left out.
    top: the number of the first row.
    runs: int32 (y * x, 4); becomes row, first column, column after the last
      one, label, in raster order.

  Returns:
    The number of runs.
  """
  height, width = labels.shape
  count = -1
  for y in range(height):
    last = 0
    for x in range(width):
      label = labels[y, x]
      if label != last and label != 0:
        count += 1
        runs[count, 0] = top + y
        runs[count, 1] = x
        runs[count, 3] = label
      if label != 0:
        runs[count, 2] = x + 1
      last = label
  return count + 1


@compile_kernel
def add_counts(planes, runs, sums):
  """Adds the counts of each cell, in raster order, to its sums.

  Four channels at a time: an addition waits for the one before it.

  Args:
    planes: (m, y, x).
    runs: of list_runs.
    sums: float64 (m, n + 1).
  """
  for first in range(0, len(planes), 4):
    last = len(planes) - 1
    # Of the last channels some are read again, and left out below.
    a, b, c, d = first, first + 1, first + 2, first + 3
    plane_a, plane_b = planes[a], planes[min(b, last)]
    plane_c, plane_d = planes[min(c, last)], planes[min(d, last)]
    for y, start, end, label in runs:
      sum_a, sum_b = sums[a, label], sums[min(b, last), label]
      sum_c, sum_d = sums[min(c, last), label], sums[min(d, last), label]
      for x in range(start, end):
        sum_a += plane_a[y, x]
        sum_b += plane_b[y, x]
        sum_c += plane_c[y, x]
        sum_d += plane_d[y, x]
      sums[a, label] = sum_a
      if b <= last:
        sums[b, label] = sum_b
      if c <= last:
        sums[c, label] = sum_c
      if d <= last:
        sums[d, label] = sum_d


@compile_kernel
def add_places(runs, sums):
  """Adds each cell's pixels, rows and columns to its sums, (3, n + 1)."""
  for y, start, end, label in runs:
    num = end - start
    sums[0, label] += num
    sums[1, label] += y * num
    sums[2, label] += (start + end - 1) * num // 2


@compile_kernel
def add_moments(runs, y, x, sums):
  """Adds second moments about centres, pixel by pixel in raster order.

  Args:
    runs: of list_runs.
    y: each cell's centre; the first is of none.
    x: likewise.
    sums: float64 (3, n + 1): of squares along y, along x, of products.
  """
  for row, start, end, label in runs:
    dy = row - y[label]
    for column in range(start, end):
      dx = column - x[label]
      sums[0, label] += dy * dy
      sums[1, label] += dx * dx
      sums[2, label] += dy * dx


def _find_eigenvalues(
  var_y: np.ndarray, var_x: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Finds both eigenvalues of 2x2 covariances, the larger first, none < 0."""
  mean = (var_y + var_x) / 2
  spread = np.hypot((var_y - var_x) / 2, covariance)
  return mean + spread, np.maximum(mean - spread, 0.0)
