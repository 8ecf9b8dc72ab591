"""Training targets from instance masks.

The network learns three probabilities per pixel: nucleus, membrane/cytoplasm,
background. Masks of cells say which pixels are cell and where one cell ends;
what lies deep inside is nucleus, the rest of the cell membrane/cytoplasm. Where
there are masks of nuclei, too, these say what is nucleus.
"""

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy import ndimage

from dicexmbd_jax.edges import mark_edges
from dicexmbd_jax.types import Labels

Target = Float32[np.ndarray, "y x 3"]
Known = UInt8[np.ndarray, "y x 3"]


def make_target(
  cells: Labels, rim_fraction: float, nuclei: Labels | None = None
) -> Target:
  """Returns nucleus, membrane/cytoplasm, background; they sum to 1.

  A pixel's nucleus probability rises with its distance from the cell's edge:
  from 0 on the edge pixels to 1 at `rim_fraction` of the cell's largest such
  distance. Cells of any size so end up with one seed each, parted from
  the neighbours' by their rims; those one or two pixels thin are all rim.

  Args:
    cells: 0 = background. An image without cells gives all background.
    rim_fraction: 0..1; 1 makes a cone, small values a plateau with a rim.
    nuclei: of the cells, if known; then what is nucleus is 1 there and the
      depth does not count. See make_nuclear_target.

  Raises:
    ValueError: masks of different shapes.
  """
  if nuclei is not None:
    return make_nuclear_target(cells, nuclei)
  inner = measure_depth(cells)
  deepest = np.zeros(cells.max(initial=0) + 1, np.float32)
  np.maximum.at(deepest, cells.ravel(), inner.ravel())
  deepest[deepest == 0] = 1  # All edge: no nucleus, and no division by 0.
  nucleus = np.clip(inner / (rim_fraction * deepest[cells]), 0, 1)
  is_cell = (cells > 0).astype(np.float32)
  nucleus = nucleus * is_cell
  return np.stack([nucleus, is_cell - nucleus, 1 - is_cell], axis=-1)


def make_nuclear_target(cells: Labels, nuclei: Labels) -> Target:
  """Returns nucleus, membrane/cytoplasm, background; one is 1, the others 0.

  Nuclei that touch are parted: their pixels beside another nucleus become
  membrane, so that each stays a seed of its own. A nucleus that lies outside
  of any cell is cell all the same.

  Args:
    cells: 0 = background.
    nuclei: 0 = none; the ids need not be the cells'.

  Raises:
    ValueError: masks of different shapes.
  """
  if cells.shape != nuclei.shape:
    raise ValueError(
      f"nuclei: found {nuclei.shape} px, expected {cells.shape} as the cells "
      "have"
    )
  is_nucleus = (nuclei > 0) & ~find_contacts(nuclei)
  is_cell = (cells > 0) | (nuclei > 0)
  maps = [is_nucleus, is_cell & ~is_nucleus, ~is_cell]
  return np.stack(maps, axis=-1).astype(np.float32)


def make_partial_target(nuclei: Labels) -> tuple[Target, Known]:
  """Returns the target of masks of nuclei alone, and what of it is known.

  What is nucleus is known everywhere. Around the nuclei nobody has said where
  membrane/cytoplasm ends and background begins: there these two are unknown
  (and stored as background).

  Args:
    nuclei: 0 = none.

  Returns:
    The target as make_nuclear_target has it, and uint8 (y, x, 3): 1 = known.
  """
  target = make_nuclear_target(nuclei, nuclei)
  known = np.ones(target.shape, np.uint8)
  known[nuclei == 0, 1:] = 0
  return target, known


def make_membrane_target(
  membrane: Bool[np.ndarray, "y x"],
) -> tuple[Target, Known]:
  """Returns the target of membrane/cytoplasm alone, and what of it is known.

  Where it is drawn, no other class is. Elsewhere nobody has said whether there
  is a nucleus or background (stored as background).

  Args:
    membrane: where membrane/cytoplasm is.

  Returns:
    As make_partial_target.
  """
  nothing = np.zeros(membrane.shape, bool)
  target = np.stack([nothing, membrane, ~membrane], -1).astype(np.float32)
  known = np.ones(target.shape, np.uint8)
  known[~membrane, ::2] = 0
  return target, known


def limit_known(
  target: Target, known: Known, is_covered: Bool[np.ndarray, "y x"]
) -> Known:
  """Returns what is known where labels cover a part of the image only.

  Beside a labelled cell something else begins, whatever it is: no nucleus
  reaches over its edge. So the pixels around what is covered are known not to
  be nucleus where they touch a cell from outside; that keeps a cell from
  growing into what is unknown.

  Args:
    target: of the whole image, as if all were covered.
    known: of the same.
    is_covered: where the labels hold.
  """
  limited = known * is_covered[..., None].astype(np.uint8)
  is_cell = (target[..., 2] == 0) & is_covered
  is_beside = ndimage.binary_dilation(is_cell) & ~is_covered
  limited[is_beside & (target[..., 0] == 0), 0] = 1
  return limited


def find_contacts(labels: Labels) -> Bool[np.ndarray, "y x"]:
  """Finds pixels with a 4-neighbour of another object, background apart."""
  touches = np.zeros(labels.shape, bool)
  for first, second in (
    (np.s_[:-1], np.s_[1:]),
    (np.s_[:, :-1], np.s_[:, 1:]),
  ):
    one, other = labels[first], labels[second]
    differs = (one != other) & (one > 0) & (other > 0)
    touches[first] |= differs
    touches[second] |= differs
  return touches


def measure_depth(cells: Labels) -> Float32[np.ndarray, "y x"]:
  """Returns each pixel's distance in px to its cell's edge pixels (0 there).

  An edge pixel has a 4-neighbour that is not of its cell; the image's border
  is no edge, since the cell may go on behind it.
  """
  is_inner = ~mark_edges(cells) & (cells > 0)
  if is_inner.all():  # One cell fills the image: nowhere an edge.
    return np.ones(cells.shape, np.float32)
  return ndimage.distance_transform_edt(is_inner).astype(np.float32)
