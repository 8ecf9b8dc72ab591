"""Tissue architecture: which compartment lies where, and which way it runs."""

import dataclasses
import enum
import math

import numpy as np
from jaxtyping import UInt8

from dicexmbd_jax.simulate.noise import Field, make_field

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


def make_layout(
  rng: np.random.Generator, shape: tuple[int, int], style: str
) -> Layout:
  """Lays out one tissue.

  Args:
    rng: source of randomness.
    shape: (y, x) in um.
    style: a key of `STYLES`.
  """
  compartments = _draw_regions(rng, shape, STYLES[style])
  angle = math.pi * rng.uniform() + rng.uniform(0.3, 1.2) * make_field(
    rng, shape, rng.uniform(40, 150)
  )
  layout = Layout(compartments, angle.astype(np.float32), style)
  layout = _add_follicles(rng, layout)
  layout = _add_glands(rng, layout)
  layout = _add_vessels(rng, layout)
  return _add_margin(rng, _add_tears(rng, layout))


def _draw_regions(
  rng: np.random.Generator, shape: tuple[int, int], shares: tuple[float, ...]
) -> Compartments:
  """Parts the tissue between the compartments, about in these shares."""
  scale_px = rng.uniform(45, 130)
  varied = np.array(shares) * rng.lognormal(0, 0.6, len(shares))
  varied = varied / varied.sum()
  # The share of a compartment in an argmax of fields grows with its bias.
  scores = [
    make_field(rng, shape, scale_px * rng.uniform(0.6, 1.2))
    + 1.3 * math.log(share + 1e-6)
    if share > 0.005
    else np.full(shape, -np.inf, np.float32)
    for share in varied
  ]
  return (np.argmax(scores, axis=0) + 1).astype(np.uint8)


def _draw_number(
  rng: np.random.Generator, layout: Layout, per_image: float
) -> int:
  """Draws a number of structures, given their mean on 500 x 500 um."""
  return int(rng.poisson(per_image * layout.compartments.size / 250_000))


def _fill(
  layout: Layout, where: np.ndarray, value: Compartment, angle: Field | None
) -> Layout:
  """Gives pixels to another compartment, and another direction if given."""
  compartments = np.where(where, np.uint8(value), layout.compartments)
  if angle is not None:
    angle = np.where(where, angle, layout.angle).astype(np.float32)
  return Layout(
    compartments, layout.angle if angle is None else angle, layout.style
  )


def _add_follicles(rng: np.random.Generator, layout: Layout) -> Layout:
  rates = {"lymphoid": 2.0, "pulp": 1.0, "mixed": 0.5}
  for _ in range(_draw_number(rng, layout, rates.get(layout.style, 0.1))):
    distance, _ = _measure_ellipse(
      rng, layout.compartments.shape, rng.uniform(35, 90), 0.7
    )
    layout = _fill(layout, distance < 0, Compartment.FOLLICLE, None)
  return layout


def _add_glands(rng: np.random.Generator, layout: Layout) -> Layout:
  """Adds rings of cells that stand upright on a lumen."""
  rates = {"tumour": 6.0, "mixed": 3.0, "stroma": 2.0}
  rate = rates.get(layout.style, 0.0) * (rng.uniform() < 0.5)
  for _ in range(_draw_number(rng, layout, rate)):
    distance, tangent = _measure_ellipse(
      rng, layout.compartments.shape, rng.uniform(4, 45), rng.uniform(0.5, 1)
    )
    is_ring = distance < rng.uniform(9, 22)
    upright = tangent + np.float32(math.pi / 2)
    layout = _fill(layout, is_ring, Compartment.GLAND, upright)
    layout = _fill(layout, distance < 0, Compartment.EMPTY, None)
  return layout


def _add_vessels(rng: np.random.Generator, layout: Layout) -> Layout:
  """Adds lumens with walls, whose cells run around the lumen."""
  rate = float(rng.choice([0.0, 3.0, 8.0, 16.0], p=[0.2, 0.4, 0.3, 0.1]))
  for _ in range(_draw_number(rng, layout, rate)):
    is_large = rng.uniform() < 0.2
    radius_px = rng.uniform(8, 40) if is_large else rng.uniform(3, 8)
    wall_px = rng.uniform(2.5, 6) + 0.15 * radius_px
    distance, tangent = _measure_ellipse(
      rng, layout.compartments.shape, radius_px, rng.uniform(0.25, 1)
    )
    layout = _fill(layout, distance < wall_px, Compartment.WALL, tangent)
    if rng.uniform() < 0.7:
      layout = _fill(layout, distance < 0, Compartment.EMPTY, None)
  return layout


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


def _add_tears(rng: np.random.Generator, layout: Layout) -> Layout:
  """Adds holes to some images."""
  if rng.uniform() >= 0.35:
    return layout
  field = make_field(rng, layout.compartments.shape, rng.uniform(12, 60))
  is_torn = field > rng.uniform(1.5, 2.6)
  return _fill(layout, is_torn, Compartment.EMPTY, None)


def _add_margin(rng: np.random.Generator, layout: Layout) -> Layout:
  """Ends the section inside some images, at a wavy edge."""
  if rng.uniform() >= 0.2:
    return layout
  shape = layout.compartments.shape
  y, x = np.ogrid[: shape[0], : shape[1]]
  turn = rng.uniform(0, 2 * math.pi)
  ahead = (x / shape[1] - 0.5) * math.cos(turn)
  ahead = ahead + (y / shape[0] - 0.5) * math.sin(turn)
  wave = 0.04 * make_field(rng, shape, rng.uniform(20, 80))
  is_glass = ahead + wave > rng.uniform(0.1, 0.45)
  return _fill(layout, is_glass, Compartment.EMPTY, None)
