"""The run's report: one HTML page that needs nothing but itself.

No script, style, font or picture is loaded from elsewhere. The exception is
made for runs of more than 200 images: their pages carry a small picture of
each image only and show the larger one from the `overlays` folder beside the
page, when a reader opens an image's details.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from dicexmbd_jax.report import run_figures
from dicexmbd_jax.report.image_report import (
  Distribution,
  ImageReport,
  pool_distributions,
)
from dicexmbd_jax.report.page import NO_VALUE, fill_template, format_score

# Up to here every image is shown in full; above, folded and compact.
MAX_OPEN_IMAGES = 200
DEFAULTS: dict[str, Any] = {
  "title": "Cell segmentation report",
  "date": "",
  "version": "",
  "model": "",
  "device": "",
  "seconds": None,
  "details": {},
  "scores": {},
  "overlays": "overlays",
}


def render_report(images: Sequence[ImageReport], run: Mapping[str, Any]) -> str:
  """Renders the page.

  Size: the page itself is 20 kB. Up to 200 images, one takes about 250 kB and
  never more than 280 kB; above 200 images, one takes about 20 kB (36 markers),
  so 1000 images make a page of 20 MB.

  Args:
    images: in the order of the page; an empty run and one where all images
      failed are fine.
    run: every key may be absent or None:
      title: str, heading of the page.
      date: str, when the run started, as it is to be read.
      version, model, device: str.
      seconds: float, wall time of the whole run.
      details: mapping of str to anything printable, for the table at the end
        (configuration, hashes, versions, command).
      scores: against a known truth, mapping with `overall` (name -> number)
        and `f1` (stem -> number), both optional.
      overlays: str, folder of the PNGs seen from the page; "overlays".

  Returns:
    The page as text that encodes as UTF-8 without errors.
  """
  run = DEFAULTS | {k: v for k, v in run.items() if v is not None}
  views = _view_images(images, run)
  return fill_template(
    "report.html",
    {
      "count": format_count,
      "seconds": format_seconds,
      "score": format_score,
    },
    run=run,
    images=views,
    totals=_sum_up(images, run),
    failures=[view for view in views if view["report"].error],
    pooled=_view_pooled(images),
    stages=_sum_stages(images),
    scores={"overall": {}, "f1": {}, **run["scores"]},
    is_compact=len(images) > MAX_OPEN_IMAGES,
  )


def _view_images(
  images: Sequence[ImageReport], run: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """What the template needs of each image, ready to print."""
  num_bins = run_figures.choose_num_bins(
    [marker for image in images for marker in image.markers]
  )
  densest = max((image.density_per_mm2 or 0.0 for image in images), default=0.0)
  f1 = run["scores"].get("f1", {})
  return [
    {
      **_view_image(image, num_bins),
      "anchor": f"image-{i}",
      "overlay": _link_overlay(image, run["overlays"]),
      "f1": f1.get(image.stem),
      "share": 100 * (image.density_per_mm2 or 0.0) / (densest or 1.0),
    }
    for i, image in enumerate(images, start=1)
  ]


def _view_image(image: ImageReport, num_bins: int) -> dict[str, Any]:
  """The part of a view that no other image has a say in."""
  return {
    "report": image,
    "size": format_size(image.size_um),
    "area": image.area_um2.median,
    "total_s": sum(image.seconds.values()) if image.seconds else None,
    "area_figure": run_figures.draw_areas(image.area_um2),
    "marker_figures": draw_columns(image.markers, num_bins),
    "bars": {
      name: choose_bar(picture.width_um)
      for name, picture in image.pictures.items()
    },
  }


def draw_columns(
  markers: Sequence[Distribution], num_bins: int
) -> list[run_figures.Markup]:
  """Draws up to 12 markers in one column, more in two of equal length."""
  num_rows = len(markers) if len(markers) <= 12 else -(-len(markers) // 2)
  return [
    run_figures.draw_markers(markers[start : start + num_rows], num_bins)
    for start in range(0, len(markers), max(1, num_rows))
  ]


def _link_overlay(image: ImageReport, folder: str) -> str | None:
  """Returns the PNG's address seen from the page; None if it failed."""
  if image.error is not None or not image.pictures:
    return None
  return quote(f"{folder}/{image.stem}.png", errors="surrogateescape")


def choose_bar(width_um: float) -> tuple[int, float] | None:
  """Returns a scale bar: round length in um, and its share of the width in %.

  The longest of 1, 2, 5, 10, ... um within a third of the picture, None where
  that is less than 1 um.
  """
  if not width_um >= 3:
    return None
  power = 10 ** int(math.log10(width_um / 3))
  length = max(m * power for m in (1, 2, 5) if m * power <= width_um / 3)
  return length, 100 * length / width_um


def _sum_up(
  images: Sequence[ImageReport], run: Mapping[str, Any]
) -> dict[str, Any]:
  """The numbers at the top of the page."""
  done = [image for image in images if image.error is None]
  areas_mm2 = [
    math.prod(image.size_um) * 1e-6 for image in done if image.size_um
  ]
  num_cells = sum(image.num_cells or 0 for image in done)
  area_mm2 = sum(areas_mm2)
  return {
    "images": len(images),
    "failed": len(images) - len(done),
    "warned": sum(bool(image.warnings) for image in images),
    "cells": num_cells,
    "area_mm2": area_mm2,
    "density": num_cells / area_mm2 if area_mm2 else None,
    "seconds": run["seconds"],
  }


def _view_pooled(images: Sequence[ImageReport]) -> dict[str, Any] | None:
  """Distributions over all cells of the run; None for fewer than two images."""
  done = [image for image in images if image.num_cells]
  if len(done) < 2:
    return None
  parts: dict[str, list[Distribution]] = {}
  for image in done:
    for marker in image.markers:
      parts.setdefault(marker.name, []).append(marker)
  markers = [pool_distributions(part) for part in parts.values()]
  return {
    "area_figure": run_figures.draw_areas(
      pool_distributions([image.area_um2 for image in done])
    ),
    "marker_figures": draw_columns(
      markers, run_figures.choose_num_bins(markers)
    ),
    "num_images": len(done),
  }


def _sum_stages(
  images: Iterable[ImageReport],
) -> list[tuple[str, float, float]]:
  """Returns (stage, seconds over all images, share in %), in order."""
  totals: dict[str, float] = {}
  for image in images:
    for stage, seconds in image.seconds.items():
      totals[stage] = totals.get(stage, 0.0) + seconds
  whole = sum(totals.values()) or 1.0
  return [(name, value, 100 * value / whole) for name, value in totals.items()]


def _is_missing(value: float | None) -> bool:
  """Whether there is no number to print."""
  return value is None or not math.isfinite(value)


def format_count(value: float | None) -> str:
  """Writes a number without decimals, thousands parted by commas."""
  return NO_VALUE if value is None or _is_missing(value) else f"{value:,.0f}"


def format_seconds(value: float | None) -> str:
  """Writes a duration as 0.42 s, 12.3 s, 4 min 05 s or 2 h 03 min."""
  if value is None or _is_missing(value):
    return NO_VALUE
  if value < 59.95:
    return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
  minutes, seconds = divmod(round(value), 60)
  if minutes < 60:
    return f"{minutes} min {seconds:02d} s"
  return f"{minutes // 60} h {minutes % 60:02d} min"


def format_size(size_um: tuple[float, float] | None) -> str:
  """Writes width x height in um, as microscopists do."""
  if size_um is None:
    return NO_VALUE
  height_um, width_um = size_um
  return f"{width_um:,.0f} × {height_um:,.0f} µm"
