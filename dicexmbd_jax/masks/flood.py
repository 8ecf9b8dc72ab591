"""Watershed from markers, compiled: lowest first, then first in first out.

The order is that of scikit-image's watershed, which CellProfiler calls.
"""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def flood_markers(values, markers, mask):
  """Floods the mask from the markers.

  A pixel takes the label of the neighbour (of eight) that is flooded first.
  Pixels are flooded by value, equal values in the order in which they were
  reached, markers in raster order.

  Args:
    values: float64 (y, x), low is flooded first; no NaN.
    markers: int32 (y, x), 0 none.
    mask: bool (y, x); markers outside are ignored.

  Returns:
    int32 (y, x): labels; 0 outside the mask and where no marker reaches.
  """
  height, width = values.shape
  stride = width + 2
  labels = np.full((height + 2) * stride, -1, np.int32)
  level = np.zeros((height + 2) * stride)
  count = 0
  for y in range(height):
    for x in range(width):
      if mask[y, x]:
        p = (y + 1) * stride + x + 1
        labels[p] = markers[y, x]
        level[p] = values[y, x]
        count += 1
  levels = np.empty(count + 1)
  ages = np.empty(count + 1, np.int64)
  pixels = np.empty(count + 1, np.int32)
  size = 0
  age = 0
  for p in range(labels.size):
    if labels[p] > 0:
      size = push_pixel(levels, ages, pixels, size, level[p], age, p)
      age += 1
  # The nearest first, as scikit-image sorts its neighbourhood.
  offsets = np.array(
    [-stride, -1, 1, stride, -stride - 1, 1 - stride, stride - 1, stride + 1]
  )
  while size:
    p = pixels[0]
    size = pop_pixel(levels, ages, pixels, size)
    for offset in offsets:
      q = p + offset
      if labels[q]:
        continue
      labels[q] = labels[p]
      size = push_pixel(levels, ages, pixels, size, level[q], age, q)
      age += 1
  flooded = np.empty((height, width), np.int32)
  for y in range(height):
    for x in range(width):
      flooded[y, x] = max(labels[(y + 1) * stride + x + 1], 0)
  return flooded


@compile_kernel
def push_pixel(levels, ages, pixels, size, level, age, pixel):
  """Adds a pixel to the heap; returns the new size. Ages only ever grow."""
  child = size
  while child:
    parent = (child - 1) >> 1
    if levels[parent] <= level:  # The older goes first when equal.
      break
    levels[child] = levels[parent]
    ages[child] = ages[parent]
    pixels[child] = pixels[parent]
    child = parent
  levels[child] = level
  ages[child] = age
  pixels[child] = pixel
  return size + 1


@compile_kernel
def pop_pixel(levels, ages, pixels, size):
  """Removes the first pixel of the heap; returns the new size."""
  size -= 1
  level = levels[size]
  age = ages[size]
  pixel = pixels[size]
  hole = 0
  child = 1
  while child < size:
    right = child + 1
    if right < size and (
      levels[right] < levels[child]
      or (levels[right] == levels[child] and ages[right] < ages[child])
    ):
      child = right
    if level < levels[child] or (level == levels[child] and age < ages[child]):
      break
    levels[hole] = levels[child]
    ages[hole] = ages[child]
    pixels[hole] = pixels[child]
    hole = child
    child = 2 * hole + 1
  levels[hole] = level
  ages[hole] = age
  pixels[hole] = pixel
  return size
