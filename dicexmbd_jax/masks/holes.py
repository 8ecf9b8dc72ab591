"""Holes in masks and in labelled objects, filled as CellProfiler fills them."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from dicexmbd_jax.masks import adjacency
from dicexmbd_jax.types import Labels


def fill_small_holes(
  mask: Bool[np.ndarray, "y x"], max_area_px: float
) -> Bool[np.ndarray, "y x"]:
  """Fills the holes of a mask that are smaller than an area.

  A hole is a 4-connected group of clear pixels that does not touch the edge.

  Args:
    mask: True is foreground.
    max_area_px: holes of this many pixels and more stay.

  Returns:
    The filled mask; a clear mask stays clear. Source: fill_labeled_holes of
    CellProfiler's library with its size function.
  """
  groups, count = ndimage.label(~mask)
  is_hole = np.bincount(groups.ravel(), minlength=count + 1) < max_area_px
  is_hole[adjacency.list_edge_labels(groups)] = False
  is_hole[0] = True  # The mask itself.
  return is_hole[groups]


def fill_object_holes(labels: Labels) -> Labels:
  """Fills what lies inside one object with that object's label.

  A group of background pixels (4-connected) or an object is kept if it touches
  the edge, if it is an object next to kept background, or if it lies next to
  two kept objects. Whatever is not kept takes the label of the object around
  it, so an object enclosed by another disappears.

  Args:
    labels: objects 1..n, 0 = background.

  Returns:
    The filled labels. Source: fill_labeled_holes of CellProfiler's library.
  """
  num_objects = int(labels.max(initial=0))
  if num_objects == 0:
    return labels.copy()
  groups, num_groups = ndimage.label(labels == 0)
  nodes = np.where(groups > 0, groups + num_objects, labels).astype(np.int32)
  num_nodes = num_objects + num_groups + 1
  is_kept = adjacency.keep_outer_nodes(nodes, num_objects, num_nodes)
  if is_kept[1:].all():
    return labels.copy()
  starts, neighbours = adjacency.list_neighbours(nodes, is_kept, num_nodes)
  filling = adjacency.fill_nodes(is_kept, starts, neighbours, num_objects)
  return filling[nodes]
