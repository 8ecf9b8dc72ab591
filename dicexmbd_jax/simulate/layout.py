"""Tissue architecture: which compartment lies where, and which way it runs."""

import dataclasses
import enum
import math

import numpy as np
from jaxtyping import Float32, UInt8
from scipy import ndimage

Field = Float32[np.ndarray, "y x"]
Compartments = UInt8[np.ndarray, "y x"]


class Compartment(enum.IntEnum):
  """What a pixel of tissue belongs to."""

  EMPTY = 0  # lumen, tear, glass beside the section
  T_ZONE = 1  # crowded small lymphocytes
  FOLLICLE = 2  # crowded B cells
  PULP = 3  # loose mix of leukocytes, as in red pulp or infiltrates
  NEST = 4  # epithelium or tumour
  STROMA = 5  # fibroblasts and collagen
  WALL = 6  # vessel walls, muscle
  GLAND = 7  # columnar epithelium around a lumen


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where things are, at one pixel per um.

  Attributes:
    compartments: values of `Compartment`, uint8 (y, x).
    angle: direction in which elongated cells and fibres run, radians.
    style: name of the tissue, one of `STYLES`.
  """

  compartments: Compartments
  angle: Field
  style: str


# Relative shares of T zone, follicle, pulp, nest, stroma and wall.
STYLES: dict[str, tuple[float, ...]] = {
  "lymphoid": (6.0, 2.0, 2.0, 0.0, 0.3, 0.2),
  "pulp": (1.0, 0.6, 6.0, 0.0, 0.6, 0.5),
  "tumour": (0.6, 0.1, 0.5, 6.0, 2.0, 0.2),
  "stroma": (0.5, 0.1, 1.0, 1.0, 6.0, 0.8),
  "mixed": (1.0, 0.6, 1.0, 1.5, 1.5, 0.3),
}
STYLE_WEIGHTS = (0.27, 0.23, 0.25, 0.1, 0.15)


def make_field(
  rng: np.random.Generator, shape: tuple[int, int], scale_px: float
) -> Field:
  """Makes smooth Gaussian noise of mean 0 and standard deviation about 1.

  Args:
    rng: source of randomness.
    shape: (y, x) of the result.
    scale_px: distance over which values change, at least 1.

  Returns:
    Cubic interpolation of white noise on a grid of that spacing, float32.
  """
  step = max(float(scale_px), 1.0)
  coarse_shape = [math.ceil(n / step) + 5 for n in shape]
  coarse = rng.standard_normal(coarse_shape).astype(np.float32)
  shift = rng.uniform(0.5, 1.5, 2)
  for axis, num in enumerate(shape):
    coords = np.arange(num) / step + shift[axis]
    base = coords.astype(int)
    weights = _weigh_cubic((coords - base).astype(np.float32))
    moved = np.moveaxis(coarse, axis, 0)
    taken = sum(
      moved[base + k] * weights[k][(...,) + (None,) * (coarse.ndim - 1)]
      for k in range(4)
    )
    coarse = np.moveaxis(np.asarray(taken), 0, axis)
  # B-spline smoothing leaves this much of white noise's deviation, per axis.
  return np.ascontiguousarray(coarse / np.float32(0.6921**2)) * np.float32(1.0)


def _weigh_cubic(t: np.ndarray) -> np.ndarray:
  """Cubic B-spline weights of the four neighbours of fraction t."""
  return (
    np.stack(
      [
        (1 - t) ** 3,
        3 * t**3 - 6 * t**2 + 4,
        -3 * t**3 + 3 * t**2 + 3 * t + 1,
        t**3,
      ]
    )
    / 6
  )


def make_layout(
  rng: np.random.Generator, shape: tuple[int, int], style: str
) -> Layout:
  """Lays out one tissue of the given style."""
  scale_px = rng.uniform(45, 130)
  shares = np.array(STYLES[style]) * rng.lognormal(0, 0.6, len(STYLES[style]))
  shares = shares / shares.sum()
  # The share of a compartment in an argmax of fields grows with its bias.
  scores = [
    make_field(rng, shape, scale_px * rng.uniform(0.6, 1.2))
    + 1.3 * math.log(share + 1e-6)
    if share > 0.005
    else np.full(shape, -np.inf, np.float32)
    for share in shares
  ]
  compartments = (np.argmax(scores, axis=0) + 1).astype(np.uint8)
  angle = math.pi * rng.uniform() + rng.uniform(0.3, 1.2) * make_field(
    rng, shape, rng.uniform(40, 150)
  )
  _add_follicles(rng, compartments, style)
  _add_glands(rng, compartments, angle, style)
  _add_vessels(rng, compartments, angle)
  _add_holes(rng, compartments)
  return Layout(compartments, angle.astype(np.float32), style)


def _add_follicles(
  rng: np.random.Generator, compartments: Compartments, style: str
) -> None:
  mean = {"lymphoid": 2.0, "pulp": 1.0, "mixed": 0.5}.get(style, 0.1)
  for _ in range(rng.poisson(mean * compartments.size / 250_000)):
    distance, _ = _measure_ellipse(
      rng, compartments.shape, rng.uniform(35, 90), 0.7
    )
    compartments[distance < 0] = Compartment.FOLLICLE


def _add_glands(
  rng: np.random.Generator,
  compartments: Compartments,
  angle: Field,
  style: str,
) -> None:
  """Adds rings of cells that stand upright on them; in place."""
  mean = {"tumour": 6.0, "mixed": 3.0, "stroma": 2.0}.get(style, 0.0)
  mean *= rng.uniform() < 0.5
  for _ in range(rng.poisson(mean * compartments.size / 250_000)):
    radius_px = rng.uniform(4, 45)
    distance, tangent = _measure_ellipse(
      rng, compartments.shape, radius_px, rng.uniform(0.5, 1)
    )
    is_ring = distance < rng.uniform(9, 22)
    compartments[is_ring] = Compartment.GLAND
    angle[is_ring] = tangent[is_ring] + math.pi / 2
    compartments[distance < 0] = Compartment.EMPTY


def _add_vessels(
  rng: np.random.Generator, compartments: Compartments, angle: Field
) -> None:
  """Adds lumens with walls, whose cells run around the lumen; in place."""
  rate = rng.choice([0.0, 3.0, 8.0, 16.0], p=[0.2, 0.4, 0.3, 0.1])
  for _ in range(rng.poisson(rate * compartments.size / 250_000)):
    radius_px = rng.choice(
      [rng.uniform(3, 8), rng.uniform(8, 40)], p=[0.8, 0.2]
    )
    wall_px = rng.uniform(2.5, 6) + 0.15 * radius_px
    distance, tangent = _measure_ellipse(
      rng, compartments.shape, radius_px, rng.uniform(0.25, 1)
    )
    is_wall = distance < wall_px
    compartments[is_wall] = Compartment.WALL
    angle[is_wall] = tangent[is_wall]
    if rng.uniform() < 0.7:
      compartments[distance < 0] = Compartment.EMPTY


def _measure_ellipse(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  radius_px: float,
  roundness: float,
) -> tuple[Field, Field]:
  """Signed distance (about) to a random wavy ellipse, and its tangent."""
  y0, x0 = rng.uniform(-0.05, 1.05, 2) * shape
  turn = rng.uniform(0, math.pi)
  y, x = np.ogrid[: shape[0], : shape[1]]
  u = (x - x0) * math.cos(turn) + (y - y0) * math.sin(turn)
  v = (y - y0) * math.cos(turn) - (x - x0) * math.sin(turn)
  v = (v + rng.normal(0, 0.3) * u**2 / (4 * radius_px)) / roundness
  radius = np.hypot(u, v) + 1e-6
  lobes = 1 + 0.12 * np.cos(3 * np.arctan2(v, u) + rng.uniform(0, 6))
  shrink = 0.5 * (1 + roundness)
  distance = (radius - radius_px * lobes) * shrink
  tangent = np.arctan2(v / roundness, u) + turn + math.pi / 2
  return distance.astype(np.float32), tangent.astype(np.float32)


def _add_holes(rng: np.random.Generator, compartments: Compartments) -> None:
  """Adds tears and an empty margin to some images, in place."""
  shape = compartments.shape
  if rng.uniform() < 0.35:
    field = make_field(rng, (shape[0], shape[1]), rng.uniform(12, 60))
    compartments[field > rng.uniform(1.5, 2.6)] = Compartment.EMPTY
  if rng.uniform() < 0.2:
    y, x = np.ogrid[: shape[0], : shape[1]]
    turn = rng.uniform(0, 2 * math.pi)
    ahead = (x / shape[1] - 0.5) * math.cos(turn)
    ahead = ahead + (y / shape[0] - 0.5) * math.sin(turn)
    wave = 0.04 * make_field(rng, (shape[0], shape[1]), rng.uniform(20, 80))
    compartments[ahead + wave > rng.uniform(0.1, 0.45)] = Compartment.EMPTY


def make_fibres(
  rng: np.random.Generator, angle: Field, width_px: float
) -> Field:
  """Draws fibres along a direction field.

  Args:
    rng: source of randomness.
    angle: direction of the fibres at every pixel, radians.
    width_px: their width.

  Returns:
    Float32 (y, x) of 0 (none) to about 3 (a dense bundle).
  """
  noise = rng.standard_normal(angle.shape).astype(np.float32)
  noise = ndimage.gaussian_filter(noise, 0.8)  # Else steps of 2 leave beads.
  y, x = np.mgrid[: angle.shape[0], : angle.shape[1]].astype(np.float32)
  step_y, step_x = np.sin(angle), np.cos(angle)
  total = np.zeros_like(noise)
  # A line integral of noise along the field leaves streaks of its direction.
  for k in range(-8, 9, 2):
    total += ndimage.map_coordinates(
      noise, [y + k * step_y, x + k * step_x], order=1, mode="reflect"
    )
  total = ndimage.gaussian_filter(total, width_px / 2.355)
  total /= max(float(total.std()), 1e-6)
  return np.maximum(total - 0.4, 0)
