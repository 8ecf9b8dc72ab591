"""From cell geometry to whose each sub-pixel is, and to what part of a cell."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage, sparse

from dicexmbd_jax.edges import mark_edges
from dicexmbd_jax.simulate.cells import CELL_TYPES, DrawnCells
from dicexmbd_jax.simulate.noise import make_field

SUBPIXELS = 2  # Per axis; a lymphocyte's outline is about 8 pixels across.


@dataclasses.dataclass(frozen=True)
class Painting:
  """Who owns each sub-pixel.

  Attributes:
    owner: index of the cell, -1 for none.
    depth_px: distance to the owner's edge, 0 on the sub-pixels along it.
    nucleus_distance: 0 at the nucleus's centre, 1 at its outline.
  """

  owner: np.ndarray
  depth_px: Float32[np.ndarray, "Y X"]
  nucleus_distance: Float32[np.ndarray, "Y X"]


@dataclasses.dataclass(frozen=True)
class Coverage:
  """Share of each pixel per cell and place; rows pixels, columns cells.

  Multiplying with a (cells, channels) table of levels gives the expected
  signal of all channels at once.
  """

  membrane: sparse.csr_array
  cytoplasm: sparse.csr_array
  nucleus: sparse.csr_array


def paint_cells(
  rng: np.random.Generator, cells: DrawnCells, shape: tuple[int, int]
) -> Painting:
  """Gives each sub-pixel to the cell whose outline is relatively nearest.

  Args:
    rng: source of randomness.
    cells: the cells.
    shape: (y, x) of the image in pixels.

  Returns:
    The painting, `SUBPIXELS` times as large per axis.
  """
  fine = (shape[0] * SUBPIXELS, shape[1] * SUBPIXELS)
  nearest = np.full(fine, np.inf, np.float32)
  owner = np.full(fine, -1, np.int32)
  nucleus_distance = np.full(fine, np.inf, np.float32)
  amplitude = rng.uniform(0.15, 0.55)
  # Shifted coordinates roughen all outlines without disconnecting cells.
  warp_scale = SUBPIXELS * rng.uniform(1.5, 4)
  warp = [amplitude * make_field(rng, fine, warp_scale) for _ in range(2)]
  y = warp[0] + _find_centres(fine[0])[:, None]
  x = warp[1] + _find_centres(fine[1])[None, :]
  shapes = _draw_shapes(rng, cells)
  for i in range(len(cells.y)):
    reach = cells.reach[i]
    window = _find_window(cells.y[i], cells.x[i], cells.long[i] * reach, fine)
    if window is None:
      continue
    cell_distance, nucleus = _measure_cell(
      cells, shapes, i, y[window], x[window]
    )
    near = nearest[window]
    is_won = (cell_distance < near) & (cell_distance < reach)
    near[is_won] = cell_distance[is_won]
    owner[window][is_won] = i
    nucleus_distance[window][is_won] = nucleus[is_won]
  depth_px = _measure_depth(owner)
  # Where neighbours press on a cell, its nucleus keeps off the membrane.
  nucleus_distance += rng.uniform(0.1, 0.6) * np.maximum(1 - depth_px, 0)
  return Painting(owner, depth_px, nucleus_distance)


def _find_centres(num: int) -> np.ndarray:
  """Positions of sub-pixel centres in pixels; pixel 0 is centred at 0."""
  return ((np.arange(num) + 0.5) / SUBPIXELS - 0.5).astype(np.float32)


def _draw_shapes(
  rng: np.random.Generator, cells: DrawnCells
) -> dict[str, np.ndarray]:
  """Draws lobes, bend and nucleus of each cell."""
  num = len(cells.y)
  roughness = np.array([t.roughness for t in CELL_TYPES])[cells.type]
  ratios = np.array([t.nucleus_ratio for t in CELL_TYPES])[cells.type]
  elongation = cells.long / cells.short
  ratio = rng.uniform(ratios[:, 0], ratios[:, 1]) * rng.uniform(0.9, 1.15)
  stretch = rng.uniform(0.85, rng.uniform(1.1, 1.5), num)
  stretch = np.where(elongation > 2, 0.8, 1) * stretch
  nucleus_elongation = elongation ** rng.uniform(0.3, 0.9) * stretch
  radius = np.sqrt(np.clip(ratio, 0.1, 0.85) * cells.long * cells.short)
  # The nucleus may lie off the centre as far as it stays inside.
  free = np.clip(1 - np.sqrt(ratio), 0, None)[:, None] * rng.uniform(0, 0.7)
  offset = rng.uniform(-1, 1, (num, 2)) * free
  has_bend = elongation > 1.8
  uneven = rng.uniform(0.02, 0.09) + 0.3 * roughness[:, None]
  shapes = {
    "lobes": rng.normal(0, 1, (num, 4)) * roughness[:, None],
    "nucleus_lobes": rng.normal(0, 1, (num, 4)) * uneven,
    "bend": rng.normal(0, 0.25, num) * has_bend / cells.long,
    "nucleus_u": offset[:, 0] * cells.long,
    "nucleus_v": offset[:, 1] * cells.short,
    "nucleus_long": radius * np.sqrt(nucleus_elongation),
    "nucleus_short": radius / np.sqrt(nucleus_elongation),
  }
  return {name: value.astype(np.float32) for name, value in shapes.items()}


def _find_window(
  y: float, x: float, radius_px: float, shape: tuple[int, int]
) -> tuple[slice, slice] | None:
  """The sub-pixels around a cell, None if all lie outside the image."""
  span = (radius_px * 1.2 + 2) * SUBPIXELS
  ends = []
  for centre, num in zip((y, x), shape, strict=True):
    middle = (centre + 0.5) * SUBPIXELS
    low, high = max(int(middle - span), 0), min(int(middle + span) + 1, num)
    if low >= high:
      return None
    ends.append(slice(low, high))
  return ends[0], ends[1]


def _measure_cell(
  cells: DrawnCells,
  shapes: dict[str, np.ndarray],
  i: int,
  y: np.ndarray,
  x: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Relative distances of positions to the cell and its nucleus."""
  dy, dx = y - np.float32(cells.y[i]), x - np.float32(cells.x[i])
  cos, sin = math.cos(cells.angle[i]), math.sin(cells.angle[i])
  u = dx * np.float32(cos) + dy * np.float32(sin)
  v = dy * np.float32(cos) - dx * np.float32(sin)
  v = v + shapes["bend"][i] * u * u
  cell = _measure_lobed(
    u / np.float32(cells.long[i]),
    v / np.float32(cells.short[i]),
    shapes["lobes"][i],
  )
  nucleus = _measure_lobed(
    (u - shapes["nucleus_u"][i]) / shapes["nucleus_long"][i],
    (v - shapes["nucleus_v"][i]) / shapes["nucleus_short"][i],
    shapes["nucleus_lobes"][i],
  )
  return cell, nucleus


