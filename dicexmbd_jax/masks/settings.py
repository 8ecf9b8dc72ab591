"""Settings of the mask pipeline and the presets that name them.

Lengths are in pixels of the image (1 um in IMC), so they keep their meaning
when the working scale changes.
"""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Any, Protocol, runtime_checkable

from dicexmbd_jax.sections import (
  SWITCH,
  Section,
  check_names,
  choice,
  number,
  whole,
)

Count = Annotated[int, whole(1)]
Factor = Annotated[float, number(0)]
Length = Annotated[float, number(0)]
Share = Annotated[float, number(0, 1)]
Switch = Annotated[bool, SWITCH]


@dataclasses.dataclass(frozen=True)
class Settings(Section):
  """How probabilities become nuclei and cells.

  The defaults are the published pipeline with touching cells that stay near
  their nuclei. px means pixels of the image at 1 um; a working pixel is
  1 / scale px.

  Attributes:
    scale: working pixels per image pixel, along each axis.
    map_scale: pixels of the probability map per image pixel; 2 for maps that
      were made from doubled images, as steinbock and Ilastik do.
    threshold: minimum cross entropy as in "cellprofiler3" or "cellprofiler4".
    nucleus_correction: factor on the threshold of the nucleus map.
    min_nucleus_threshold: what that product is at least, 0..1 (CellProfiler's
      lower bound). In a field without cells Li's method parts noise from noise;
      0, as published: no bound.
    cell_correction: factor on the threshold of the foreground.
    max_cell_threshold: what that product is at most, 0..1 (CellProfiler's upper
      bound). In tissue without background Li's method parts foreground from
      foreground, and cells would shrink to their nuclei; 1, as published: no
      bound.
    smoothing_px: full width at half maximum of the Gaussian on the nucleus map.
    nucleus_threshold_sigma_px: Gaussian before the nucleus threshold; 0: none.
    cell_threshold_sigma_px: Gaussian before the foreground threshold.
    min_diameter_px: smallest nucleus; sets how far apart two nuclei must be.
    max_diameter_px: largest nucleus; holes up to its square are filled.
    declump_smoothing_px: full width at half maximum of the Gaussian before
      the search for the nuclei's centres; None: from min_diameter_px.
    min_saddle_depth: how far the nucleus map, 0..1, must fall between two
      nuclei that touch, so that both stay; 0, as published: not at all.
    min_nucleus_peak: how high, 0..1, the smoothed nucleus map must be somewhere
      in a nucleus; 0, as published: no bound.
    min_nucleus_area_px: nuclei below this many square pixels are dropped.
    regularisation: weight of a step against a change of intensity when cells
      grow; larger gives rounder cells.
    max_growth_um: how far cells that propagation grows may reach from their
      nuclei, in um of the tissue; 0, as published: no limit. Without a
      network there is none.
    distance_px: how far cells reach from their nuclei, baseline "distance".
    keeps_border: whether nuclei at the image's edge become cells.
    parts_cells: whether a line of background parts neighbouring cells.
    aligns_corners: whether masks are read from the working grid so that the
      first and last pixels of both coincide, as SciPy's zoom does; else pixel
      centres are where they are.
    has_exact_ties: whether equal values are told apart as by CellProfiler 4,
      by the rounding of its single precision and the order of its heap. Slow:
      nuclei are then flooded on the whole plane.
    block_px: edge of the blocks that planes are worked on in; sets speed and
      memory, never the result.
  """

  NAME = "segment"

  scale: Count = 2
  map_scale: Count = 1
  threshold: Annotated[str, choice("cellprofiler3", "cellprofiler4")] = (
    "cellprofiler3"
  )
  nucleus_correction: Factor = 1.2
  min_nucleus_threshold: Share = 0.0
  cell_correction: Factor = 1.0
  max_cell_threshold: Share = 1.0
  smoothing_px: Length = 2.0
  nucleus_threshold_sigma_px: Length = 0.0
  cell_threshold_sigma_px: Length = 0.5
  min_diameter_px: Length = 4.0
  max_diameter_px: Length = 6.0
  declump_smoothing_px: Annotated[float | None, number(0)] = None
  min_saddle_depth: Factor = 0.0
  min_nucleus_peak: Share = 0.0
  min_nucleus_area_px: Length = 1.25
  regularisation: Annotated[float, number(0.001)] = 0.05
  max_growth_um: Length = 1.25
  distance_px: Length = 10.0
  keeps_border: Switch = True
  parts_cells: Switch = False
  aligns_corners: Switch = False
  has_exact_ties: Switch = False
  block_px: Count = 128

  def __post_init__(self):
    """Raises a ValueError, one line, for a value that cannot be meant."""
    super().__post_init__()
    if self.scale % self.map_scale:
      raise ValueError(
        f"config.segment.scale: found {self.scale}, expected a multiple of "
        f"map_scale {self.map_scale}"
      )

  @property
  def block(self) -> int:
    """Edge of the blocks in working pixels."""
    return self.block_px * self.scale

  @property
  def has_votes(self) -> bool:
    """Whether the working pixels around one of the masks vote on its label.

    Else it is read as the published pipelines do.
    """
    return not (self.parts_cells or self.aligns_corners)


