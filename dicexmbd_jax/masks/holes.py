"""Holes in masks and in labelled objects, filled as CellProfiler fills them."""

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax.masks import adjacency
from dicexmbd_jax.masks.lookup import count_labels, replace_labels
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
  regions, count = adjacency.number_regions(mask.view(np.int8), 1)
  is_filled = count_labels(regions, count + 1) < max_area_px
  is_filled[adjacency.list_edge_labels(regions)] = False
  is_filled[1] = True  # The mask itself.
  return replace_labels(regions, is_filled)


def fill_object_holes(labels: Labels) -> Labels:
  """Fills what lies inside one object with that object's label.

  A group of background pixels (4-connected) or an object is kept if it touches
  the edge, if it is an object next to kept background, or if it lies next to
  two kept objects. Whatever is not kept takes the label of the object around
  it, so an object enclosed by another disappears.

  Args:
    labels: objects 1..n, 0 = background.

  Returns:
    The filled labels, or `labels` itself where there is nothing to fill.
    Source: fill_labeled_holes of CellProfiler's library.
  """
  num_objects = int(labels.max())
  regions, num_regions = adjacency.number_regions(labels, num_objects)
  is_kept = adjacency.keep_outer_regions(regions, num_objects, num_regions)
  num_kept = 0
  while num_kept < np.count_nonzero(is_kept) < is_kept.size:
    num_kept = int(np.count_nonzero(is_kept))
    is_kept = adjacency.keep_inner_regions(regions, is_kept, num_objects)
  if is_kept.all():
    return labels
  starts, neighbours = adjacency.list_neighbours(regions, is_kept)
  filling = adjacency.fill_regions(is_kept, starts, neighbours, num_objects)
  return replace_labels(regions, filling)
