"""Bilinear enlargement of a part of a map, compiled."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def enlarge_rows(pixels, channel, divisor, factor, top, bottom, left, right):
  """Enlarges the window of rows top..bottom, columns left..right of a plane.

  Edges are repeated. Pixel centres stay in place, as in scikit-image's resize
  with order 1 and mode "symmetric".

  Args:
    pixels: (y, x, c) of any real dtype.
    channel: which plane.
    divisor: float32; pixels are divided by it, in single precision.
    factor: whole number, 1 or more.
    top: first row, in pixels of the map, not enlarged; so are the others.
    bottom: row after the last.
    left: first column.
    right: column after the last.

  Returns:
    float64 ((bottom - top) * factor, (right - left) * factor).
  """
  height, width = pixels.shape[:2]
  enlarged = np.empty(((bottom - top) * factor, (right - left) * factor))
  line = np.empty(right - left + 2)
  for y in range(top, bottom):
    for phase_y in range(factor):
      # Where this centre lies, in pixels after the centre of pixel y.
      shift_y = (phase_y + 0.5) / factor - 0.5
      upper = max(y - 1, 0) if shift_y < 0 else y
      lower = min(y + 1, height - 1) if shift_y > 0 else y
      part_y = shift_y if shift_y >= 0 else 1 + shift_y
      for index in range(line.size):
        x = min(max(left + index - 1, 0), width - 1)
        above = np.float64(np.float32(pixels[upper, x, channel]) / divisor)
        below = np.float64(np.float32(pixels[lower, x, channel]) / divisor)
        line[index] = (1 - part_y) * above + part_y * below
      row = enlarged[(y - top) * factor + phase_y]
      for phase_x in range(factor):
        shift_x = (phase_x + 0.5) / factor - 0.5
        first = 0 if shift_x < 0 else 1
        part_x = shift_x if shift_x >= 0 else 1 + shift_x
        near = line[first:]
        far = line[first + (part_x > 0) :]
        part = row[phase_x:]
        for index in range(right - left):
          value = (1 - part_x) * near[index] + part_x * far[index]
          part[index * factor] = value
  return enlarged
