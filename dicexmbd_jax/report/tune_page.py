"""The page of a fine-tuning: one HTML file that needs nothing but itself."""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image as pillow

from dicexmbd_jax.report.page import NO_VALUE, fill_template, format_score

_SHARES = (
  ("splits", "Cells found in pieces"),
  ("merges", "Cells found as one"),
  ("count_error", "Count error"),
)
_WIDTH, _HEIGHT, _MARGIN = 640, 180, 36


@dataclasses.dataclass(frozen=True)
class TuneReport:
  """What the page shows.

  Attributes:
    verdict: whether the model is better, in one line.
    is_better: the same.
    scores: of `before` and `after`, see finetune.judge.
    advice: one line each.
    history: (seconds, F1) of each validation.
    details: rows of the last table.
    pictures: name and RGB pixels of each.
    what: the objects that are judged: cells, nuclei ...
  """

  verdict: str
  is_better: bool
  scores: Mapping[str, Mapping[str, float]]
  advice: Sequence[str]
  history: Sequence[tuple[float, float]]
  details: Mapping[str, Any]
  pictures: Sequence[tuple[str, np.ndarray]]
  what: str


def render_tune_page(report: TuneReport) -> str:
  """Returns the page, HTML."""
  before, after = report.scores["before"], report.scores["after"]
  rows = [
    {
      "title": f"F1 of {report.what}, "
      + ("by pixels" if report.what == "membrane" else "at IoU 0.5"),
      "cells": [
        (
          format_score(one["f1"]),
          f"{format_score(one['f1_low'])} to {format_score(one['f1_high'])}",
        )
        for one in (before, after)
      ],
    }
  ]
  for name, title in _SHARES:
    cells = [(_format_share(one[name], name), "") for one in (before, after)]
    rows.append({"title": title, "cells": cells})
  counts = [(f"{one['num_found']:,}", "") for one in (before, after)]
  labelled = f"Found ({after['num_labelled']:,} labelled)"
  rows.append({"title": labelled, "cells": counts})
  return fill_template(
    "tune.html",
    {},
    report=report,
    rows=rows,
    curve=draw_curve(report.history, before["f1"]),
    pictures=[
      {"name": name, "png": encode_png(pixels)}
      for name, pixels in report.pictures
    ],
  )


def draw_curve(
  history: Sequence[tuple[float, float]], start_f1: float
) -> Markup:
  """Draws validation scores over the minutes of training, as SVG.

  Args:
    history: (seconds, F1).
    start_f1: of the model before; a dashed line.

  Returns:
    The SVG; empty with fewer than two scores.
  """
  if len(history) < 2:
    return Markup("")
  seconds, scores = (np.array(column) for column in zip(*history, strict=True))
  low = min(scores.min(), start_f1) - 0.02
  high = max(scores.max(), start_f1) + 0.02
  x = _MARGIN + (_WIDTH - 2 * _MARGIN) * seconds / max(seconds[-1], 1e-9)

  def place(value):
    room = _HEIGHT - 2 * _MARGIN
    return _HEIGHT - _MARGIN - room * (value - low) / (high - low)

  y = place(scores)
  points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
  dots = "".join(
    f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
    for a, b in zip(x, y, strict=True)
  )
  start = float(place(start_f1))
  return Markup(
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
    'aria-label="Validation F1 over time">'
    f'<line class="start" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" '
    f'y1="{start:.1f}" y2="{start:.1f}"/>'
    f'<text x="{_WIDTH - _MARGIN}" y="{start - 5:.1f}" '
    f'text-anchor="end">before {start_f1:.3f}</text>'
    f'<polyline points="{points}"/>{dots}'
    f'<text x="{x[-1]:.1f}" y="{y[-1] - 8:.1f}" text-anchor="end">'
    f"{scores[-1]:.3f}</text>"
    f'<text x="{_MARGIN}" y="{_HEIGHT - 8}">0</text>'
    f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 8}" text-anchor="end">'
    f"{seconds[-1] / 60:.1f} min</text></svg>"
  )


def encode_png(pixels: np.ndarray) -> str:
  """Returns RGB pixels as PNG in base64."""
  file = io.BytesIO()
  pillow.fromarray(pixels).save(file, "PNG", optimize=True)
  return base64.b64encode(file.getvalue()).decode()


def _format_share(value: float, name: str) -> str:
  if not np.isfinite(value):
    return NO_VALUE
  return f"{value:+.0%}" if name == "count_error" else f"{value:.0%}"