PRESETS = {
  # Cells touch and border cells stay: for measuring cells.
  "touching": Settings(),
  # CellProfiler 3.1.9 as published with Dice-XMBD: for repeating old studies.
  "dice_xmbd": Settings(
    keeps_border=False, parts_cells=True, max_growth_um=0.0
  ),
  # steinbock's CellProfiler 4 pipeline, whose maps come at twice the scale.
  "steinbock": Settings(
    map_scale=2,
    threshold="cellprofiler4",
    nucleus_threshold_sigma_px=0.5,
    min_diameter_px=3.5,
    max_diameter_px=12.5,
    declump_smoothing_px=0.5,
    max_growth_um=0.0,
    aligns_corners=True,
    has_exact_ties=True,
  ),
}


@runtime_checkable
class Config(Protocol):
  """What `config.segment` must offer; dict and ConfigDict do."""

  def items(self) -> Iterable[tuple[str, Any]]:
    """Returns names and values."""


def fit_to_pixels(config: Config, pixel_size_um: float) -> dict[str, Any]:
  """Returns `config.segment` for maps of a network with pixels of this size.

  Where map_scale is not given, it is that of find_map_scale, if above 1.

  Args:
    config: `config.segment`.
    pixel_size_um: edge of the network's pixels.
  """
  return fit_to_scale(config, find_map_scale(pixel_size_um))


def fit_to_scale(config: Config, map_scale: int) -> dict[str, Any]:
  """Returns `config.segment` for maps whose own map_scale is known.

  Where the config gives none, it is the maps', if that is above 1; else the
  preset's stays.
  """
  values = dict(config.items())
  if values.get("map_scale") is None and map_scale > 1:
    values["map_scale"] = map_scale
  return values


def find_map_scale(pixel_size_um: float) -> int:
  """Returns how many pixels of a network's maps make one of 1 um.

  The settings' lengths are in pixels of 1 um, whatever the network sees.
  """
  return max(round(1 / pixel_size_um), 1)


def resolve_settings(config: Config) -> Settings:
  """Reads the settings that a config asks for.

  Args:
    config: `config.segment`: `preset` names the preset; every other field is
      None, which means as the preset has it, or a value of a Settings field.

  Returns:
    The checked settings.

  Raises:
    ValueError: unknown preset or field, or a value out of its range.
  """
  values = dict(config.items())
  name = values.pop("preset", "touching")
  if not isinstance(name, str) or name not in PRESETS:
    raise ValueError(
      f"config.segment.preset: found {name!r}, expected "
      f"{choice(*sorted(PRESETS)).text}"
    )
  overrides = {key: value for key, value in values.items() if value is not None}
  check_names(Settings, overrides, Settings.NAME)
  return dataclasses.replace(PRESETS[name], **overrides)