def _measure_lobed(p: np.ndarray, q: np.ndarray, lobes: np.ndarray):
  """Distance from the centre relative to an uneven circle's radius."""
  square = p * p + q * q + np.float32(1e-9)
  a, b, c, d = lobes
  # Second and third harmonics of the direction, without trigonometry.
  uneven = (a * (p * p - q * q) + b * p * q) / square
  uneven += (c * p * (p * p - 3 * q * q) + d * q * (3 * p * p - q * q)) / (
    square * np.sqrt(square)
  )
  return np.sqrt(square) / np.maximum(1 + uneven, np.float32(0.4))


def cover_pixels(
  rng: np.random.Generator,
  painting: Painting,
  has_nucleus: Bool[np.ndarray, " n"],
  hollow: Float32[np.ndarray, " n"],
) -> Coverage:
  """Measures how much of each pixel is whose membrane, cytoplasm, nucleus.

  Args:
    rng: source of randomness: texture, thickness of the membrane.
    painting: who owns each sub-pixel.
    has_nucleus: whether the section shows the cell's nucleus.
    hollow: how much darker the nucleus's centre is than its rim, 0 to 1.

  Returns:
    The coverage, with a column for each of the n cells.
  """
  owner, shape = painting.owner, painting.owner.shape
  is_cell = owner >= 0
  has = has_nucleus[owner] & is_cell
  nucleus = _shade_nuclei(rng, painting, hollow) * has
  thickness_px = rng.uniform(0.45, 1.05)
  membrane = np.exp(-((painting.depth_px / thickness_px) ** 2))
  # Sections are several um thick: some membrane lies above the nucleus.
  above = rng.uniform(0.03, 0.4) * (1 - rng.uniform(0, 0.9) * nucleus)
  membrane = membrane + np.maximum(above, 0)
  scale = SUBPIXELS * rng.uniform(0.6, 1.5)
  patch = np.exp(rng.uniform(0.2, 0.7) * make_field(rng, shape, scale))
  cytoplasm = (1 - rng.uniform(0.6, 0.95) * np.clip(nucleus, 0, 1)) * is_cell
  cytoplasm *= np.exp(
    rng.uniform(0.1, 0.35) * make_field(rng, shape, SUBPIXELS * 1.5)
  )
  planes = (membrane * patch * is_cell, cytoplasm, nucleus)
  num = len(has_nucleus)
  return Coverage(*(_gather_plane(plane, owner, num) for plane in planes))


def _measure_depth(owner: np.ndarray) -> np.ndarray:
  """Distance in pixels from each cell's sub-pixels to the cell's edge."""
  is_edge = mark_edges(owner)
  if not is_edge.any():
    return np.full(owner.shape, 9, np.float32)
  distance = ndimage.distance_transform_edt(~is_edge)
  return (distance / SUBPIXELS).astype(np.float32)


def _shade_nuclei(
  rng: np.random.Generator, painting: Painting, hollow: np.ndarray
) -> np.ndarray:
  """Brightness of nuclei: a dome of chance flatness, some bright at the rim."""
  distance = np.minimum(painting.nucleus_distance, 3)
  steepness = rng.uniform(5, 14)
  plateau = 1 / (1 + np.exp(steepness * (distance - 0.93)))
  dome = 1 - rng.uniform(0.0, 0.6) * np.minimum(distance, 1) ** 2
  core = np.exp(-((distance / 0.6) ** 2))
  return plateau * dome * (1 - hollow[painting.owner] * core)


def _gather_plane(
  plane: np.ndarray, owner: np.ndarray, num: int
) -> sparse.csr_array:
  """Sums a fine plane into a (pixels, cells) matrix."""
  num_x = owner.shape[1] // SUBPIXELS
  row, col = np.nonzero((plane > 1e-3) & (owner >= 0))
  pixel = (row // SUBPIXELS) * num_x + col // SUBPIXELS
  data = (plane[row, col] / SUBPIXELS**2).astype(np.float32)
  shape = (owner.size // SUBPIXELS**2, num)
  return sparse.csr_array((data, (pixel, owner[row, col])), shape=shape)
