"""Strokes as a person draws them, from masks that are known.

For tests and for research: how much a teacher gains from another hundred
annotated pixels can only be plotted where somebody draws them. The person that
is played here has a brush of one pixel, draws short lines that bend a little,
stays inside one class, and looks after the class that has the fewest strokes.
Where an uncertainty map is given, strokes begin where it is high.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from scipy import ndimage

from dicexmbd_jax.train import targets
from dicexmbd_jax.types import Labels

Strokes = UInt8[np.ndarray, "y x"]  # 0 = none, else the class.
Guide = Float32[np.ndarray, "y x"]

NUCLEUS, RIM, BACKGROUND = 1, 2, 3
# As config.records.rim_fraction: the strokes' classes are the targets'.
RIM_FRACTION = 0.7
SHORTEST_PX, LONGEST_PX = 3, 16  # Of a stroke; cells are about 8 px wide.
BEND_RAD = 0.35  # Standard deviation of the turn at each pixel.
GLANCE_PX = 2.0  # Sigma: an eye takes in an area, not a pixel.

_STEPS = tuple(
  (dy, dx, math.atan2(dy, dx))
  for dy in (-1, 0, 1)
  for dx in (-1, 0, 1)
  if (dy, dx) != (0, 0)
)
_SHARPEST_RAD = math.pi / 2


def classify_pixels(cells: Labels, nuclei: Labels | None = None) -> Strokes:
  """Returns every pixel's class: 1 nucleus, 2 membrane/cytoplasm, 3 background.

  Args:
    cells: whole cells, 0 = background.
    nuclei: their nuclei, any ids. None: what targets.make_target calls
      nucleus with a probability of one half or more.

  Raises:
    ValueError: the two masks differ in size.
  """
  if nuclei is None:
    target = targets.make_target(cells, RIM_FRACTION)
    is_nucleus = target[..., 0] >= 0.5
  elif nuclei.shape != cells.shape:
    raise ValueError(f"found nuclei of {nuclei.shape}, expected {cells.shape}")
  else:
    is_nucleus = nuclei > 0
  classes = np.where(cells > 0, RIM, BACKGROUND)
  return np.where(is_nucleus, NUCLEUS, classes).astype(np.uint8)


def make_guide(uncertainty: Float32[np.ndarray, "y x"]) -> Guide:
  """Returns how much each place invites a stroke: its smoothed uncertainty.

  A map of zeros invites nowhere.
  """
  return ndimage.gaussian_filter(uncertainty.astype(np.float32), GLANCE_PX)


def draw_strokes(
  classes: Strokes,
  drawn: Strokes,
  guide: Guide,
  budget_px: int,
  generator: np.random.Generator,
) -> Strokes:
  """Adds strokes to an annotation.

  Args:
    classes: of every pixel, as from classify_pixels.
    drawn: what is annotated already; never painted over.
    guide: how likely a stroke begins at a pixel, up to a factor; 0: no stroke
      begins or goes there.
    budget_px: pixels to add.
    generator: decides everything random.

  Returns:
    `drawn` with exactly budget_px more pixels, fewer where the classes or
    the guide leave no more; classes have equal numbers of pixels as far as
    there is room, counting what was drawn before.

  Raises:
    ValueError: arrays of different size, or a negative budget.
  """
  _check(classes, drawn, guide, budget_px)
  result = drawn.copy()
  room = np.where((drawn == 0) & (guide > 0), classes, 0)
  counts = np.bincount(drawn.ravel(), minlength=BACKGROUND + 1)
  starts = {
    label: _order_starts(room == label, guide, generator)
    for label in (NUCLEUS, RIM, BACKGROUND)
  }
  left = budget_px
  while left and starts:
    label = min(starts, key=lambda one: counts[one])
    start = next((at for at in starts[label] if room[at]), None)
    if start is None:
      del starts[label]
      continue
    length_px = int(generator.integers(SHORTEST_PX, LONGEST_PX + 1))
    total_px = sum(counts[one] for one in starts) + left
    missing_px = math.ceil(total_px / len(starts)) - counts[label]
    length_px = min(length_px, missing_px, left)
    stroke = _walk(start, room, length_px, generator)
    for at in stroke:
      result[at] = label
      room[at] = 0
    counts[label] += len(stroke)
    left -= len(stroke)
  return result


def share_budget(budget_px: int, names: Sequence[str]) -> dict[str, int]:
  """Spreads a budget evenly over images; the first ones get the remainder.

  Raises:
    ValueError: no image.
  """
  if not names:
    raise ValueError("found no image to annotate, expected at least one")
  each, rest = divmod(budget_px, len(names))
  return {name: each + (k < rest) for k, name in enumerate(names)}


def _check(
  classes: Strokes, drawn: Strokes, guide: Guide, budget_px: int
) -> None:
  for name, other in (("an annotation", drawn), ("an uncertainty map", guide)):
    if other.shape != classes.shape:
      raise ValueError(
        f"found {name} of {other.shape}, expected the masks' {classes.shape}"
      )
  if budget_px < 0:
    raise ValueError(f"found a budget of {budget_px} px, expected 0 or more")


def _order_starts(
  where: np.ndarray, guide: Guide, generator: np.random.Generator
) -> Iterator[tuple[int, int]]:
  """Yields pixels in a random order in which those with more guide come first.

  The order is that of draws without replacement (Efraimidis and Spirakis,
  2006: descending logarithms of uniform numbers, divided by the weights).
  """
  pixels = np.argwhere(where)
  draws = np.log1p(-generator.random(len(pixels)))
  order = np.argsort(-draws / guide[where], kind="stable")
  return ((int(y), int(x)) for y, x in pixels[order])


def _walk(
  start: tuple[int, int],
  room: np.ndarray,
  length_px: int,
  generator: np.random.Generator,
) -> list[tuple[int, int]]:
  """Draws one line from a pixel, inside its class, until it can go no further.

  Of the eight next pixels the one nearest to the heading is taken, never one
  that asks for a sharper turn than a right angle; the heading then is where
  the line went, and bends a little.
  """
  stroke = [start]
  heading = generator.uniform(-math.pi, math.pi)
  while len(stroke) < length_px:
    step = _find_step(stroke, room, heading)
    if step is None:
      break
    dy, dx, angle = step
    stroke.append((stroke[-1][0] + dy, stroke[-1][1] + dx))
    # Half-way to where it went: eight directions would else lock the line.
    heading += _turn(heading, angle) / 2 + generator.normal(0, BEND_RAD)
  return stroke


def _find_step(
  stroke: list[tuple[int, int]], room: np.ndarray, heading: float
) -> tuple[int, int, float] | None:
  y, x = stroke[-1]
  height, width = room.shape
  best, smallest = None, _SHARPEST_RAD
  for dy, dx, angle in _STEPS:
    at = (y + dy, x + dx)
    if not (0 <= at[0] < height and 0 <= at[1] < width) or at in stroke:
      continue
    turn = abs(_turn(heading, angle))
    if room[at] == room[stroke[0]] and turn <= smallest:
      best, smallest = (dy, dx, angle), turn
  return best


def _turn(heading: float, angle: float) -> float:
  """Returns the turn from one direction to another, -pi to pi."""
  return (angle - heading + math.pi) % (2 * math.pi) - math.pi
