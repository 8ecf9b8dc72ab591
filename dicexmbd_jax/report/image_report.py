"""One image's part of the report, as small data that a run keeps on disk.

A run that was stopped goes on later, and its report shows all images; so what
the report needs of an image is kept as JSON beside the image's tables, and can
be made again from the tables and the overlay alone. The schema, version 3:

    {"schema": 3,
     "stem": "ROI002",            # name of all output files
     "source": "img/ROI002.tiff", # as shown to the reader
     "shape": [501, 500],         # y, x of the input; null if it was not read
     "pixel_size_um": 1.0,        # null if not read
     "num_cells": 3211,           # null if the image failed
     "magnification": 0.85,       # 1 without network
     "doubt": 0.31,               # null without cells or network
     "area_um2": DISTRIBUTION,    # in bins of 10 um2, the last is open;
     "markers": [DISTRIBUTION],   # in bins of 0.1 of log10(1 + 10 counts)
     "pictures": {"small": PICTURE, "overview": PICTURE, "detail": PICTURE},
     "warnings": ["..."],
     "seconds": {"read": 0.4},    # by stage, in order
     "error": null}               # or the line that names the failure

    DISTRIBUTION = {"name": "CD20", "quantiles": [5, 25, 50, 75, 95 %] or [],
                    "histogram": [cells in bin 0, bin 1, ...]}
    PICTURE = {"jpeg": "base64", "width_px": 500, "height_px": 501,
               "width_um": 500.0}

Values that are not finite are left out of distributions; no value at all gives
empty quantiles and an empty histogram, so that the JSON never holds a NaN.
An image takes at most 270 kB, of which 2 to 10 kB are not pictures.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real
from PIL import Image as pillow

from dicexmbd_jax.report.thumbnail import Picture, make_pictures
from dicexmbd_jax.types import ImageRecord

SCHEMA = 3
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
AREA_BIN_UM2 = 10.0
NUM_AREA_BINS = 51  # The last bin holds all cells of 500 um2 and more.
INTENSITY_BINS_PER_UNIT = 10  # A unit is a factor of ten for bright markers.
NUM_INTENSITY_BINS = 70  # Up to 10 million counts.


@dataclasses.dataclass(frozen=True)
class Distribution:
  """How a value spreads over cells; the module's docstring has the bins."""

  name: str
  quantiles: tuple[float, ...] = ()
  histogram: tuple[int, ...] = ()

  @property
  def median(self) -> float | None:
    """The median, None without cells."""
    return self.quantiles[2] if self.quantiles else None


@dataclasses.dataclass(frozen=True)
class ImageReport:
  """One image of the report; attributes as in the module's docstring."""

  stem: str
  source: str
  shape: tuple[int, int] | None = None
  pixel_size_um: float | None = None
  num_cells: int | None = None
  magnification: float = 1.0
  doubt: float | None = None
  area_um2: Distribution = Distribution("area")
  markers: tuple[Distribution, ...] = ()
  pictures: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
  warnings: tuple[str, ...] = ()
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
  error: str | None = None

  @property
  def size_um(self) -> tuple[float, float] | None:
    """(y, x) of the image in um, None if it was not read."""
    if self.shape is None or self.pixel_size_um is None:
      return None
    height, width = self.shape
    return height * self.pixel_size_um, width * self.pixel_size_um

  @property
  def density_per_mm2(self) -> float | None:
    """Cells per mm2 of image, None where either is unknown or zero."""
    if self.size_um is None or self.num_cells is None or not all(self.size_um):
      return None
    height_um, width_um = self.size_um
    return self.num_cells / (height_um * width_um * 1e-6)


def summarise_image(
  record: ImageRecord, picture: pillow.Image, seconds: Mapping[str, float]
) -> ImageReport:
  """Reduces a finished image to what the report shows of it.

  Args:
    record: with its tables.
    picture: of (y * k, x * k) pixels, k whole, as `draw_overlay` has it.
    seconds: time by stage, in order.
  """
  loaded, size_um = record.loaded, record.pixel_size_um
  regions, counts = record.tables["regionprops"], record.tables["intensities"]
  height, width = loaded.stack.shape[:2]
  factor = picture.height / max(1, height)
  return ImageReport(
    stem=record.source.stem,
    source=str(loaded.origin["source_file"]),
    shape=(height, width),
    pixel_size_um=float(size_um),
    num_cells=len(regions),
    magnification=record.magnification,
    doubt=record.doubt,
    area_um2=describe_areas(regions["area"].to_numpy() * size_um**2),
    markers=tuple(
      describe_intensities(name, counts[name].to_numpy())
      for name in loaded.names
    ),
    pictures=make_pictures(
      picture,
      regions[["centroid-0", "centroid-1"]].to_numpy() * factor,
      size_um / max(1.0, factor),
    ),
    warnings=record.warnings,
    seconds=dict(seconds),
  )


