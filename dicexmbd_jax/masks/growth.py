"""How far a cell may reach from its nucleus."""

import numpy as np

from dicexmbd_jax.masks.compiler import compile_kernel
from dicexmbd_jax.masks.peaks import list_disk
from dicexmbd_jax.types import Labels


def limit_growth(cells: Labels, seeds: Labels, radius_px: float) -> Labels:
  """Cuts from each cell what lies too far from its own nucleus.

  Where the network takes a dark gap for membrane/cytoplasm, propagation fills
  it to the next cell; most cytoplasm lies closer than that.

  Args:
    cells: labels of the seeds that they grew from.
    seeds: the nuclei, on the same grid.
    radius_px: the greatest Euclidean distance between the centre of a cell's
      pixel and the nearest pixel centre of its own nucleus, inclusive.

  Returns:
    The cells within their limit; 0 elsewhere. A label without a seed is
    dropped. The input is not changed.
  """
  # The nearest first: most pixels find their nucleus in a few steps.
  near = np.pad(list_disk(radius_px), ((1, 0), (0, 0)))  # The pixel itself.
  return _cut_far(cells, seeds, near)


@compile_kernel
def _cut_far(cells, seeds, near):
  """Keeps a pixel if its label's seed lies at one of the offsets `near`.

  Example, near = [[0, 0], [0, -1], [0, 1]]:

      seeds 0 2 0 0    cells 2 2 2 2    result 2 2 2 0
            0 0 0 0          2 2 0 0           0 0 0 0
  """
  height, width = cells.shape
  kept = np.zeros_like(cells)
  for y in range(height):
    for x in range(width):
      label = cells[y, x]
      if label == 0:
        continue
      for i in range(near.shape[0]):
        v, u = y + near[i, 0], x + near[i, 1]
        if 0 <= v < height and 0 <= u < width and seeds[v, u] == label:
          kept[y, x] = label
          break
  return kept
