"""Training patches of one size from images of any size.

Where patches lie is decided by shapes alone; cutting knows pixels only. A patch
that reaches beyond the image is padded at its bottom and right, as in the paper
(section 2.4.1).
"""

import hashlib
from collections.abc import Sequence

import numpy as np

Origin = tuple[int, int]  # (y, x) of a patch's first pixel, in the image.


def plan_grid(
  shape: tuple[int, int], patch_px: int, stride_px: int
) -> list[Origin]:
  """Lays patches on a grid so that every pixel is in at least one.

  With a stride equal to the patch, every pixel is in exactly one. The last
  row and column of patches are those that reach the image's end.

  Args:
    shape: rows and columns of the image, at least 1 each.
    patch_px: edge of a patch.
    stride_px: from patch to patch, 1 to `patch_px`; less than that overlaps.

  Raises:
    ValueError: an empty image, or a stride that would lose pixels.
  """
  _check_sizes(shape, patch_px)
  if not 1 <= stride_px <= patch_px:
    raise ValueError(
      f"stride_px: found {stride_px}, expected 1 to the patch's {patch_px}; "
      "more would lose pixels"
    )
  rows, columns = (
    range(0, max(size - patch_px, 0) + stride_px, stride_px) for size in shape
  )
  return [(y, x) for y in rows for x in columns]


def draw_origins(
  shape: tuple[int, int], patch_px: int, number: int, words: Sequence[object]
) -> list[Origin]:
  """Draws places at random, uniformly among those inside the image.

  Along an axis shorter than the patch there is one place, 0.

  Args:
    shape: rows and columns of the image, at least 1 each.
    patch_px: edge of a patch.
    number: how many different places, or all where there are fewer.
    words: what decides the places, as seed and image name: the same words
      give the same places, whatever other images there are.

  Returns:
    The places in the order of rows, then columns.

  Raises:
    ValueError: an empty image, or a number below 1.
  """
  _check_sizes(shape, patch_px)
  if number < 1:
    raise ValueError(f"num_random: found {number}, expected at least 1")
  text = "|".join(str(word) for word in words)
  digest = hashlib.sha256(text.encode()).digest()
  rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
  rows, columns = (max(size - patch_px, 0) + 1 for size in shape)
  number = min(number, rows * columns)
  places = rng.choice(rows * columns, size=number, replace=False)
  return [divmod(int(place), columns) for place in np.sort(places)]


def cut_patch(
  pixels: np.ndarray,
  origin: Origin,
  patch_px: int,
  fill: float | Sequence[float] = 0,
) -> np.ndarray:
  """Cuts one patch and pads it at its bottom and right.

  Args:
    pixels: (y, x, c), any dtype.
    origin: first row and column of the patch, inside the image.
    patch_px: its edge.
    fill: value of the padding, one or one per channel.

  Returns:
    (patch_px, patch_px, c), of the same dtype; a copy.
  """
  y, x = origin
  piece = pixels[y : y + patch_px, x : x + patch_px]
  patch = np.empty((patch_px, patch_px, pixels.shape[2]), pixels.dtype)
  patch[:] = fill
  patch[: piece.shape[0], : piece.shape[1]] = piece
  return patch


def _check_sizes(shape: tuple[int, int], patch_px: int) -> None:
  if min(shape) < 1:
    raise ValueError(f"found an image of {shape} px, expected at least 1 x 1")
  if patch_px < 1:
    raise ValueError(f"patch_px: found {patch_px}, expected at least 1")
