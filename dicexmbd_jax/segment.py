"""Probabilities to nuclei and cells, for one image; pure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax.masks import grid, nuclei, propagate
from dicexmbd_jax.masks.adjacency import list_edge_labels
from dicexmbd_jax.masks.holes import fill_object_holes
from dicexmbd_jax.masks.settings import Settings, resolve_settings
from dicexmbd_jax.types import Labels, Probabilities


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """The masks of one image.

  Attributes:
    nuclei: 0 = background; a nucleus has its cell's id, lies inside its cell
      and may be empty where the output grid misses its few pixels.
    cells: 0 = background, ids 1..n without gaps.
    is_border: for cells 1..n, whether one touches the edge of the image.
  """

  nuclei: Labels
  cells: Labels
  is_border: Bool[np.ndarray, "n"]


def segment_image(
  probabilities: Probabilities,
  config: Mapping[str, Any],
  shape: tuple[int, int] | None = None,
) -> Segmentation:
  """Finds nuclei and cells.

  Args:
    probabilities: nucleus, membrane/cytoplasm and background, 0..1.
    config: `config.segment`, see masks.settings.
    shape: rows and columns of the masks where the image's pixels are not the
      map's; None: the map's, divided by the preset's map_scale.

  Returns:
    The masks; without any nucleus they are 0 and is_border is empty.

  Raises:
    ValueError: wrong shape, values that are not finite or not within 0..1,
      or a wrong setting.
  """
  settings = resolve_settings(config)
  check_probabilities(probabilities)
  if shape is None:
    shape = tuple(
      max(round(n / settings.map_scale), 1) for n in probabilities.shape[:2]
    )
  factor = settings.scale // settings.map_scale
  nucleus = grid.upscale_plane(probabilities[..., 0], factor)
  membrane = grid.upscale_plane(probabilities[..., 1], factor)
  foreground = np.clip(nucleus + membrane, 0, 1)
  smooth = nuclei.smooth_nucleus(nucleus, settings)
  found = nuclei.find_nuclei(smooth, settings)
  kept, seeds = nuclei.select_nuclei(found, settings)
  mask = propagate.mask_cells(foreground, settings)
  cells = propagate.grow_cells(foreground, seeds, mask, settings.regularisation)
  cells = fill_object_holes(cells)
  cells[cells > kept.max(initial=0)] = 0
  return finish_masks(kept, cells, settings, shape)


def check_probabilities(probabilities: Probabilities) -> None:
  """Raises a ValueError if the maps are not probabilities."""
  if probabilities.ndim != 3 or probabilities.shape[2] not in (2, 3):
    raise ValueError(
      f"probabilities have shape {probabilities.shape}, "
      "expected (y, x, 3): nucleus, membrane, background"
    )
  if 0 in probabilities.shape:
    raise ValueError(
      f"probabilities have shape {probabilities.shape}, expected pixels"
    )
  low, high = float(probabilities.min()), float(probabilities.max())
  if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails as well.
    raise ValueError(
      f"probabilities range from {low:g} to {high:g}, expected 0 to 1"
    )


def finish_masks(
  kept: Labels, cells: Labels, settings: Settings, shape: tuple[int, int]
) -> Segmentation:
  """Brings nuclei and cells to the output grid and numbers them together.

  Args:
    kept: nuclei on the working grid.
    cells: cells on the working grid, with their nuclei's ids.
    settings: parts_cells says how neighbours are parted.
    shape: of the output grid.

  Returns:
    The masks. A cell without a pixel on the grid is dropped in both.
  """
  planes = [
    rescale_labels(labels, settings.parts_cells, shape)
    for labels in (kept, cells)
  ]
  occurs = np.bincount(planes[1].ravel(), minlength=kept.max(initial=0) + 1) > 0
  occurs[0] = False
  numbers = np.where(occurs, np.cumsum(occurs), 0).astype(np.int32)
  cells = numbers[planes[1]]
  inner = np.where(planes[0] == planes[1], planes[0], 0)
  is_border = np.zeros(np.count_nonzero(occurs) + 1, bool)
  is_border[list_edge_labels(cells)] = True
  return Segmentation(numbers[inner], cells, is_border[1:])


def rescale_labels(
  labels: Labels, parts_cells: bool, shape: tuple[int, int]
) -> Labels:
  """Brings labels to the output grid, touching or parted by a line."""
  if not parts_cells:
    return grid.sample_labels(labels, shape)
  if labels.shape == (2 * shape[0], 2 * shape[1]):
    return grid.part_labels(grid.halve_labels(labels))
  return grid.part_labels(grid.sample_labels(labels, shape))
