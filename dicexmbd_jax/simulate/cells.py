"""Where the cells lie: types, sizes, outlines, and a packing of them."""

import dataclasses
import math

import numpy as np
from scipy import spatial

from dicexmbd_jax.simulate.layout import Compartment, Layout


@dataclasses.dataclass(frozen=True)
class CellType:
  """Geometry of one cell type; the markers are in `markers`.

  Attributes:
    name: as `markers` calls it.
    radius_um: of the circle of equal area.
    elongation: range of the ratio of long to short axis.
    roughness: amplitude of the outline's lobes, relative to the radius.
    nucleus_ratio: range of nuclear area over cell area.
    hidden: probability that the section misses the nucleus.
  """

  name: str
  radius_um: float
  elongation: tuple[float, float]
  roughness: float
  nucleus_ratio: tuple[float, float]
  hidden: float


CELL_TYPES = (
  CellType("t_cell", 3.5, (1.0, 1.35), 0.05, (0.45, 0.78), 0.05),
  CellType("b_cell", 3.6, (1.0, 1.3), 0.04, (0.48, 0.8), 0.05),
  CellType("blast", 4.7, (1.0, 1.35), 0.05, (0.42, 0.75), 0.04),
  CellType("plasma", 4.6, (1.0, 1.6), 0.05, (0.22, 0.4), 0.08),
  CellType("macrophage", 5.6, (1.0, 2.2), 0.16, (0.15, 0.35), 0.2),
  CellType("dendritic", 5.2, (1.0, 2.6), 0.2, (0.15, 0.35), 0.2),
  CellType("granulocyte", 3.8, (1.0, 1.4), 0.07, (0.3, 0.55), 0.07),
  CellType("epithelial", 6.4, (1.0, 1.8), 0.06, (0.28, 0.72), 0.08),
  CellType("columnar", 5.8, (1.3, 2.6), 0.05, (0.35, 0.75), 0.08),
  CellType("fibroblast", 4.5, (2.0, 5.0), 0.1, (0.25, 0.55), 0.15),
  CellType("endothelial", 3.9, (1.8, 4.0), 0.06, (0.3, 0.6), 0.12),
  CellType("muscle", 4.6, (2.5, 6.0), 0.05, (0.2, 0.45), 0.25),
)
TYPE_INDEX = {cell_type.name: i for i, cell_type in enumerate(CELL_TYPES)}

# Share of cells by compartment, and the range of the share of covered area
# that the packing aims at.
MIXES: dict[Compartment, tuple[dict[str, float], tuple[float, float]]] = {
  Compartment.T_ZONE: (
    {
      "t_cell": 70,
      "b_cell": 12,
      "blast": 4,
      "macrophage": 4,
      "dendritic": 4,
      "endothelial": 4,
      "plasma": 2,
    },
    (0.75, 1.2),
  ),
  Compartment.FOLLICLE: (
    {"b_cell": 72, "t_cell": 10, "blast": 14, "macrophage": 3, "dendritic": 3},
    (0.85, 1.25),
  ),
  Compartment.PULP: (
    {
      "t_cell": 22,
      "b_cell": 12,
      "macrophage": 22,
      "dendritic": 4,
      "granulocyte": 16,
      "plasma": 8,
      "endothelial": 12,
      "fibroblast": 4,
    },
    (0.4, 1.05),
  ),
  Compartment.NEST: (
    {"epithelial": 88, "t_cell": 6, "macrophage": 4, "dendritic": 2},
    (0.8, 1.2),
  ),
  Compartment.GLAND: (
    {"columnar": 92, "t_cell": 4, "epithelial": 4},
    (0.9, 1.2),
  ),
  Compartment.STROMA: (
    {
      "fibroblast": 50,
      "t_cell": 14,
      "b_cell": 3,
      "macrophage": 13,
      "plasma": 6,
      "endothelial": 8,
      "muscle": 3,
      "granulocyte": 3,
    },
    (0.12, 0.7),
  ),
  Compartment.WALL: (
    {"endothelial": 50, "muscle": 40, "fibroblast": 10},
    (0.5, 1.0),
  ),
}


@dataclasses.dataclass(frozen=True)
class DrawnCells:
  """Ellipses with lobes and a bend, one row per cell; lengths in um.

  Attributes:
    y: centre, may lie outside the image by the margin.
    x: centre.
    type: index into `CELL_TYPES`.
    long: semi-axis along `angle`.
    short: semi-axis across it.
    angle: radians, from x towards y.
    reach: multiple of the outline up to which free space is filled.
  """

  y: np.ndarray
  x: np.ndarray
  type: np.ndarray
  long: np.ndarray
  short: np.ndarray
  angle: np.ndarray
  reach: np.ndarray

  def take(self, index: np.ndarray) -> "DrawnCells":
    """Returns the cells at these rows."""
    fields = dataclasses.fields(self)
    return DrawnCells(**{f.name: getattr(self, f.name)[index] for f in fields})


