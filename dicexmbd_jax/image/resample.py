"""Another pixel size for an image: area averages down, linear in between up.

Pixels are areas: both grids cover the same field, so pixel i of n covers
i/n to (i + 1)/n of it. Each axis is one sparse matrix with a few entries per
row, so time and memory grow with the number of pixels.
"""

import numpy as np
from jaxtyping import Float32
from scipy import sparse

from dicexmbd_jax import storage

Pixels = Float32[np.ndarray, "y x c"]
Resampled = Float32[np.ndarray, "rows columns c"]


def resampled_shape(
  shape: tuple[int, int], pixel_size_um: float, target_um: float
) -> tuple[int, int]:
  """Returns rows and columns of an image once its pixels are `target_um` wide.

  Rounded to the nearest whole pixel (halves up), at least 1.

  Raises:
    ValueError: a pixel size that is not a positive, finite number.
  """
  for name, size_um in (
    ("pixel_size_um", pixel_size_um),
    ("target_um", target_um),
  ):
    if not 0 < size_um < np.inf:
      raise ValueError(f"{name}: found {size_um}, expected more than 0 um")
  rows, columns = (
    max(1, int(size * pixel_size_um / target_um + 0.5)) for size in shape
  )
  return rows, columns


def resample_image(image: Pixels, shape: tuple[int, int]) -> Resampled:
  """Puts an image on a grid of another shape over the same field.

  Where an axis shrinks, a pixel is the mean over the area it covers, so
  nothing is lost and nothing aliases. Where it grows, values are interpolated
  linearly between pixel centres, and held constant beyond the outermost ones.

  Args:
    image: float32 (y, x, c), any c.
    shape: rows and columns wanted, at least 1 each.

  Returns:
    Float32 (y', x', c), within the input's range; the input itself where the
    shape is the same.

  Raises:
    ValueError: the image or the shape wanted has no pixels.
  """
  if min(*shape, *image.shape[:2]) < 1:
    raise ValueError(
      f"shape: found {image.shape[:2]} to {tuple(shape)}, "
      "expected at least 1 x 1 px"
    )
  if image.shape[:2] == tuple(shape):
    return image
  weights = [
    _make_weights(old_size, size)
    for old_size, size in zip(image.shape[:2], shape, strict=True)
  ]
  low, high = image.min(), image.max()
  resampled = storage.allocate((*shape, *image.shape[2:]), np.float32)
  widest = max(image.shape[1], shape[1])
  for part in storage.cut_strips((shape[0], widest, *image.shape[2:]), 16):
    rows = _resample_rows(image, weights[0], part)
    columns = rows.swapaxes(0, 1)
    columns = _resample_rows(columns, weights[1], slice(0, shape[1]))
    # Rounded weights may sum to a little more than 1, and records hold 0..255.
    np.clip(columns.swapaxes(0, 1), low, high, out=resampled[part])
  return resampled


def _make_weights(old_size: int, size: int) -> sparse.csr_array | None:
  if size == old_size:
    return None
  make = _make_area_weights if size < old_size else _make_linear_weights
  return make(old_size, size)


def _resample_rows(
  image: Pixels, weights: sparse.csr_array | None, part: slice
) -> Resampled:
  """Returns some rows of the new grid, from the old rows that they cover."""
  if weights is None:
    return image[part]
  weights = weights[part]
  first, last = weights.indices.min(), weights.indices.max() + 1
  old = image[first:last]
  flat = weights[:, first:last] @ old.reshape(len(old), -1)
  return flat.reshape(weights.shape[0], *image.shape[1:])


def _make_area_weights(old_size: int, size: int) -> sparse.csr_array:
  """Returns (size, old_size): the share of each old pixel in each new one."""
  # Edges of both grids in units of 1 / (old_size * size): whole numbers.
  edges = np.union1d(np.arange(size + 1) * old_size, np.arange(old_size) * size)
  pieces = np.diff(edges) / old_size
  return _make_matrix(
    pieces, edges[:-1] // old_size, edges[:-1] // size, (size, old_size)
  )


def _make_linear_weights(old_size: int, size: int) -> sparse.csr_array:
  """Returns (size, old_size): weights of the two nearest old centres."""
  centres = (np.arange(size) + 0.5) * old_size / size - 0.5
  centres = np.clip(centres, 0, old_size - 1)
  before = centres.astype(int)
  after = np.minimum(before + 1, old_size - 1)
  share = centres - before
  rows = np.arange(size)
  return _make_matrix(
    np.concatenate([1 - share, share]),
    np.concatenate([rows, rows]),
    np.concatenate([before, after]),
    (size, old_size),
  )


def _make_matrix(
  weights: np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
  shape: tuple[int, int],
) -> sparse.csr_array:
  matrix = sparse.coo_array((weights, (rows, columns)), shape=shape)
  return matrix.tocsr().astype(np.float32)
