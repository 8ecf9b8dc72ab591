"""The outlines of objects as polygons along the edges of their pixels."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from dicexmbd_jax.types import Labels

Ring = list[tuple[int, int]]  # x, y of its corners; the first one ends it.
Polygon = list[Ring]  # The outer ring, then those of the holes.
_FOUR = ndimage.generate_binary_structure(2, 1)


def trace_labels(labels: Labels) -> dict[int, list[Polygon]]:
  """Traces every object of a mask.

  Corners are corners of pixels: the pixel of column x and row y covers x to
  x + 1 and y to y + 1, so that filling the polygons gives the mask again, and
  areas are numbers of pixels. Points along a straight edge are left out.

  Args:
    labels: 0 is background.

  Returns:
    By id, in order, the polygons of its pieces: pixels that share an edge are
    of one piece, pixels that share a corner alone are not.
  """
  found = {}
  for index, box in enumerate(ndimage.find_objects(labels)):
    if box is not None:
      start = (box[1].start, box[0].start)
      found[index + 1] = trace_object(labels[box] == index + 1, start)
  return found


def trace_object(
  is_inside: Bool[np.ndarray, "y x"], start: tuple[int, int] = (0, 0)
) -> list[Polygon]:
  """Traces one object.

  Args:
    is_inside: its pixels.
    start: x and y of the first pixel.

  Returns:
    A polygon per piece, in the order of their first pixels.
  """
  pieces, num_pieces = ndimage.label(is_inside, _FOUR)
  polygons: list[Polygon] = [[] for _ in range(num_pieces)]
  for ring, is_hole, piece in _trace_rings(pieces):
    moved = [(x + start[0], y + start[1]) for x, y in ring]
    polygon = polygons[piece - 1]
    polygon.insert(len(polygon) if is_hole else 0, moved)
  return polygons


def _trace_rings(pieces: Labels) -> Iterator[tuple[Ring, bool, int]]:
  """Yields closed rings, whether each is a hole, and the piece it is of."""
  padded = np.pad(pieces, 1)
  steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
  owners: dict[tuple[int, int, int, int], int] = {}
  for begin, end, owner in _list_edges(padded):
    steps.setdefault(begin, []).append(end)
    owners[begin + end] = owner
  while steps:
    first = next(iter(steps))
    owner = owners[first + steps[first][0]]
    ring = _follow(steps, first)
    yield _drop_straight(ring), _is_hole(ring), owner


def _list_edges(
  padded: Labels,
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
  """Yields an object's edges, each with the object on its right hand.

  On a picture, whose y points down: the outer ring runs clockwise.
  """
  inner = padded[1:-1, 1:-1]
  # Neighbour's place, then where the edge begins and ends, from the pixel's.
  for dy, dx, begin, end in (
    (-1, 0, (0, 0), (1, 0)),
    (0, 1, (1, 0), (1, 1)),
    (1, 0, (1, 1), (0, 1)),
    (0, -1, (0, 1), (0, 0)),
  ):
    rows, columns = padded.shape
    other = padded[1 + dy : rows - 1 + dy, 1 + dx : columns - 1 + dx]
    y, x = np.nonzero((inner > 0) & (other == 0))
    for row, column in zip(y.tolist(), x.tolist(), strict=True):
      yield (
        (column + begin[0], row + begin[1]),
        (column + end[0], row + end[1]),
        int(inner[row, column]),
      )


def _follow(
  steps: dict[tuple[int, int], list[tuple[int, int]]], first: tuple[int, int]
) -> Ring:
  """Takes a ring out of the steps that are left; the first corner ends it.

  Where two rings meet in a corner it turns right, back to its own piece.
  """
  ring = [first]
  point, last = first, (0, 0)
  while len(ring) == 1 or point != first:
    ends = steps[point]
    right = (point[0] - last[1], point[1] + last[0])
    end = right if len(ends) > 1 and right in ends else ends[0]
    ends.remove(end)
    if not ends:
      del steps[point]
    last = (end[0] - point[0], end[1] - point[1])
    point = end
    ring.append(end)
  return ring


def _drop_straight(ring: Ring) -> Ring:
  corners = np.array(ring[:-1])
  before, after = np.roll(corners, 1, 0), np.roll(corners, -1, 0)
  is_corner = ((after - corners) != (corners - before)).any(-1)
  kept = [(int(x), int(y)) for x, y in corners[is_corner]]
  return [*kept, kept[0]]


def _is_hole(ring: Ring) -> bool:
  x, y = np.array(ring).T
  return bool(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) < 0)
