"""Reads probability maps, of this project or of Ilastik and its like."""

import numpy as np

from dicexmbd_jax.io import tiff
from dicexmbd_jax.io.source import open_source
from dicexmbd_jax.types import ImageSource


def read_probabilities(source: ImageSource) -> np.ndarray:
  """Reads a TIFF of two or three maps, YXS or CYX, compressed or not.

  Args:
    source: the file, or a member of a zip archive.

  Returns:
    (y, x, c) in the file's dtype, native byte order: nucleus,
    membrane/cytoplasm and, where c is 3, background.

  Raises:
    ValueError: missing, truncated or broken file, or another number of maps.
      One line: file, found, expected.
  """
  shown = source.path / source.member if source.member else source.path
  with open_source(source.path, source.member) as path:
    try:
      pixels = tiff.read_pixels(path)
    except ValueError as error:
      message = str(error).replace(str(path), str(shown))
      raise ValueError(message) from error
  pixels = _order_maps(pixels)
  if pixels.shape[2] not in (2, 3):
    raise ValueError(
      f"{shown}: found {pixels.shape[2]} planes of {pixels.shape[:2]}, "
      "expected 2 or 3 maps: nucleus, membrane, background"
    )
  native = pixels.dtype.newbyteorder("=")
  return np.ascontiguousarray(pixels, dtype=native)


def _order_maps(pixels: np.ndarray) -> np.ndarray:
  """Puts the maps last where a file without axes had them last: (y, x, 3).

  Such a file reads as y planes of x by 3 pixels.
  """
  if pixels.shape[2] not in (2, 3) and pixels.shape[1] in (2, 3):
    return pixels.transpose(2, 0, 1)
  return pixels
