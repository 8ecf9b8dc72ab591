"""The page of an evaluation: one HTML file that needs nothing but itself."""

import base64
import dataclasses
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dicexmbd_jax.report import cell_figures, score_figures
from dicexmbd_jax.report.page import fill_template, format_score

if TYPE_CHECKING:
  import pandas as pd
  from matplotlib.figure import Figure

# Score, heading, whether more is better (None: neither).
TABLE_SCORES = (
  ("f1_iou_0.50", "F1 at IoU 0.5", True),
  ("f1_iou_0.75", "F1 at IoU 0.75", True),
  ("ap_iou_mean", "Mean AP", True),
  ("pq", "Panoptic quality", True),
  ("aji", "Aggregated Jaccard", True),
  ("dice", "Foreground Dice", True),
  ("boundary_f1", "Boundary F1, tolerant", True),
  ("pixel_f1", "Boundary F1, exact", True),
  ("pixel_jaccard", "Boundary Jaccard", True),
  ("cell_recall", "Cell recall", True),
  ("cell_precision", "Cell precision", True),
  ("cell_f1", "Cell F1", True),
  ("oversplit", "Oversplit", False),
  ("merge", "Merge", False),
  ("iou_mean", "IoU of pairs", True),
  ("count_pearson", "Count correlation", True),
  ("profile_pearson", "Profile correlation", True),
  ("marker_pearson", "Marker correlation", True),
)
DIFFERENCE_SCORES = {
  "f1_iou_0.50": "F1 at IoU 0.5",
  "cell_f1": "cell F1",
  "pixel_f1": "boundary F1",
  "pq": "panoptic quality",
  "aji": "aggregated Jaccard",
}
EVENT_SCORES = (
  ("num_reference", "Reference cells"),
  ("num_predicted", "Predicted cells"),
  ("mesmer_correct", "Correct"),
  ("mesmer_missed", "Missed"),
  ("mesmer_gained", "Gained"),
  ("mesmer_split", "Splits"),
  ("mesmer_merge", "Merges"),
  ("mesmer_catastrophe", "Catastrophes"),
)
CAPTIONS = {
  "scores": "Scores of outlines and of cells: mean and standard deviation over "
  "images; each point is an image. (Paper, figures 2A and 3A.)",
  "thresholds": "F1 and average precision, TP / (TP + FP + FN), over the IoU "
  "from which a predicted cell counts as found.",
  "counts": "Cells per image, predicted against reference; the line is "
  "equality. (Figures 2B, 3B.)",
  "ious": "IoU of one-to-one pairs, all images together. (Figure 2D.)",
  "heat_map": "Scores, and shares of predicted cells that are split or merged, "
  "by image. (Figures 2C, 3C.)",
  "differences": "Paired differences on the same images. An interval that does "
  "not touch zero speaks for a real difference.",
  "example": "Predicted cells by their match: matched ones in blue by their "
  "IoU, merged (-0.4), split (-0.8) and those without a counterpart (-1). "
  "(Figure 2E.)",
  "profiles": "Does a cell measure the same? Correlation over markers of the "
  "mean counts of a cell and its partner. (Figure 4B.)",
  "markers": "Correlation over cells of the mean counts of each marker; one "
  "value per image. (Figure 4C.)",
}


@dataclasses.dataclass(frozen=True)
class ScoreReport:
  """What the page shows.

  Attributes:
    summary: methods, intervals, sd, num_images, differences; values as in
      summary.json, NaN where there is none.
    images: a row per method and image: `method`, `image` and the scores.
    ious: method -> IoU of the one-to-one pairs of all images.
    example: one image's cells by their match; None without images.
    profiles: method -> correlation of each pair's profile; may be empty.
    markers: `method`, `image`, `marker`, `pearson`; None without images.
    failures: lines on what could not be evaluated.
    details: name -> value, for the table at the end.
  """

  summary: Mapping[str, Mapping]
  images: "pd.DataFrame"
  ious: Mapping[str, np.ndarray]
  example: cell_figures.Example | None
  profiles: Mapping[str, np.ndarray]
  markers: "pd.DataFrame | None"
  failures: Sequence[str]
  details: Mapping[str, Any]


