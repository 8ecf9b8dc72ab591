"""Chooses the images of a TIFF that are its channels, among others in it."""

import json
from collections.abc import Callable, Sequence

import tifffile

Series = tifffile.TiffPageSeries
_COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
_MIN_SHRINK = 4  # An image with this many times fewer pixels is a thumbnail.
_MAX_DISTORTION = 1.05  # Of a thumbnail's edges.
_MAX_DESCRIPTION = 1 << 20


def choose_series(
  found: Sequence[Series], is_ome: bool
) -> tuple[list[Series], tuple[str, ...]] | None:
  """Takes the only series, or all where each is one plane of the same shape.

  What cannot be a channel beside the others is passed over: reduced images,
  pictures in colour (an optical page), MIBI's pages of other kinds than ions,
  single planes of another size than the stack's, thumbnails.

  Args:
    found: the series of a file, one or more.
    is_ome: whether it is an OME-TIFF, whose series are images each.

  Returns:
    The series, and a warning where others were passed over; None where several
    images are left.
  """
  left = list(found)
  for is_other in _KINDS:
    if _is_image(left, is_ome):
      break
    others = [one for one in left if is_other(one, left)]
    if len(others) < len(left):
      left = [one for one in left if one not in others]
  if not _is_image(left, is_ome):
    return None
  passed = [one for one in found if one not in left]
  if not passed:
    return left, ()
  return left, (f"passed over beside the channels: {describe(passed)}",)


def describe(found: Sequence[Series]) -> str:
  """Lists axes and sizes of the first few."""
  shown = ", ".join(f"{one.axes} {one.shape}" for one in found[:4])
  return shown + (f" and {len(found) - 4} more" if len(found) > 4 else "")


def _is_image(found: Sequence[Series], is_ome: bool) -> bool:
  shapes = {(one.shape, str(one.dtype)) for one in found}
  is_stack = len(shapes) == 1 and found[0].axes == "YX" and not is_ome
  return len(found) == 1 or is_stack


def _is_reduced(one: Series, _: Sequence[Series]) -> bool:
  return bool(one.keyframe.is_reduced)


def _is_other_kind(one: Series, _: Sequence[Series]) -> bool:
  """Whether MIBI's description says that these are no counts of ions."""
  text = one.keyframe.description
  if not text.startswith("{") or len(text) > _MAX_DESCRIPTION:
    return False
  try:
    return json.loads(text).get("image.type", "SIMS") != "SIMS"
  except (ValueError, RecursionError):
    return False


def _is_coloured(one: Series, _: Sequence[Series]) -> bool:
  return "S" in one.axes and one.keyframe.photometric in _COLOURS


def _is_single(one: Series, others: Sequence[Series]) -> bool:
  """Whether this is one plane of another size than a stack beside it."""
  sizes = {_size(other) for other in others if len(other.shape) > 2}
  return len(one.shape) == 2 and bool(sizes) and _size(one) not in sizes


def _is_thumbnail(one: Series, others: Sequence[Series]) -> bool:
  height, width = max((_size(other) for other in others), key=_count)
  low, high = _size(one)
  if not min(low, high) or _count((low, high)) * _MIN_SHRINK > height * width:
    return False
  ratio = (height / low) / (width / high)
  return 1 / _MAX_DISTORTION <= ratio <= _MAX_DISTORTION


def _size(one: Series) -> tuple[int, int]:
  return one.keyframe.imagelength, one.keyframe.imagewidth


def _count(size: tuple[int, int]) -> int:
  return size[0] * size[1]


_KINDS: tuple[Callable[[Series, Sequence[Series]], bool], ...] = (
  _is_reduced,
  _is_other_kind,
  _is_coloured,
  _is_single,
  _is_thumbnail,
)
