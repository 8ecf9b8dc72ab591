"""What to annotate next, and when to stop (paper, section 2.3).

After each round the images are ordered by their mean uncertainty, and the most
uncertain are annotated next. The paper stops when no image's uncertainty falls
for three rounds. Read here as: an image falls in a round when its mean lies
below the lowest mean of all its earlier rounds by more than MIN_FALL; a round
in which no image falls is quiet; three quiet rounds in a row are the end. An
image's first round is no fall, and the first round of all is not quiet.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from dicexmbd_jax.teach.uncertainty import Uncertainty

Means = Mapping[str, float]  # Image -> mean uncertainty, 0..1.

QUIET_ROUNDS = 3  # Paper, section 2.3.
# Of a scale from 0 to 1. Another seed of the forest alone moves an image of the
# spleen by a standard deviation of 0.002 to 0.008.
MIN_FALL = 0.005


@dataclasses.dataclass(frozen=True)
class Region:
  """A rectangle of an image: where to paint next.

  Attributes:
    y_px: first row.
    x_px: first column.
    height_px: rows.
    width_px: columns.
    uncertainty: mean inside.
  """

  y_px: int
  x_px: int
  height_px: int
  width_px: int
  uncertainty: float

  @property
  def slices(self) -> tuple[slice, slice]:
    """Rows and columns, to index an array."""
    return (
      slice(self.y_px, self.y_px + self.height_px),
      slice(self.x_px, self.x_px + self.width_px),
    )


def rank_images(means: Means) -> list[str]:
  """Returns the images from the most uncertain to the least; ties by name."""
  return sorted(means, key=lambda image: (-means[image], image))


def find_regions(
  uncertainty: Uncertainty, num_regions: int, edge_px: int
) -> list[Region]:
  """Finds the most uncertain squares of an image, which do not overlap.

  Args:
    uncertainty: 0..1.
    num_regions: how many at most.
    edge_px: of a square, or the image's where that is smaller.

  Returns:
    The square with the highest mean, then the highest of those that do not
    overlap it, and so on; of equal ones the first in reading order. Fewer
    where there is no room.

  Raises:
    ValueError: not (y, x) with pixels, or numbers below 1.
  """
  if uncertainty.ndim != 2 or not uncertainty.size:
    raise ValueError(
      f"uncertainty: found shape {uncertainty.shape}, expected (y, x)"
    )
  if num_regions < 1 or edge_px < 1:
    raise ValueError(
      f"found {num_regions} regions of {edge_px} px, expected 1 or more"
    )
  height, width = (min(edge_px, size) for size in uncertainty.shape)
  means = _average_windows(uncertainty, height, width)
  found: list[Region] = []
  while len(found) < num_regions and means.max() >= 0:
    y, x = (int(i) for i in np.unravel_index(means.argmax(), means.shape))
    found.append(Region(y, x, height, width, float(means[y, x])))
    top, left = max(0, y - height + 1), max(0, x - width + 1)
    means[top : y + height, left : x + width] = -1
  return found


def add_round(history: Sequence[Means], means: Means) -> list[Means]:
  """Returns the history with one more round.

  The same numbers as the last round's are the same round: nothing was drawn
  in between, or the command ran twice.
  """
  if history and dict(history[-1]) == dict(means):
    return list(history)
  return [*history, dict(means)]


def list_falls(history: Sequence[Means], number: int) -> list[str]:
  """Returns the images that fall in a round, as this module defines it.

  Args:
    history: the means of every round, the first one first.
    number: index of the round.
  """
  falls = []
  for image, mean in history[number].items():
    earlier = [one[image] for one in history[:number] if image in one]
    if earlier and mean < min(earlier) - MIN_FALL:
      falls.append(image)
  return falls


def count_quiet_rounds(history: Sequence[Means]) -> int:
  """Returns how many rounds in a row, up to the last, no image fell."""
  quiet = 0
  for number in range(len(history) - 1, 0, -1):
    if list_falls(history, number):
      break
    quiet += 1
  return quiet


def should_stop(history: Sequence[Means]) -> bool:
  """Whether no image's uncertainty has fallen for three rounds."""
  return count_quiet_rounds(history) >= QUIET_ROUNDS


@dataclasses.dataclass(frozen=True)
class Round:
  """One point of the curve.

  Attributes:
    round: from 1.
    images: how many were measured.
    uncertainty: the mean over the images.
    fell: in how many it fell.
    quiet_rounds: how many rounds in a row, up to this, it fell in none.
    stop: whether these are enough.
  """

  round: int
  images: int
  uncertainty: float
  fell: int
  quiet_rounds: int
  stop: bool


def trace_rounds(history: Sequence[Means]) -> list[Round]:
  """Returns the curve: a point for every round."""
  return [
    Round(
      round=number,
      images=len(means),
      uncertainty=round(float(np.mean(list(means.values()))), 6),
      fell=len(list_falls(history, number - 1)),
      quiet_rounds=count_quiet_rounds(history[:number]),
      stop=should_stop(history[:number]),
    )
    for number, means in enumerate(history, 1)
  ]


def describe_round(
  history: Sequence[Means], chosen: Sequence[str]
) -> list[str]:
  """Says how the round went and what to do next, a line each."""
  means = history[-1]
  mean = float(np.mean(list(means.values())))
  falls = list_falls(history, len(history) - 1)
  told = (
    f"round {len(history)}: {len(means)} images, mean uncertainty {mean:.3f}, "
    f"fell in {len(falls)}"
  )
  if should_stop(history):
    quiet = count_quiet_rounds(history)
    return [told, f"stop: no image's uncertainty fell for {quiet} rounds"]
  parts = [f"{stem} ({means[stem]:.3f})" for stem in chosen]
  return [told, f"annotate next: {', '.join(parts)}"]


def _average_windows(
  values: Uncertainty, height: int, width: int
) -> Float64[np.ndarray, "y x"]:
  """Returns the mean of every window, at its first row and column."""
  sums = np.pad(values.astype(np.float64), ((1, 0), (1, 0)))
  sums = sums.cumsum(axis=0).cumsum(axis=1)
  inside = sums[height:, width:] - sums[:-height, width:]
  inside -= sums[height:, :-width] - sums[:-height, :-width]
  # Sums leave rounding errors, which would order windows that are equal.
  return np.round(np.maximum(inside, 0) / (height * width), 9)


def shrink_map(uncertainty: Uncertainty, shape: tuple[int, int]) -> Uncertainty:
  """Brings a map of a finer grid to that of the image, by means of blocks.

  Args:
    uncertainty: on the image's grid, or a whole number of times as fine.
    shape: rows and columns of the image.

  Raises:
    ValueError: the map's shape is no whole multiple of the image's.
  """
  factor = uncertainty.shape[0] // max(1, shape[0])
  if factor < 1 or uncertainty.shape != (shape[0] * factor, shape[1] * factor):
    raise ValueError(
      f"found an uncertainty map of {uncertainty.shape}, expected the image's "
      f"{shape} or a whole multiple"
    )
  blocks = uncertainty.reshape(shape[0], factor, shape[1], factor)
  return blocks.mean(axis=(1, 3), dtype=np.float32)
