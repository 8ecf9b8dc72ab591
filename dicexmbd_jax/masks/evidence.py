"""Sums of probabilities inside cells and across their outlines, compiled."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def sum_evidence(pixels, divisor, labels, num_cells):
  """Adds up, per cell, its foreground and the change across its outline.

  The change between two pixels is half the sum over the three classes of the
  absolute differences of their probabilities: 0 for equal, 1 for certain and
  different. Pairs are 4-neighbours of which one lies in the cell.

  Args:
    pixels: (y, x, c), nucleus and membrane/cytoplasm first.
    divisor: float32; what stands for probability 1.
    labels: int32 (y, x), cells 1..num_cells.
    num_cells: the highest cell.

  Returns:
    float64 (num_cells + 1, 4): number of pixels, their summed foreground,
    number of pairs, their summed change.
  """
  height, width = labels.shape
  sums = np.zeros((num_cells + 1, 4))
  for y in range(height):
    for x in range(width):
      here = labels[y, x]
      nucleus = np.float32(pixels[y, x, 0]) / divisor
      membrane = np.float32(pixels[y, x, 1]) / divisor
      sums[here, 0] += 1
      sums[here, 1] += min(max(nucleus + membrane, 0.0), 1.0)
      for turn in range(2):
        if (y if turn else x) == 0:
          continue
        there = labels[y - turn, x - 1 + turn]
        if here == there:
          continue
        other = pixels[y - turn, x - 1 + turn]
        up = nucleus - np.float32(other[0]) / divisor
        right = membrane - np.float32(other[1]) / divisor
        # The third class is one minus the others.
        change = (abs(up) + abs(right) + abs(up + right)) / 2
        for label in (here, there):
          sums[label, 2] += 1
          sums[label, 3] += change
  return sums