def place_cells(
  rng: np.random.Generator, layout: Layout, margin_px: int
) -> DrawnCells:
  """Fills the compartments with cells and pushes overlapping ones apart.

  Args:
    rng: source of randomness.
    layout: the tissue, already larger than the image by the margin.
    margin_px: width of that margin; coordinates are relative to the image.

  Returns:
    The cells, none where the whole layout is empty.
  """
  scale = float(np.clip(rng.lognormal(0.02, 0.16), 0.88, 1.5))
  type_scale = np.clip(rng.lognormal(0, 0.12, len(CELL_TYPES)), 0.82, 1.4)
  type_scale[TYPE_INDEX["b_cell"]] = type_scale[TYPE_INDEX["t_cell"]]
  parts = [
    _fill_compartment(rng, layout, compartment, scale * type_scale)
    for compartment in MIXES
  ]
  fields = [f.name for f in dataclasses.fields(DrawnCells)]
  cells = DrawnCells(
    **{f: np.concatenate([getattr(part, f) for part in parts]) for f in fields}
  )
  cells = _relax_cells(cells, rng.uniform(0.8, 1.0), num_rounds=14)
  cells = _drop_outside(cells, layout)
  return dataclasses.replace(
    cells, y=cells.y - margin_px, x=cells.x - margin_px
  )


def _drop_outside(cells: DrawnCells, layout: Layout) -> DrawnCells:
  """Keeps the cells whose centres lie in tissue."""
  shape = layout.compartments.shape
  row, col = np.rint(cells.y).astype(int), np.rint(cells.x).astype(int)
  is_in = (row >= 0) & (col >= 0) & (row < shape[0]) & (col < shape[1])
  inside = np.flatnonzero(is_in)
  found = layout.compartments[row[inside], col[inside]]
  return cells.take(inside[found != Compartment.EMPTY])


def _fill_compartment(
  rng: np.random.Generator,
  layout: Layout,
  compartment: Compartment,
  type_scale: np.ndarray,
) -> DrawnCells:
  """Draws the cells of one compartment, uniformly over its pixels."""
  mix, fill_range = MIXES[compartment]
  types = np.array([TYPE_INDEX[name] for name in mix])
  weights = np.array(list(mix.values())) * rng.lognormal(0, 0.4, len(mix))
  weights = weights / weights.sum()
  fill = rng.uniform(*fill_range)
  radii = np.array([CELL_TYPES[t].radius_um for t in types]) * type_scale[types]
  pixels = np.flatnonzero(layout.compartments == compartment)
  num = int(rng.poisson(fill * pixels.size / (math.pi * weights @ radii**2)))
  chosen = rng.choice(len(mix), num, p=weights)
  pixel = pixels[rng.integers(0, max(pixels.size, 1), num)]
  row, col = np.divmod(pixel, layout.compartments.shape[1])
  radius = radii[chosen] * np.clip(rng.lognormal(0, 0.13, num), 0.7, 1.5)
  ranges = np.array([CELL_TYPES[t].elongation for t in types])[chosen]
  elongation = rng.uniform(ranges[:, 0], ranges[:, 1])
  angle = layout.angle[row, col] + rng.normal(0, 0.25, num)
  is_round = (elongation < 1.8) & (compartment != Compartment.GLAND)
  reach = rng.uniform(1.05, 1.35) if fill > 0.75 else 1.0
  return DrawnCells(
    y=row + rng.uniform(-0.5, 0.5, num),
    x=col + rng.uniform(-0.5, 0.5, num),
    type=types[chosen],
    long=radius * np.sqrt(elongation),
    short=radius / np.sqrt(elongation),
    angle=np.where(is_round, rng.uniform(0, math.pi, num), angle),
    reach=np.full(num, reach),
  )


def _relax_cells(
  cells: DrawnCells, softness: float, num_rounds: int
) -> DrawnCells:
  """Pushes overlapping ellipses apart, a few rounds of pairwise steps."""
  points = np.stack([cells.y, cells.x], 1)
  if len(points) < 2:
    return cells
  reach_px = min(2 * float(cells.long.max()), 22.0)
  pairs = np.zeros((0, 2), int)
  for i in range(num_rounds):
    if i % 5 == 0:
      tree = spatial.cKDTree(points)
      pairs = tree.query_pairs(reach_px, output_type="ndarray")
    points = points + _push_pairs(cells, points, pairs, softness)
  return dataclasses.replace(cells, y=points[:, 0], x=points[:, 1])


def _push_pairs(
  cells: DrawnCells, points: np.ndarray, pairs: np.ndarray, softness: float
) -> np.ndarray:
  """One step of every cell away from those that it overlaps."""
  first, second = pairs.T
  gap = points[second] - points[first]
  distance = np.hypot(gap[:, 0], gap[:, 1]) + 1e-6
  direction = np.arctan2(gap[:, 0], gap[:, 1])
  wanted = _measure_radius(cells, first, direction)
  wanted += _measure_radius(cells, second, direction)
  overlap = np.maximum(softness * wanted - distance, 0)
  push = gap / distance[:, None] * (0.35 * overlap)[:, None]
  moves = np.empty_like(points)
  for axis in range(2):
    moves[:, axis] = np.bincount(second, push[:, axis], len(points))
    moves[:, axis] -= np.bincount(first, push[:, axis], len(points))
  return np.clip(moves, -2, 2)


def _measure_radius(
  cells: DrawnCells, index: np.ndarray, direction: np.ndarray
) -> np.ndarray:
  """Radius of ellipses in a direction."""
  turn = direction - cells.angle[index]
  long, short = cells.long[index], cells.short[index]
  across = np.hypot(short * np.cos(turn), long * np.sin(turn))
  return long * short / across
