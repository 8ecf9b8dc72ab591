"""What an enlarged overlay is drawn with: loops over its pixels.

The results are those of enlarge_channel, code_channels, enlarge_labels and
find_outlines of `overlay`, which would make several pictures of full size.
"""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def fill_codes(nuclear, membrane, codes):
  """Writes the colours' places of two channels, enlarged.

  A pixel's centre lies between those of two old ones, whose values are mixed by
  eighths: along rows first, rounded, then along columns, as Pillow does it.

  Args:
    nuclear: uint8 (y, x).
    membrane: the same.
    codes: uint8 (y * k, x * k) with k 2 or 4; is written to.
  """
  factor = len(codes) // len(nuclear)
  nuclear, membrane = widen(nuclear, factor), widen(membrane, factor)
  last = len(nuclear) - 1
  # Unsigned and of 32 bits, so that eight pixels are computed at a time.
  half = np.uint32(4)
  for y in range(len(codes)):
    old, eighths = y // factor, find_eighths(y % factor, factor)
    other = max(old - 1, 0) if eighths < 0 else min(old + 1, last)
    share = np.uint32(abs(eighths))
    rest = np.uint32(8) - share
    nuclear_0, nuclear_1 = nuclear[old], nuclear[other]
    membrane_0, membrane_1 = membrane[old], membrane[other]
    row = codes[y]
    for x in range(len(row)):
      blue = np.uint32(nuclear_0[x] * rest + nuclear_1[x] * share + half) >> 3
      green = (
        np.uint32(membrane_0[x] * rest + membrane_1[x] * share + half) >> 3
      )
      # Rounded to 15 and 14 steps of 255: NUM_NUCLEAR_LEVELS - 1, and so on.
      blue = np.uint32(blue * np.uint32(241) + np.uint32(2048)) >> 12
      green = np.uint32(green * np.uint32(1799) + np.uint32(16384)) >> 15
      row[x] = blue * np.uint32(15) + green


@compile_kernel
def find_eighths(place, factor):
  """Returns where one of the new pixels in an old one lies, from its centre.

  Args:
    place: 0..factor - 1.
    factor: 2 or 4.

  Returns:
    Eighths of an old pixel: -2 and 2 for 2; -3, -1, 1 and 3 for 4.
  """
  return (2 * place + 1 - factor) * 4 // factor


@compile_kernel
def widen(channel, factor):
  """Enlarges a channel, uint8 (y, x), along its rows."""
  height, width = channel.shape
  wide = np.empty((height, width * factor), np.uint8)
  for y in range(height):
    for x in range(width):
      here = channel[y, x]
      before = channel[y, max(x - 1, 0)]
      after = channel[y, min(x + 1, width - 1)]
      for place in range(factor):
        eighths = find_eighths(place, factor)
        other = before if eighths < 0 else after
        mixed = here * (8 - abs(eighths)) + other * abs(eighths)
        wide[y, x * factor + place] = (mixed + 4) >> 3
  return wide


@compile_kernel
def double_labels(labels):
  """Enlarges labels by 2, cutting the corners of their staircases.

  Args:
    labels: (y, x). 0 5 above 5 5 gives 0 0 5 5, 0 5 5 5 and twice 5 5 5 5.

  Returns:
    The same dtype, (2 y, 2 x).
  """
  height, width = labels.shape
  double = np.empty((2 * height, 2 * width), labels.dtype)
  for y in range(height):
    for x in range(width):
      for row in range(2):
        for column in range(2):
          double[2 * y + row, 2 * x + column] = pick_label(
            labels, y, x, row, column
          )
  return double


@compile_kernel
def pick_label(labels, y, x, row, column):
  """Returns the label of one of the four pixels that a pixel becomes.

  Args:
    labels: (y, x).
    y: of the old pixel.
    x: of the old pixel.
    row: 0 for the upper ones, 1 for the lower ones.
    column: 0 for those on the left, 1 for those on the right.
  """
  above = labels[max(y - 1, 0), x]
  below = labels[min(y + 1, labels.shape[0] - 1), x]
  left = labels[y, max(x - 1, 0)]
  right = labels[y, min(x + 1, labels.shape[1] - 1)]
  upright = below if row else above
  beside = right if column else left
  if above != below and left != right and upright == beside:
    return upright
  return labels[y, x]


@compile_kernel
def draw_outlines(labels, codes, colour):
  """Draws the outlines of labels that are enlarged by 2.

  Args:
    labels: (y, x).
    codes: uint8 (2 y, 2 x); becomes `colour` where the enlarged labels differ
      from those below or to the right.
    colour: uint8.
  """
  height, width = labels.shape
  for y in range(height):
    for x in range(width):
      here = labels[y, x]
      # Then all that the eight pixels in question can become is this label.
      if (
        here == labels[max(y - 1, 0), x]
        and here == labels[min(y + 1, height - 1), x]
        and here == labels[y, max(x - 1, 0)]
        and here == labels[y, min(x + 1, width - 1)]
      ):
        continue
      for row in range(2):
        for column in range(2):
          own = pick_label(labels, y, x, row, column)
          # One step down, one to the right: in this pixel, or in the next one.
          down, right = y + row, x + column
          is_edge = down < height and own != pick_label(
            labels, down, x, 1 - row, column
          )
          is_edge |= right < width and own != pick_label(
            labels, y, right, row, 1 - column
          )
          if is_edge:
            codes[2 * y + row, 2 * x + column] = colour
