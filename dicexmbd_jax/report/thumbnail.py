"""Small JPEGs of an overlay, as text that fits inside a page or a JSON file."""

import base64
import bisect
import dataclasses
import functools
import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import Real
from PIL import Image as pillow

# Longest edges, in pixels, and the most bytes that each JPEG may take.
OVERVIEW_PX, OVERVIEW_BYTES = 720, 110_000
DETAIL_PX, DETAIL_BYTES = 480, 75_000
SMALL_PX, SMALL_BYTES = 128, 6_000
# A picture of no less than this share of its edge is made of means of whole
# pixels, in a quarter of the time.
_LEAST_WHOLE = 0.9
QUALITIES = (88, 80, 70, 60, 50, 40, 30)


@dataclasses.dataclass(frozen=True)
class Picture:
  """A JPEG as base64 text.

  Attributes:
    jpeg: base64 of the file.
    width_px: of the JPEG.
    height_px: of the JPEG.
    width_um: of the tissue that it shows.
  """

  jpeg: str
  width_px: int
  height_px: int
  width_um: float


def make_pictures(
  overlay: pillow.Image,
  centroids_px: Real[np.ndarray, "n 2"],
  um_per_px: float,
) -> Mapping[str, Picture]:
  """Returns an overlay's `small`, `overview` and `detail` pictures.

  The detail is the window of 480 overlay pixels with the most cells; it is left
  out where there are no cells or the overview already shows every pixel.

  Args:
    overlay: of any mode; without pixels there are no pictures.
    centroids_px: y, x of every cell, in overlay pixels.
    um_per_px: size of an overlay pixel.
  """
  if 0 in overlay.size:
    return {}
  # Of a large picture no copy.
  rgb = overlay if overlay.mode == "RGB" else overlay.convert("RGB")
  width_um = float(rgb.width * um_per_px)
  overview = _shrink(rgb, OVERVIEW_PX)
  pictures = {
    "small": _make_picture(_shrink(overview, SMALL_PX), SMALL_BYTES, width_um),
    "overview": _make_picture(overview, OVERVIEW_BYTES, width_um),
  }
  if len(centroids_px) and max(rgb.size) > OVERVIEW_PX:
    rows, columns = find_crowd((rgb.height, rgb.width), centroids_px)
    window = rgb.crop((columns.start, rows.start, columns.stop, rows.stop))
    pictures["detail"] = _make_picture(
      window, DETAIL_BYTES, float(window.width * um_per_px)
    )
  return pictures


def find_crowd(
  shape: tuple[int, ...], centroids_px: Real[np.ndarray, "n 2"]
) -> tuple[slice, slice]:
  """Returns the window of `DETAIL_PX` (or the image's edge) with most cells.

  Windows start at multiples of half their edge, and at the far edge; of equal
  ones the first in reading order is taken.
  """
  edges = [min(DETAIL_PX, length) for length in shape]
  starts = [
    np.unique(
      np.append(np.arange(0, n - edge + 1, max(1, edge // 2)), n - edge)
    )
    for n, edge in zip(shape, edges, strict=True)
  ]
  inside = [
    (centroids_px[:, i, None] >= starts[i])
    & (centroids_px[:, i, None] < starts[i] + edges[i])
    for i in (0, 1)
  ]
  counts = inside[0].T.astype(np.int64) @ inside[1].astype(np.int64)
  best = np.unravel_index(counts.argmax(), counts.shape)
  row, column = (int(starts[i][best[i]]) for i in (0, 1))
  return slice(row, row + edges[0]), slice(column, column + edges[1])


def _shrink(picture: pillow.Image, edge_px: int) -> pillow.Image:
  """Returns a picture of at most `edge_px`; a smaller one as it is."""
  longest = max(picture.size)
  factor = -(-longest // edge_px)
  if factor == 1:
    return picture
  if longest >= _LEAST_WHOLE * factor * edge_px:
    return picture.reduce(factor)
  # Means of whole pixels first, as far as they go; then the filter that is as
  # sharp as cubic ones in half their time.
  width, height = (
    max(1, round(length * edge_px / longest)) for length in picture.size
  )
  return picture.resize(
    (width, height), pillow.Resampling.HAMMING, reducing_gap=1.0
  )


def _make_picture(
  picture: pillow.Image, max_bytes: int, width_um: float
) -> Picture:
  """Encodes a picture, shrunk to where it takes at most `max_bytes`."""
  jpeg = _encode_jpeg(picture, max_bytes)
  while len(jpeg) > max_bytes and picture.width > 1 and picture.height > 1:
    picture = picture.reduce(2)
    jpeg = _encode_jpeg(picture, max_bytes)
  return Picture(
    jpeg=base64.b64encode(jpeg).decode("ascii"),
    width_px=picture.width,
    height_px=picture.height,
    width_um=width_um,
  )


def _encode_jpeg(picture: pillow.Image, max_bytes: int) -> bytes:
  """Returns the best JPEG of at most `max_bytes`, else the smallest one."""

  @functools.cache
  def encode(quality: int) -> bytes:
    buffer = io.BytesIO()
    # Full colour resolution at high quality keeps one-pixel outlines sharp.
    sampling = 0 if quality >= 70 else 2
    # Not optimize=True: Pillow's buffer for it is too small for pure noise.
    picture.save(buffer, "JPEG", quality=quality, subsampling=sampling)
    return buffer.getvalue()

  def fits(quality: int) -> bool:
    return len(encode(quality)) <= max_bytes

  first = bisect.bisect_left(QUALITIES[:-1], True, key=fits)
  return encode(QUALITIES[first])
