"""What the Segment widget asks the Python API for; no Qt in here."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dicexmbd_jax import api, markers
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.masks import confidence, measure
from dicexmbd_jax.masks import settings as settings_lib
from dicexmbd_jax.viewer import layers
from dicexmbd_jax.viewer.layers import LayerOrigin

# Settings of the cells that change them at once, the network's maps as they
# are; the rest of a model's stay as they are.
LIVE = (
  "nucleus_correction",
  "min_nucleus_threshold",
  "min_nucleus_area_px",
  "max_growth_um",
  "keeps_border",
  "parts_cells",
)


@dataclasses.dataclass(frozen=True)
class SegmentJob:
  """One image to segment.

  Attributes:
    origin: of the image.
    stack: counts (channel, y, x).
    names: of the channels.
    nuclear: names of the nuclear channels.
    membrane: names of the membrane/cytoplasm channels.
    pixel_size_um: edge of a pixel.
    model: a model folder; "" for the shipped one.
    views: how often the network looks at the image, 1, 4 or 8.
    magnification: "auto", or a factor.
    live: settings of the cells: `preset`, and those of LIVE.
    frame: where the image lies in napari's world, (3, 3) in um.
  """

  origin: LayerOrigin
  stack: np.ndarray
  names: tuple[str, ...]
  nuclear: tuple[str, ...]
  membrane: tuple[str, ...]
  pixel_size_um: float
  model: str = ""
  views: int = 4
  magnification: str | float = "auto"
  live: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  frame: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))


def guess_role(name: str) -> str:
  """Returns "nuclear", "membrane" or "", as a marker's name has it."""
  if markers.is_nuclear_stain(name):
    return "nuclear"
  return "membrane" if markers.is_membrane_stain(name) else ""


def read_live(model: str, preset: str | None = None) -> dict[str, Any]:
  """Returns the live settings that a model's cells have.

  Args:
    model: a model folder; "" for the shipped one.
    preset: in place of all of the model's own; None: these.

  Raises:
    ValueError: no such model or preset; one line.
  """
  changes = {} if preset is None else {"segment.preset": preset}
  section = _resolve(model, changes).segment
  resolved = settings_lib.resolve_settings(section)
  return {name: getattr(resolved, name) for name in LIVE}


def segment(job: SegmentJob, progress: Callable[[float], None]) -> api.Cells:
  """Finds the cells of an image with the network.

  Args:
    job: the image.
    progress: as of `Segmenter.segment`.

  Raises:
    ValueError: what cannot be meant; one line.
  """
  settings = {
    "predict.views": job.views,
    "predict.magnification": job.magnification,
    **_name_live(job.live),
  }
  segmenter = api.Segmenter(job.model or None, settings)
  return segmenter.segment(
    job.stack,
    job.nuclear,
    job.membrane,
    job.names,
    "CYX",
    job.pixel_size_um,
    progress,
  )


def segment_again(job: SegmentJob, cells: api.Cells) -> api.Cells:
  """Finds the cells of the same maps with other live settings.

  Raises:
    ValueError: a setting that cannot be meant; one line.
  """
  changes = _name_live(job.live)
  config = _resolve(job.model, changes)
  section = settings_lib.fit_to_pixels(
    config.segment, config.image.pixel_size_um
  )
  own = {f"segment.{name}": value for name, value in section.items()}
  found = api.segment_probabilities(
    cells.probabilities, cells.map_pixel_size_um, own, cells.masks.shape
  )
  stack = np.moveaxis(job.stack, 0, -1)
  counts = measure.measure_intensities(stack, found.masks, job.names)
  return dataclasses.replace(
    found,
    table=found.table.merge(counts, on="Object"),
    warnings=_renew_warnings(cells, found),
    magnification=cells.magnification,
    map_scale=cells.map_scale,
  )


def _renew_warnings(before: api.Cells, found: api.Cells) -> tuple[str, ...]:
  """Returns what was told of an image, and what is to be told of its cells."""
  old, new = (
    confidence.advise(confidence.measure_doubt(before.probabilities, masks))
    for masks in (before.masks, found.masks)
  )
  return (*(line for line in before.warnings if line not in old), *new)


def list_result(job: SegmentJob, cells: api.Cells) -> list[layers.LayerData]:
  """Returns the layers of what was found: cells, and hidden nuclei and maps.

  Args:
    job: what was asked for.
    cells: what was found.
  """
  origin = job.origin
  folder = origin.path if origin.path.is_dir() else origin.path.parent
  own = dataclasses.replace(
    origin,
    results=folder / "segmented",
    original=cells.masks,
    saved=cells.masks,
  )
  size = job.pixel_size_um
  shown = list(
    layers.show_maps(
      cells.probabilities,
      "probabilities",
      origin,
      cells.map_pixel_size_um,
      size,
    )
  )
  settings = layers.describe_layer(origin, "nuclei", "nuclei", size)
  shown.append((cells.nuclei, {**settings, "visible": False}, "labels"))
  settings = layers.describe_layer(own, "cells", "cells", size)
  settings |= {"features": layers.name_features(cells.table), "opacity": 0.5}
  # A copy: napari's brush paints into what it is given.
  shown.append((cells.masks.copy(), settings, "labels"))
  return [
    (data, {**settings, "affine": job.frame}, kind)
    for data, settings, kind in shown
  ]


def parse_magnification(text: str) -> str | float:
  """Returns "auto", or the number that a text stands for.

  Raises:
    ValueError: neither; one line.
  """
  if text.strip().lower() in ("", "auto"):
    return "auto"
  try:
    return float(text)
  except ValueError as error:
    raise ValueError(
      f"magnification: found {text!r}, expected auto or a number"
    ) from error


def _resolve(model: str, changes: Mapping[str, Any]):
  folder = config_lib.find_model(model or config_lib.SHIPPED_MODEL)
  base = config_lib.read_model_config(folder)
  return config_lib.resolve_config(base, None, dict(changes))


def _name_live(live: Mapping[str, Any]) -> dict[str, Any]:
  return {f"segment.{name}": value for name, value in live.items()}
