"""Distributions as inline SVG: small, sharp in print, coloured by the page.

Colours come from the page's style sheet by class, so the figures follow its
light and dark looks. Coordinates are in a viewBox that scales with the page.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from dicexmbd_jax.report.image_report import (
  AREA_BIN_UM2,
  INTENSITY_BINS_PER_UNIT,
  NUM_AREA_BINS,
  Distribution,
)

# Ticks of the intensity axis: counts and how they are written.
INTENSITY_TICKS = (0.0, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
MIN_INTENSITY_BINS = 31  # The axis reaches at least 100 counts.
AREA_TICKS_UM2 = (0, 100, 200, 300, 400, 500)
NAME_LENGTH = 16


def draw_areas(area: Distribution) -> Markup:
  """Draws a histogram of cell areas, 0 to 500 um2 and more, median marked.

  Without cells there is an axis and no bar.
  """
  bin_width, height, top = 5, 110, 6
  base = top + height
  width = NUM_AREA_BINS * bin_width
  peak = max(area.histogram, default=0) or 1
  tall = [height * count / peak for count in area.histogram]
  bars = "".join(
    f"M{i * bin_width} {base}v-{length:.1f}h{bin_width - 1}V{base}"
    for i, length in enumerate(tall)
    if length
  )
  parts = [f'<path class="bar" d="{bars}"/>']
  if area.median is not None:
    x = min(area.median / AREA_BIN_UM2, NUM_AREA_BINS - 0.5) * bin_width
    parts.append(f'<path class="median" d="M{x:.1f} {top - 4}V{base}"/>')
  parts.append(_draw_area_axis(bin_width, base, width))
  # The label of the first tick, centred on 0, needs room to the left.
  return Markup(
    f'<svg class="areas" viewBox="-8 0 {width + 16} {base + 30}" role="img" '
    f'aria-label="Histogram of cell areas">{"".join(parts)}</svg>'
  )


def _draw_area_axis(bin_width: int, base: int, width: int) -> str:
  """The line, ticks and labels below the bars."""
  parts = [f'<path class="axis" d="M0 {base}H{width}"/>']
  last = AREA_TICKS_UM2[-1]
  for tick in AREA_TICKS_UM2:
    x = tick / AREA_BIN_UM2 * bin_width
    label = f"{tick}+" if tick == last else str(tick)
    parts.append(
      f'<text class="tick" x="{x:.0f}" y="{base + 13}">{label}</text>'
    )
  parts.append(
    f'<text class="tick" x="{width / 2:.0f}" y="{base + 27}">cell area, µm²'
    "</text>"
  )
  return "".join(parts)


def choose_num_bins(markers: Sequence[Distribution]) -> int:
  """Returns the length of an intensity axis that holds all these markers."""
  longest = max((len(marker.histogram) for marker in markers), default=0)
  return max(MIN_INTENSITY_BINS, longest + 1)


def draw_markers(markers: Sequence[Distribution], num_bins: int) -> Markup:
  """Draws one row per marker: name, distribution over cells, median.

  All rows share the axis, log10(1 + 10 counts), so that markers and images
  compare. The height is the square root of the share of cells, each row scaled
  to its own peak: the square root keeps a population of a few per cent in view.

  Args:
    markers: any number; one without cells keeps its row, empty.
    num_bins: length of the axis, from `choose_num_bins`.
  """
  row, left, plot = 17, 112, 190
  base = len(markers) * row + 3
  shapes, medians, texts = [], [], []
  for i, marker in enumerate(markers):
    bottom = (i + 1) * row
    shapes.append(_draw_ridge(marker, left, bottom, plot / num_bins))
    texts.append(_write_name(marker.name, left - 8, bottom - 3))
    if marker.median is not None:
      x = left + _place_counts(marker.median) * plot / num_bins
      medians.append(f"M{x:.1f} {bottom}v-13")
      texts.append(
        f'<text class="value" x="{left + plot + 40}" y="{bottom - 3}">'
        f"{format_counts(marker.median)}</text>"
      )
  if medians:
    x = left + plot + 40
    texts.append(f'<text class="value" x="{x}" y="{base + 25}">median</text>')
  return Markup(
    f'<svg class="markers" viewBox="0 0 {left + plot + 44} {base + 28}" '
    'role="img" aria-label="Mean counts per cell, by marker">'
    f"{_draw_intensity_axis(left, base, plot, num_bins)}"
    f'<path class="ridge" d="{"".join(shapes)}"/>'
    f'<path class="median" d="{"".join(medians)}"/>{"".join(texts)}</svg>'
  )


def _draw_ridge(
  marker: Distribution, left: float, bottom: float, step: float
) -> str:
  """The outline of one row's histogram, as path data."""
  peak = max(marker.histogram, default=0)
  if peak == 0:
    return ""
  data = [f"M{left} {bottom}"]
  for i, count in enumerate(marker.histogram):
    y = bottom - 14 * math.sqrt(count / peak)
    data.append(f"V{y:.1f}H{left + (i + 1) * step:.1f}")
  return "".join([*data, f"V{bottom}"])


def _place_counts(counts: float) -> float:
  """Position on the intensity axis, in bins."""
  return math.log10(1 + 10 * max(counts, 0.0)) * INTENSITY_BINS_PER_UNIT


def _write_name(name: str, x: float, y: float) -> str:
  """A marker's name, cut to what fits, in full as a tool tip."""
  short = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
  title = f"<title>{escape(name)}</title>" if short != name else ""
  return f'<text class="name" x="{x}" y="{y}">{escape(short)}{title}</text>'


def _draw_intensity_axis(
  left: float, base: float, plot: float, num_bins: int
) -> str:
  """Vertical lines at 0 and the powers of ten, with labels below."""
  lines, labels = [], []
  for tick in INTENSITY_TICKS:
    position = _place_counts(tick)
    if position > num_bins:
      break
    x = left + position * plot / num_bins
    lines.append(f"M{x:.1f} 0V{base}")
    labels.append(
      f'<text class="tick" x="{x:.1f}" y="{base + 12}">{tick:,g}</text>'
    )
  middle = left + plot / 2
  return (
    f'<path class="grid" d="{"".join(lines)}"/>{"".join(labels)}'
    f'<text class="tick" x="{middle:.0f}" y="{base + 25}">mean counts per '
    "cell</text>"
  )


def format_counts(value: float) -> str:
  """Writes counts with two or three digits, as a reader would."""
  if abs(value) >= 100:
    return f"{value:,.0f}"
  if abs(value) >= 10:
    return f"{value:.1f}"
  return f"{value:.2f}"