def draw_figures(report: ScoreReport) -> dict[str, "Figure"]:
  """Draws every figure that the data allow, by file name."""
  if report.images.empty:
    return {}
  methods = report.summary["methods"]
  evaluated = {name: scores for name, scores in methods.items() if scores}
  none = np.zeros(0)  # A method without pairs keeps its place and colour.
  pearson = {
    name: scores["count_pearson"] for name, scores in evaluated.items()
  }
  figures = {
    "scores": score_figures.draw_scores(report.images),
    "thresholds": score_figures.draw_thresholds(evaluated),
    "counts": score_figures.draw_counts(report.images, pearson),
    "ious": cell_figures.draw_densities(
      {name: report.ious.get(name, none) for name in evaluated}
    ),
    "heat_map": score_figures.draw_heat_map(report.images),
    "differences": score_figures.draw_differences(
      select_pairs(report.summary), DIFFERENCE_SCORES
    ),
  }
  if report.example is not None:
    figures["example"] = cell_figures.draw_example(report.example)
  figures["profiles"] = cell_figures.draw_profiles(
    {name: report.profiles.get(name, none) for name in evaluated}
  )
  if report.markers is not None:
    figures["markers"] = cell_figures.draw_marker_correlations(
      report.markers, list(evaluated)
    )
  return {name: page for name, page in figures.items() if page is not None}


def select_pairs(summary: Mapping[str, Mapping]) -> dict[str, Mapping]:
  """Differences to draw: all pairs, of many methods those with the first."""
  pairs, num_methods = summary["differences"], len(summary["methods"])
  num_pairs = len(pairs) if num_methods <= 4 else num_methods - 1
  return dict(itertools.islice(pairs.items(), num_pairs))


def render_figure(page: "Figure", kind: str) -> bytes:
  """Renders a figure as "png" (200 dots per inch) or "pdf"."""
  data = io.BytesIO()
  # No date inside: the same scores give the same bytes.
  metadata = {"CreationDate": None} if kind == "pdf" else None
  page.savefig(data, format=kind, dpi=200, metadata=metadata)
  return data.getvalue()


def render_page(report: ScoreReport, figures: Mapping[str, bytes]) -> str:
  """Renders the page.

  Args:
    report: what it shows.
    figures: the PNGs by name, as in CAPTIONS.

  Returns:
    HTML that encodes as UTF-8 without errors, figures inside.
  """
  notes = _note_choices(report)
  return fill_template(
    "scores.html",
    {},
    report=report,
    rows=_list_rows(report.summary),
    events=_list_events(report.summary),
    figures=[
      {
        "name": name,
        "png": base64.b64encode(figures[name]).decode("ascii"),
        "caption": " ".join([caption, *notes.get(name, [])]),
        "is_small": name in ("counts", "ious", "profiles"),
      }
      for name, caption in CAPTIONS.items()
      if name in figures
    ],
    has_few=any(0 < n < 10 for n in report.summary["num_images"].values()),
    event_titles=[title for _, title in EVENT_SCORES],
  )


def _note_choices(report: ScoreReport) -> dict[str, list[str]]:
  """Says of figures that show a part of the images alone which part it is."""
  notes = {}
  if report.example is not None:
    notes["example"] = [f"Image: {report.example.name}, of median F1."]
  num_images = 0 if report.images.empty else report.images["image"].nunique()
  if num_images > score_figures.MAX_ROWS:
    notes["heat_map"] = [
      f"The {score_figures.MAX_ROWS} of {num_images} images with the lowest "
      "mean cell F1."
    ]
  return notes


def _list_rows(summary: Mapping[str, Mapping]) -> list[dict[str, Any]]:
  """One row per score: mean and interval of each method, the best marked."""
  methods = summary["methods"]
  rows = []
  for name, title, is_more in TABLE_SCORES:
    values = {m: s[name] for m, s in methods.items() if name in s}
    finite = [v for v in values.values() if not math.isnan(v)]
    if not finite:
      continue
    best = max(finite) if is_more else min(finite)
    cells = []
    for method in methods:
      value = values.get(method)
      low, high = summary["intervals"][method].get(name, (math.nan, math.nan))
      cells.append(
        {
          "value": format_score(value),
          "interval": ""
          if math.isnan(low)
          else f"{format_score(low)} to {format_score(high)}",
          "is_best": len(finite) > 1 and value == best,
        }
      )
    rows.append({"name": name, "title": title, "cells": cells})
  return rows


def _list_events(summary: Mapping[str, Mapping]) -> list[dict[str, Any]]:
  """One row per method: mean counts per image."""
  return [
    {
      "method": name,
      "counts": [f"{scores[key]:,.1f}" for key, _ in EVENT_SCORES],
    }
    for name, scores in summary["methods"].items()
    if scores
  ]
