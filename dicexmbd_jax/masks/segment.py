"""Probabilities to nuclei and cells, for one image; pure."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from dicexmbd_jax import storage
from dicexmbd_jax.masks import (
  flood,
  grid,
  nuclei,
  propagate,
)
from dicexmbd_jax.masks.components import (
  count_labels,
  list_edge_labels,
  look_up,
  replace_labels,
)
from dicexmbd_jax.masks.distance import grow_labels
from dicexmbd_jax.masks.holes import fill_object_holes
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.settings import (
  Config,
  Settings,
  fit_to_pixels,
  resolve_settings,
)
from dicexmbd_jax.types import Image, Labels, Probabilities

METHODS = ("distance", "watershed", "propagation")  # The baselines.
# Counts up where the same maps and settings give other masks than before, so
# that a call that goes on makes those of before again. 2: votes on labels.
REVISION = 2


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
  is_border: Bool[np.ndarray, " n"]


def segment_image(
  probabilities: Probabilities | np.ndarray,
  config: Config,
  shape: tuple[int, int] | None = None,
  map_um: float = 1.0,
) -> Segmentation:
  """Finds nuclei and cells.

  Args:
    probabilities: nucleus, membrane/cytoplasm and, not used, background: 0..1,
      or uint8 or uint16, whose highest value stands for 1.
    config: `config.segment`, see masks.settings.
    shape: rows and columns of the masks where the image's pixels are not the
      map's; None: the map's, divided by the preset's map_scale.
    map_um: edge of map_scale pixels of the map, in um of the tissue.

  Returns:
    The masks; without any nucleus they are 0 and is_border is empty.

  Raises:
    ValueError: wrong shape, values that are not finite or not within 0..1,
      or a wrong setting.
  """
  settings = resolve_settings(config)
  check_probabilities(probabilities)
  maps = WorkingMaps(probabilities, settings)
  limit_px = settings.max_growth_um * settings.scale / map_um
  return segment_maps(maps, "propagation", settings, shape, limit_px)


def segment_seen(
  probabilities: Probabilities | np.ndarray,
  config: Any,
  shape: tuple[int, int],
  magnification: float = 1.0,
) -> Segmentation:
  """Finds nuclei and cells in what a network says of an image that it has seen.

  Args:
    probabilities: as of segment_image, on the network's grid.
    config: the whole configuration.
    shape: rows and columns of the masks.
    magnification: how many times larger than it is the network saw the tissue.

  Returns, raises: as segment_image.
  """
  size_um = config.image.pixel_size_um
  section = fit_to_pixels(config.segment, size_um)
  map_um = size_um * resolve_settings(section).map_scale / magnification
  return segment_image(probabilities, section, shape, map_um)


def segment_baseline(
  image: Image,
  method: str,
  config: Config,
  shape: tuple[int, int] | None = None,
) -> Segmentation:
  """Finds nuclei and cells in the raw channels, without a network.

  Nuclei are found as in segment_image, with the nuclear channel / 255 as the
  nucleus map; cells with the membrane/cytoplasm channel / 255 as foreground.

  Args:
    image: nuclear and membrane/cytoplasm channel, 0..255.
    method: "distance", "watershed" or "propagation".
    config: `config.segment`, see masks.settings.
    shape: rows and columns of the masks; None: the image's, as above.

  Returns:
    As segment_image.

  Raises:
    ValueError: unknown method, or as segment_image.
  """
  if method not in METHODS:
    raise ValueError(f"method is {method!r}, expected one of {METHODS}")
  settings = resolve_settings(config)
  pixels = image / np.float32(255)
  check_probabilities(pixels)
  maps = WorkingMaps(pixels, settings, adds_nucleus=False)
  return segment_maps(maps, method, settings, shape)


def segment_maps(
  maps: WorkingMaps,
  method: str,
  settings: Settings,
  shape: tuple[int, int] | None,
  limit_px: float = 0.0,
) -> Segmentation:
  """Finds nuclei and cells in maps; the steps that all methods share.

  `limit_px` is how far cells may reach, in working pixels; 0: no limit.
  """
  seeds, numbers = nuclei.select_nuclei(
    nuclei.find_nuclei(maps, settings), settings
  )
  return grow_cells(maps, method, seeds, numbers, settings, shape, limit_px)


def grow_cells(
  maps: WorkingMaps,
  method: str,
  seeds: Labels,
  numbers: Int32[np.ndarray, " n"],
  settings: Settings,
  shape: tuple[int, int] | None,
  limit_px: float = 0.0,
) -> Segmentation:
  """Grows cells from nuclei, and brings both to the output grid.

  Args:
    maps: on the working grid.
    method: "distance", "watershed" or "propagation".
    seeds: nuclei, as nuclei.select_nuclei gives them.
    numbers: likewise.
    settings: how cells grow, and masks are read from the working grid.
    shape: of the output grid; None: the image's.
    limit_px: how far cells may reach, in working pixels; 0: no limit.
  """
  if method == "distance":
    cells = grow_labels(seeds, settings.distance_px * settings.scale)
  else:
    spread = propagate.grow_cells
    if method == "watershed":
      spread = flood.spread_watershed
    mask = propagate.mask_cells(maps, settings)
    cells = spread(maps, seeds, mask, settings)
    del mask  # As large as the image, as are all planes in here.
  if limit_px:
    cells = propagate.limit_growth(cells, seeds, limit_px)
  cells = fill_object_holes(cells)
  if shape is None:
    shape = (
      max(round(maps.shape[0] / settings.scale), 1),
      max(round(maps.shape[1] / settings.scale), 1),
    )
  return finish_masks(seeds, cells, numbers, settings, shape)


def check_probabilities(probabilities: np.ndarray) -> None:
  """Raises a ValueError if the maps are not probabilities."""
  if probabilities.ndim != 3 or probabilities.shape[2] not in (2, 3):
    raise ValueError(
      f"probabilities have shape {probabilities.shape}, expected (y, x, 2 or "
      "3): nucleus, membrane, background"
    )
  if 0 in probabilities.shape:
    raise ValueError(
      f"probabilities have shape {probabilities.shape}, expected pixels"
    )
  if probabilities.dtype in (np.uint8, np.uint16):
    return
  if probabilities.dtype.kind != "f":
    raise ValueError(
      f"probabilities are {probabilities.dtype}, expected uint8, uint16, float"
    )
  low, high = float(probabilities.min()), float(probabilities.max())
  if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails as well.
    raise ValueError(
      f"probabilities range from {low:g} to {high:g}, expected 0 to 1"
    )


def finish_masks(
  seeds: Labels,
  cells: Labels,
  numbers: Int32[np.ndarray, " n"],
  settings: Settings,
  shape: tuple[int, int],
) -> Segmentation:
  """Brings nuclei and cells to the output grid and numbers them together.

  Args:
    seeds: nuclei, and what else held its ground, on the working grid.
    cells: what grew from them.
    numbers: each seed's number as a nucleus, 0 for what is none.
    settings: how masks are read from the working grid.
    shape: of the output grid.

  Returns:
    The masks. A cell without a pixel on the grid is dropped in both.
  """
  inner, outer = (
    rescale_labels(labels, numbers, settings, shape)
    for labels in (seeds, cells)
  )
  for strip in storage.cut_strips(shape, 16):
    nucleus, cell = inner[strip], outer[strip]
    if settings.has_votes:  # A nucleus and its cell are voted on apart.
      cell[nucleus > 0] = nucleus[nucleus > 0]
    else:
      nucleus[nucleus != cell] = 0
  # Only now: a nucleus may have taken a neighbour's last pixel.
  occurs = count_labels(outer, numbers.size) > 0
  occurs[0] = False
  numbers = nuclei.number_labels(occurs)
  for labels in (inner, outer):  # Ours: changed in place.
    look_up(labels, numbers, labels)
  is_border = np.zeros(np.count_nonzero(occurs) + 1, bool)
  is_border[list_edge_labels(outer)] = True
  return Segmentation(inner, outer, is_border[1:])


def rescale_labels(
  labels: Labels,
  numbers: Int32[np.ndarray, " n"],
  settings: Settings,
  shape: tuple[int, int],
) -> Int32[np.ndarray, "v u"]:
  """Numbers labels and brings them to the output grid, touching or parted."""
  if settings.has_votes:
    return grid.vote_labels(labels, numbers, shape)
  if settings.parts_cells and labels.shape == (2 * shape[0], 2 * shape[1]):
    return grid.part_labels(grid.halve_labels(labels, numbers))
  sampled = grid.sample_labels(labels, shape, settings.aligns_corners)
  sampled = replace_labels(sampled, numbers)
  return grid.part_labels(sampled) if settings.parts_cells else sampled
