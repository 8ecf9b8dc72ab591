"""Training targets from instance masks.

The network learns three probabilities per pixel: nucleus, membrane/cytoplasm,
background. Instance masks say which pixels are cell and where one cell ends;
what lies deep inside is nucleus, the rest of the cell membrane/cytoplasm.
"""

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from dicexmbd_jax.types import Labels

Target = Float32[np.ndarray, "y x 3"]


def make_target(cells: Labels, rim_fraction: float) -> Target:
  """Returns nucleus, membrane/cytoplasm, background; they sum to 1.

  A pixel's nucleus probability rises with its distance from the cell's edge:
  from 0 on the edge pixels to 1 at `rim_fraction` of the cell's largest such
  distance. Cells of any size so end up with one seed each, parted from
  the neighbours' by their rims; those one or two pixels thin are all rim.

  Args:
    cells: 0 = background. An image without cells gives all background.
    rim_fraction: 0..1; 1 makes a cone, small values a plateau with a rim.
  """
  inner = measure_depth(cells)
  deepest = np.zeros(cells.max(initial=0) + 1, np.float32)
  np.maximum.at(deepest, cells.ravel(), inner.ravel())
  deepest[deepest == 0] = 1  # All edge: no nucleus, and no division by 0.
  nucleus = np.clip(inner / (rim_fraction * deepest[cells]), 0, 1)
  is_cell = (cells > 0).astype(np.float32)
  nucleus = nucleus * is_cell
  return np.stack([nucleus, is_cell - nucleus, 1 - is_cell], axis=-1)


def measure_depth(cells: Labels) -> Float32[np.ndarray, "y x"]:
  """Returns each pixel's distance in px to its cell's edge pixels (0 there).

  An edge pixel has a 4-neighbour that is not of its cell; the image's border
  is no edge, since the cell may go on behind it.
  """
  padded = np.pad(cells, 1, mode="edge")
  centre = padded[1:-1, 1:-1]
  is_edge = np.zeros(cells.shape, bool)
  for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
    height, width = cells.shape
    is_edge |= padded[dy : dy + height, dx : dx + width] != centre
  is_inner = ~is_edge & (cells > 0)
  if is_inner.all():  # One cell fills the image: nowhere an edge.
    return np.ones(cells.shape, np.float32)
  return ndimage.distance_transform_edt(is_inner).astype(np.float32)
