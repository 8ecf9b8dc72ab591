"""Figures of scores by image and method, after the paper's figures 2 and 3.

Each function returns a matplotlib Figure, or None where there is nothing to
draw.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes

from dicexmbd_jax.report import style

if TYPE_CHECKING:
  import pandas as pd

MAX_POINTS = 40  # Images shown as points; above, the bars say enough.
MAX_ROWS = 60  # Images shown in the heat map.
PIXEL_SCORES = {
  "pixel_recall": "Recall",
  "pixel_precision": "Precision",
  "pixel_f1": "F1",
  "pixel_jaccard": "Jaccard",
}
CELL_SCORES = {
  "cell_recall": "Recall",
  "cell_precision": "Precision",
  "cell_f1": "F1",
  "cell_jaccard": "Jaccard",
}
HEAT_SCORES = {
  "cell_recall": "recall",
  "cell_precision": "precision",
  "cell_f1": "F1",
  "f1_iou_0.50": "F1 at 0.5",
  "oversplit": "oversplit",
  "merge": "merge",
}


def draw_scores(images: "pd.DataFrame") -> style.Figure:
  """Bars of pixel- and cell-level scores with SD (figures 2A and 3A).

  Args:
    images: a row per method and image: `method`, `image` and the scores.
  """
  methods = style.list_methods(images)
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN, 2.7)
    axes = page.subplots(1, 2, sharey=True)
    for ax, names, title in zip(
      axes,
      (PIXEL_SCORES, CELL_SCORES),
      ("Outlines, pixel by pixel", "Cells, IoU of at least 0.1"),
      strict=True,
    ):
      _draw_bars(ax, images, methods, names)
      ax.set_title(title)
    axes[0].set(ylabel="mean and SD over images", ylim=(0, 1.02))
    style.add_legend(page, axes[0], methods)
  return page


def draw_counts(
  images: "pd.DataFrame", pearson: Mapping[str, float]
) -> style.Figure:
  """Predicted against reference cell counts (figures 2B and 3B).

  Args:
    images: as for draw_scores.
    pearson: method -> correlation, NaN where there is none.
  """
  methods = style.list_methods(images)
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN / 2, 3.3)
    ax = page.subplots()
    top = images[["num_predicted", "num_reference"]].to_numpy().max() * 1.06 + 1
    ax.plot([0, top], [0, top], color="#999999", linewidth=0.8, zorder=1)
    for i, name in enumerate(methods):
      rows = images[images["method"] == name]
      value = pearson.get(name, np.nan)
      ax.scatter(
        rows["num_reference"],
        rows["num_predicted"],
        s=24,
        facecolor="none",  # Equal counts of two methods both show.
        edgecolor=style.pick_color(i),
        marker=style.pick_marker(i),
        linewidth=1.1,
        label=f"{name}" + ("" if np.isnan(value) else f", r = {value:.3f}"),
        zorder=2,
      )
    ax.set(
      xlabel="cells in the reference",
      ylabel="cells predicted",
      xlim=(0, top),
      ylim=(0, top),
      aspect="equal",
    )
    page.legend(loc="outside lower center", handletextpad=0.2)
  return page


def draw_heat_map(images: "pd.DataFrame") -> style.Figure:
  """Scores, oversplit and merge by image and method (figures 2C and 3C).

  Up to MAX_ROWS images, those with the lowest mean F1 if there are more.
  """
  methods = style.list_methods(images)
  means = images.groupby("image", sort=False)["cell_f1"].mean()
  kept = list(means.sort_values(kind="stable").index[:MAX_ROWS])
  stems = [stem for stem in means.index if stem in set(kept)]
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN, 1.3 + 0.19 * len(stems))
    axes = page.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    size = 6.5 if len(methods) <= 3 else 5.2
    has_numbers = len(methods) <= 4
    for ax, name in zip(axes, methods, strict=True):
      rows = images[images["method"] == name].set_index("image").reindex(stems)
      values = rows[list(HEAT_SCORES)].to_numpy(float)
      _draw_heat(ax, values, size if has_numbers else None)
      ax.set_title(style.shorten(name, 30 if len(methods) < 4 else 14))
      ax.set_xticks(
        range(len(HEAT_SCORES)),
        list(HEAT_SCORES.values()),
        rotation=60,
        ha="right",
        rotation_mode="anchor",
      )
    axes[0].set_yticks(range(len(stems)), [style.shorten(s, 26) for s in stems])
    scale = mpl.cm.ScalarMappable(colors.Normalize(0, 1), "Blues")
    page.colorbar(scale, ax=axes, fraction=0.03, pad=0.01, aspect=20)
  return page


def draw_thresholds(methods: Mapping[str, Mapping[str, float]]) -> style.Figure:
  """F1 and average precision over the IoU that counts as found.

  Args:
    methods: method -> score -> mean, as in summary.json.
  """
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN, 2.8)
    axes = page.subplots(1, 2, sharey=True)
    for ax, kind, title in zip(
      axes, ("f1", "ap"), ("F1", "Average precision"), strict=True
    ):
      for i, (name, scores) in enumerate(methods.items()):
        points = sorted(
          (float(key[-4:]), value)
          for key, value in scores.items()
          if re.fullmatch(rf"{kind}_iou_\d\.\d\d", key)
        )
        x, y = np.array(points).T
        ax.plot(
          x,
          y,
          color=style.pick_color(i),
          linestyle=style.pick_line(i),
          marker=style.pick_marker(i),
          markersize=3.5,
          linewidth=1.2,
          label=name,
        )
      ax.set(title=title, xlabel="IoU from which a cell counts as found")
      ax.grid(True, axis="y")
    axes[0].set(ylabel="mean over images", ylim=(0, 1.02))
    style.add_legend(page, axes[0], list(methods))
  return page


def draw_differences(
  differences: Mapping[str, Mapping[str, Mapping]], names: Mapping[str, str]
) -> style.Figure | None:
  """Paired differences between methods with their intervals.

  Args:
    differences: "A - B" -> score -> `mean`, `interval`, as in summary.json.
    names: scores to show -> what they are called.
  """
  rows = [
    (pair, name, found[name])
    for pair, found in differences.items()
    for name in names
    if name in found and not np.isnan(found[name]["mean"])
  ]
  if not rows:
    return None
  kinds = list(names)
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN, 0.8 + 0.2 * len(rows))
    ax = page.subplots()
    ax.axvline(0, color="#999999", linewidth=0.8)
    for y, (_, name, value) in enumerate(rows):
      i = kinds.index(name)
      color = style.pick_color(i)
      ax.plot(value["interval"], [y, y], color=color, linewidth=1.4)
      marker = style.pick_marker(i)
      ax.plot(value["mean"], y, color=color, markersize=4.5, marker=marker)
    labels = [f"{style.shorten(pair, 44)}:  {names[n]}" for pair, n, _ in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("difference of the means, 95 % interval over images")
    ax.grid(True, axis="x")
  return page


def _draw_bars(
  ax: Axes,
  images: "pd.DataFrame",
  methods: Sequence[str],
  names: Mapping[str, str],
) -> None:
  """Groups of bars, one group per score and one bar per method."""
  step = 0.8 / len(methods)
  for i, method in enumerate(methods):
    rows = images.loc[images["method"] == method, list(names)]
    x = np.arange(len(names)) - 0.4 + step * (i + 0.5)
    deviation = rows.std(ddof=1) if len(rows) > 1 else None
    ax.bar(
      x,
      rows.mean(),
      step * 0.9,
      yerr=deviation,
      color=style.pick_color(i),
      hatch=style.pick_hatch(i),
      edgecolor="white",
      linewidth=0,
      error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#222222"},
    )
    if 1 < len(rows) <= MAX_POINTS:
      spread = np.linspace(-0.25, 0.25, len(rows)) * step
      for place, name in zip(x, names, strict=True):
        ax.plot(
          place + spread,
          rows[name],
          ".",
          color="#222222",
          markersize=1.6,
          alpha=0.6,
        )
  ax.set_xticks(range(len(names)), list(names.values()))
  ax.grid(True, axis="y")


def _draw_heat(ax: Axes, values: np.ndarray, font_pt: float | None) -> None:
  ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
  ax.tick_params(length=0)
  ax.spines[:].set_visible(False)
  if font_pt is None:
    return
  for (y, x), value in np.ndenumerate(values):
    if not np.isnan(value):
      color = "white" if value > 0.6 else "#222222"
      ax.text(
        x,
        y,
        f"{value:.2f}",
        ha="center",
        va="center",
        color=color,
        fontsize=font_pt,
      )
