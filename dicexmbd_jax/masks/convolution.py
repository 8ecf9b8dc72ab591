"""Separable smoothing of one plane, compiled."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel

# Smoothed values are rounded to this step. Neighbours on a plateau then stay
# equal to the bit, whatever the order of the sums near an edge of the image.
STEP = 2.0**-40


@compile_kernel
def convolve_plane(plane, taps, norm_y, norm_x):
  """Convolves rows and columns with a symmetric kernel, zeros outside.

  Args:
    plane: float64 (y, x).
    taps: float64 (r + 1,), the kernel's centre and one half.
    norm_y: float64 (y,), what each row's result is divided by.
    norm_x: float64 (x,), the same for columns.

  Returns:
    float64 (y, x), rounded to STEP.
  """
  height, width = plane.shape
  radius = taps.size - 1
  smoothed = np.empty((height, width))
  column = np.zeros(width + 2 * radius)
  for y in range(height):
    middle = column[radius : radius + width]
    for x in range(width):
      middle[x] = taps[0] * plane[y, x]
    for k in range(1, radius + 1):
      tap = taps[k]
      if y >= k and y + k < height:
        above = plane[y - k]
        below = plane[y + k]
        for x in range(width):
          middle[x] += tap * (above[x] + below[x])
      elif y >= k or y + k < height:
        beside = plane[y - k] if y >= k else plane[y + k]
        for x in range(width):
          middle[x] += tap * beside[x]
    row = smoothed[y]
    for x in range(width):
      row[x] = taps[0] * middle[x]
    for k in range(1, radius + 1):
      tap = taps[k]
      left = column[radius - k : radius - k + width]
      right = column[radius + k : radius + k + width]
      for x in range(width):
        row[x] += tap * (left[x] + right[x])
    for x in range(width):
      row[x] = np.rint(row[x] / (norm_y[y] * norm_x[x]) / STEP) * STEP
  return smoothed