def describe_areas(areas_um2: Real[np.ndarray, " n"]) -> Distribution:
  """Quantiles and histogram of areas, in bins of 10 um2."""
  values = _keep_finite(areas_um2)
  return Distribution(
    name="area",
    quantiles=_find_quantiles(values),
    histogram=_count_bins(values / AREA_BIN_UM2, NUM_AREA_BINS),
  )


def describe_intensities(
  name: str, counts: Real[np.ndarray, " n"]
) -> Distribution:
  """Quantiles and histogram of a marker, in bins of log10(1 + 10 counts).

  Near-linear up to 0.1 counts, logarithmic above. Negative values fall into the
  first bin.
  """
  values = _keep_finite(counts)
  scaled = np.log10(1 + 10 * np.maximum(values, 0))
  return Distribution(
    name=name,
    quantiles=_find_quantiles(values),
    histogram=_count_bins(scaled * INTENSITY_BINS_PER_UNIT, NUM_INTENSITY_BINS),
  )


def _keep_finite(values: Real[np.ndarray, " n"]) -> Float[np.ndarray, " k"]:
  """Drops NaN and infinities."""
  values = np.asarray(values, np.float64)
  return values[np.isfinite(values)]


def _find_quantiles(values: Float[np.ndarray, " n"]) -> tuple[float, ...]:
  """Five quantiles to six digits, or none without values."""
  if values.size == 0:
    return ()
  return tuple(float(f"{q:.6g}") for q in np.quantile(values, QUANTILES))


def _count_bins(
  positions: Float[np.ndarray, " n"], num_bins: int
) -> tuple[int, ...]:
  """Counts by integer part; ends after the last bin that is not empty."""
  if positions.size == 0:
    return ()
  bins = np.clip(positions, 0, num_bins - 1).astype(np.int64)
  return tuple(np.bincount(bins).tolist())


def pool_distributions(parts: Sequence[Distribution]) -> Distribution:
  """Adds the histograms of several images; quantiles cannot be pooled.

  Args:
    parts: at least one; the first gives the name.
  """
  longest = max(len(part.histogram) for part in parts)
  total = np.zeros(longest, np.int64)
  for part in parts:
    total[: len(part.histogram)] += part.histogram
  return Distribution(parts[0].name, (), tuple(total.tolist()))


def dump_report(report: ImageReport) -> dict[str, Any]:
  """Returns one image as JSON has it; the module's docstring has the schema."""
  # Not dataclasses.asdict, which copies every number.
  return {
    "schema": SCHEMA,
    **vars(report),
    "area_um2": vars(report.area_um2),
    "markers": [vars(marker) for marker in report.markers],
    "pictures": {name: vars(one) for name, one in report.pictures.items()},
  }


def parse_report(data: Any, is_compact: bool = False) -> ImageReport:
  """Restores what `dump_report` gave.

  Args:
    data: as read from JSON.
    is_compact: keep the small picture only, which is all that a report of very
      many images shows; saves memory.

  Raises:
    ValueError: the data have another schema, or a field is missing.
  """
  schema = data.get("schema") if isinstance(data, dict) else None
  if schema != SCHEMA:
    raise ValueError(f"report data: schema {schema}, expected {SCHEMA}")
  try:
    return _build_report(data, is_compact)
  except (KeyError, TypeError) as error:
    raise ValueError(f"report data: damaged, {error!r}") from error


def _build_report(data: dict[str, Any], is_compact: bool) -> ImageReport:
  """Turns JSON lists and objects back into tuples and records."""
  return ImageReport(
    stem=data["stem"],
    source=data["source"],
    shape=tuple(data["shape"]) if data["shape"] else None,
    pixel_size_um=data["pixel_size_um"],
    num_cells=data["num_cells"],
    magnification=data["magnification"],
    doubt=data["doubt"],
    area_um2=_build_distribution(data["area_um2"]),
    markers=tuple(_build_distribution(part) for part in data["markers"]),
    pictures={
      name: Picture(**picture)
      for name, picture in data["pictures"].items()
      if name == "small" or not is_compact
    },
    warnings=tuple(data["warnings"]),
    seconds=data["seconds"],
    error=data["error"],
  )


def _build_distribution(data: dict[str, Any]) -> Distribution:
  """Turns one JSON object back into a distribution."""
  return Distribution(
    data["name"], tuple(data["quantiles"]), tuple(data["histogram"])
  )
