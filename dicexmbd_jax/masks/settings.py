"""Settings of the mask pipeline and the presets that name them.

Lengths are in pixels of the image (1 um in IMC), so they keep their meaning
when the working scale changes.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class Settings:
  """How probabilities become nuclei and cells.

  The defaults are the published pipeline with touching cells that stay near
  their nuclei. px means pixels
  of the image at 1 um; a working pixel is 1 / scale px.

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
    min_nucleus_area_px: nuclei below this many square pixels are dropped.
    regularisation: weight of a step against a change of intensity when cells
      grow; larger gives rounder cells.
    max_growth_um: how far cells that propagation grows may reach from their
      nuclei, in um of the tissue; 0, as published: no limit.
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

  scale: int = 2
  map_scale: int = 1
  threshold: str = "cellprofiler3"
  nucleus_correction: float = 1.2
  min_nucleus_threshold: float = 0.0
  cell_correction: float = 1.0
  max_cell_threshold: float = 1.0
  smoothing_px: float = 2.0
  nucleus_threshold_sigma_px: float = 0.0
  cell_threshold_sigma_px: float = 0.5
  min_diameter_px: float = 4.0
  max_diameter_px: float = 6.0
  declump_smoothing_px: float | None = None
  min_saddle_depth: float = 0.0
  min_nucleus_area_px: float = 1.25
  regularisation: float = 0.05
  max_growth_um: float = 1.25
  distance_px: float = 10.0
  keeps_border: bool = True
  parts_cells: bool = False
  aligns_corners: bool = False
  has_exact_ties: bool = False
  block_px: int = 128

  @property
  def block(self) -> int:
    """Edge of the blocks in working pixels."""
    return self.block_px * self.scale


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
  if name not in PRESETS:
    raise ValueError(
      f"config.segment.preset is {name!r}, expected one of {sorted(PRESETS)}"
    )
  fields = {field.name: field for field in dataclasses.fields(Settings)}
  overrides = {key: value for key, value in values.items() if value is not None}
  for key, value in overrides.items():
    if key not in fields:
      raise ValueError(
        f"config.segment.{key} is unknown, expected one of {sorted(fields)}"
      )
    expected = _describe_fault(key, str(fields[key].type), value)
    if expected:
      raise ValueError(
        f"config.segment.{key} is {value!r}, expected {expected}"
      )
    if "float" in str(fields[key].type):
      overrides[key] = float(value)
  settings = dataclasses.replace(PRESETS[name], **overrides)
  if settings.scale % settings.map_scale:
    raise ValueError(
      f"config.segment.scale is {settings.scale}, "
      f"expected a multiple of map_scale {settings.map_scale}"
    )
  return settings


# The least value of what has one.
_LOWEST = {
  "scale": 1,
  "map_scale": 1,
  "block_px": 1,
  "nucleus_correction": 0,
  "min_nucleus_threshold": 0,
  "cell_correction": 0,
  "max_cell_threshold": 0,
  "smoothing_px": 0,
  "nucleus_threshold_sigma_px": 0,
  "cell_threshold_sigma_px": 0,
  "min_diameter_px": 0,
  "max_diameter_px": 0,
  "declump_smoothing_px": 0,
  "min_saddle_depth": 0,
  "min_nucleus_area_px": 0,
  "max_growth_um": 0,
  "distance_px": 0,
  "regularisation": 0.001,
}
# The greatest of what has one.
_HIGHEST = {"min_nucleus_threshold": 1, "max_cell_threshold": 1}


def _describe_fault(name: str, kind: str, value: Any) -> str | None:
  """Returns what was expected of a setting, None where it is as expected."""
  if name == "threshold":
    known = ("cellprofiler3", "cellprofiler4")
    return None if value in known else " or ".join(map(repr, known))
  if name not in _LOWEST:
    return None if isinstance(value, bool) else "true or false"
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if "int" in kind and not is_whole:
    return "a whole number"
  if not (is_whole or isinstance(value, float)):
    return "a number"
  low, high = _LOWEST[name], _HIGHEST.get(name)
  if high is not None:
    return None if low <= value <= high else f"{low} to {high}"
  return None if low <= value < float("inf") else f"at least {low}"
