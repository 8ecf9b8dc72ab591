"""Doubts the order of three probability maps by what touches what."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

CLASSES = ("nucleus", "membrane", "background")
_WINDOW_PX = 1024  # Edge of the window in the middle that is looked at.
_MIN_SHARE = 0.01  # Of the window: a smaller class tells nothing.
# How much clearer than its rival a sign must be. In right maps the first is
# above 20 and the second above 4; in maps of wrong order they are turned round.
_CLEAR_CONTACT = 5.0
_CLEAR_PIECES = 2.5
_CLEAR_DEPTH = 1.5
_MAX_ROUNDING = 0.005  # Of the sum of two shares of 255.


def find_doubt(
  probabilities: np.ndarray, classes: Sequence[str] = CLASSES
) -> tuple[str, ...]:
  """Says which order the maps seem to have, where it is not the one given.

  Args:
    probabilities: as guess_order takes them, in the order of CLASSES.
    classes: what the maps are called in the order of their file.

  Returns:
    One line, or none.
  """
  if _leave_no_background(probabilities):
    return (
      "found two maps that sum to 1 at every pixel, as of a nucleus and a "
      "background, expected a nucleus and a membrane: cells grow into the "
      "background",
    )
  guessed = guess_order(probabilities)
  if guessed is None or guessed == CLASSES:
    return ()
  meant = dict(zip(CLASSES, guessed, strict=True))
  exchanged = ", ".join(
    f"{name} looks like {other}"
    for name, other in meant.items()
    if name != other
  )
  order = ",".join(meant.get(name, name) for name in classes)
  return (f"{exchanged}: are the maps {order}?",)


def guess_order(probabilities: np.ndarray) -> tuple[str, str, str] | None:
  """Guesses which map is which, where the maps tell.

  The membrane lies between the other two, which hardly touch. Of these nuclei
  are many small pieces, and background is few and deep ones.

  Args:
    probabilities: (y, x, 3) of any real dtype, or (y, x, 2), whose third map is
      what is missing to the highest value of the pixel's sum.

  Returns:
    The maps' names in their order, from CLASSES; None where a class is missing
    or the signs are not clear.
  """
  labels = _find_likeliest(_cut_middle(probabilities))
  shares = np.bincount(labels.ravel(), minlength=3) / labels.size
  if shares.min() < _MIN_SHARE:
    return None
  contacts = _count_contacts(labels)
  least, middle, _ = sorted(contacts, key=contacts.__getitem__)
  if contacts[middle] <= _CLEAR_CONTACT * contacts[least]:
    return None
  nucleus = _find_nucleus(labels, *least)
  if nucleus is None:
    return None
  names = {nucleus: "nucleus", 3 - sum(least): "membrane"}
  first, second, third = (names.get(k, "background") for k in range(3))
  return first, second, third


def _leave_no_background(probabilities: np.ndarray) -> bool:
  """Whether two maps are all that a pixel may be, up to rounding."""
  if probabilities.shape[2] != 2:
    return False
  is_whole = probabilities.dtype.kind in "ui"
  top = np.iinfo(probabilities.dtype).max if is_whole else 1
  total = _cut_middle(probabilities).sum(axis=2, dtype=np.float64) / top
  return bool((np.abs(total - 1) < _MAX_ROUNDING).all())


def _cut_middle(probabilities: np.ndarray) -> np.ndarray:
  starts = [max(0, (size - _WINDOW_PX) // 2) for size in probabilities.shape]
  top, left = starts[:2]
  return probabilities[top : top + _WINDOW_PX, left : left + _WINDOW_PX]


def _find_likeliest(maps: np.ndarray) -> np.ndarray:
  if maps.shape[2] == 2:
    total = maps.sum(axis=2, dtype=np.float64)
    maps = np.dstack([maps, total.max() - total])
  return maps.argmax(axis=2)


def _count_contacts(labels: np.ndarray) -> dict[tuple[int, int], int]:
  """Counts neighbouring pixels of each pair of classes."""
  pairs = np.zeros((3, 3), int)
  for one, other in (
    (labels[1:], labels[:-1]),
    (labels[:, 1:], labels[:, :-1]),
  ):
    counts = np.bincount(3 * one.ravel() + other.ravel(), minlength=9)
    pairs += counts.reshape(3, 3)
  return {
    (i, k): int(pairs[i, k] + pairs[k, i]) for i, k in ((0, 1), (0, 2), (1, 2))
  }


def _find_nucleus(labels: np.ndarray, one: int, other: int) -> int | None:
  """Finds the class of more and shallower pieces; None if it is not clear."""
  count, depth = _measure_pieces(labels == one)
  rival_count, rival_depth = _measure_pieces(labels == other)
  if count < rival_count:
    one, other = other, one
    count, rival_count = rival_count, count
    depth, rival_depth = rival_depth, depth
  is_clear = (
    count > _CLEAR_PIECES * rival_count and rival_depth > _CLEAR_DEPTH * depth
  )
  return one if is_clear else None


def _measure_pieces(mask: np.ndarray) -> tuple[int, float]:
  """Returns the number of pieces and how far their pixels lie from the edge."""
  _, count = ndimage.label(mask)
  return int(count), float(ndimage.distance_transform_edt(mask).max())
