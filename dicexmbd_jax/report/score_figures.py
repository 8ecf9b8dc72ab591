"""Figures of an evaluation, after the paper's figures 2 to 4.

Every figure works in print without colour: methods differ in hatch, marker and
line style as well as in a colour of Okabe and Ito's palette, which the
colour-blind can tell apart. Each function returns a matplotlib Figure, or None
where there is nothing to draw.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib import colors, figure, patches
from matplotlib.axes import Axes

if TYPE_CHECKING:
  import pandas as pd

COLORS = (
  "#0072B2",
  "#E69F00",
  "#009E73",
  "#CC79A7",
  "#56B4E9",
  "#D55E00",
  "#666666",
)
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "oo")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = (
  "-",
  "--",
  "-.",
  ":",
  (0, (5, 1, 1, 1, 1, 1)),
  (0, (8, 2)),
  (0, (1, 1)),
)
STYLE: Any = {
  "font.size": 8.5,
  "font.family": "sans-serif",
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.axisbelow": True,
  "axes.grid": False,
  "grid.color": "#dfe3e8",
  "hatch.linewidth": 0.5,
  "legend.frameon": False,
  "pdf.fonttype": 42,  # Text stays text in PDFs.
}
WIDTH_IN = 7.4
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
MERGED, SPLIT, OTHER = "#E69F00", "#CC79A7", "#222222"
MERGED_VALUE, SPLIT_VALUE, OTHER_VALUE = -0.4, -0.8, -1.0

Figure = figure.Figure


@dataclasses.dataclass(frozen=True)
class Example:
  """One image, its cells painted with their match values.

  Attributes:
    name: of the image.
    values: method -> float32 (y, x): IoU in matched cells, -0.4 in merged, -0.8
      in split, -1 in other cells, NaN in the background.
    outlines: bool (y, x), boundary pixels of the reference's cells.
  """

  name: str
  values: Mapping[str, np.ndarray]
  outlines: np.ndarray


def draw_scores(images: "pd.DataFrame") -> Figure:
  """Bars of pixel- and cell-level scores with SD (figures 2A and 3A).

  Args:
    images: a row per method and image: `method`, `image` and the scores.
  """
  methods = list_methods(images)
  with mpl.rc_context(STYLE):
    page = _start_figure(WIDTH_IN, 2.7)
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
    _add_legend(page, axes[0], methods)
  return page


def draw_counts(images: "pd.DataFrame", pearson: Mapping[str, float]) -> Figure:
  """Predicted against reference cell counts (figures 2B and 3B).

  Args:
    images: as for draw_scores.
    pearson: method -> correlation, NaN where there is none.
  """
  methods = list_methods(images)
  with mpl.rc_context(STYLE):
    page = _start_figure(WIDTH_IN / 2, 3.3)
    ax = page.subplots()
    top = images[["num_predicted", "num_reference"]].to_numpy().max() * 1.06 + 1
    ax.plot([0, top], [0, top], color="#999999", linewidth=0.8, zorder=1)
    for i, name in enumerate(methods):
      rows = images[images["method"] == name]
      value = pearson.get(name, np.nan)
      ax.scatter(
        rows["num_reference"],
        rows["num_predicted"],
        s=22,
        color=COLORS[i % len(COLORS)],
        marker=MARKERS[i % len(MARKERS)],
        edgecolor="white",
        linewidth=0.4,
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


def draw_heat_map(images: "pd.DataFrame") -> Figure:
  """Scores, oversplit and merge by image and method (figures 2C and 3C).

  Up to MAX_ROWS images, those with the lowest mean F1 if there are more.
  """
  methods = list_methods(images)
  means = images.groupby("image", sort=False)["cell_f1"].mean()
  kept = list(means.sort_values(kind="stable").index[:MAX_ROWS])
  stems = [stem for stem in means.index if stem in set(kept)]
  with mpl.rc_context(STYLE):
    page = _start_figure(WIDTH_IN, 1.3 + 0.19 * len(stems))
    axes = page.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    has_numbers = len(methods) <= 3
    for ax, name in zip(axes, methods, strict=True):
      rows = images[images["method"] == name].set_index("image").reindex(stems)
      values = rows[list(HEAT_SCORES)].to_numpy(float)
      _draw_heat(ax, values, has_numbers)
      ax.set_title(_shorten(name, 30 if len(methods) < 4 else 14))
      ax.set_xticks(
        range(len(HEAT_SCORES)),
        list(HEAT_SCORES.values()),
        rotation=60,
        ha="right",
        rotation_mode="anchor",
      )
    axes[0].set_yticks(range(len(stems)), [_shorten(s, 26) for s in stems])
    scale = mpl.cm.ScalarMappable(colors.Normalize(0, 1), "Blues")
    page.colorbar(scale, ax=axes, fraction=0.03, pad=0.01, aspect=20)
  return page


def draw_densities(ious: Mapping[str, np.ndarray]) -> Figure | None:
  """Density of the IoU of one-to-one pairs, all images (figure 2D)."""
  with mpl.rc_context(STYLE):
    page = _start_figure(WIDTH_IN / 2, 2.9)
    ax = page.subplots()
    grid = np.linspace(0, 1, 201)
    for i, (name, values) in enumerate(ious.items()):
      if not len(values):
        continue
      color = COLORS[i % len(COLORS)]
      label = (
        f"{name}: mean {values.mean():.3f}, median {np.median(values):.3f}"
      )
      line = LINES[i % len(LINES)]
      density = estimate_density(values, grid)
      ax.plot(grid, density, color=color, linestyle=line, label=label)
      ax.fill_between(grid, density, color=color, alpha=0.08, linewidth=0)
    if not ax.lines:
      return None
    ax.set(xlabel="IoU of one-to-one pairs", ylabel="density", xlim=(0, 1))
    ax.set_ylim(bottom=0)
    page.legend(loc="outside lower center", fontsize=7.5)
  return page


def draw_thresholds(methods: Mapping[str, Mapping[str, float]]) -> Figure:
  """F1 and average precision over the IoU that counts as found.

  Args:
    methods: method -> score -> mean, as in summary.json.
  """
  with mpl.rc_context(STYLE):
    page = _start_figure(WIDTH_IN, 2.8)
    axes = page.subplots(1, 2, sharey=True)
    for ax, kind, title in zip(
      axes, ("f1", "ap"), ("F1", "Average precision"), strict=True
    ):
      for i, (name, scores) in enumerate(methods.items()):
        points = sorted(
          (float(key.rsplit("_", 1)[1]), value)
          for key, value in scores.items()
          if key.startswith(f"{kind}_iou_0") and key[-4:-2] == "0."
        )
        x, y = np.array(points).T
        ax.plot(
          x,
          y,
          color=COLORS[i % len(COLORS)],
          linestyle=LINES[i % len(LINES)],
          marker=MARKERS[i % len(MARKERS)],
          markersize=3.5,
          linewidth=1.2,
          label=name,
        )
      ax.set(title=title, xlabel="IoU from which a cell counts as found")
      ax.grid(True, axis="y")
    axes[0].set(ylabel="mean over images", ylim=(0, 1.02))
    _add_legend(page, axes[0], list(methods))
  return page


def draw_example(example: Example, max_px: int = 320) -> Figure | None:
  """One image with its cells coloured by match value (figure 2E).

  Args:
    example: the image.
    max_px: edge of the part that is shown, from the image's middle.
  """
  if not example.outlines.size:
    return None
  window = tuple(
    slice(max(0, (n - max_px) // 2), max(0, (n - max_px) // 2) + max_px)
    for n in example.outlines.shape
  )
  num_columns = min(3, max(2, len(example.values)))
  num_rows = -(-len(example.values) // num_columns)
  with mpl.rc_context(STYLE):
    size = WIDTH_IN / num_columns
    page = _start_figure(WIDTH_IN, num_rows * (size + 0.15) + 0.45)
    axes = list(page.subplots(num_rows, num_columns, squeeze=False).flat)
    for ax in axes:
      ax.set_axis_off()
    for ax, (name, values) in zip(axes, example.values.items(), strict=False):
      pixels = color_matches(values[window], example.outlines[window])
      ax.imshow(pixels, interpolation="nearest")
      ax.set_title(_shorten(name, 34))
    _add_match_legend(page, axes[: len(example.values)])
  return page


def draw_profiles(profiles: Mapping[str, np.ndarray]) -> Figure | None:
  """Box plots of the correlation of each cell's profile (figure 4B).

  Args:
    profiles: method -> Pearson over markers, one per one-to-one pair.
  """
  profiles = {
    name: values[~np.isnan(values)] for name, values in profiles.items()
  }
  if not any(len(values) for values in profiles.values()):
    return None
  with mpl.rc_context(STYLE):
    page = _start_figure(WIDTH_IN / 2, 2.9)
    ax = page.subplots()
    _draw_boxes(ax, list(profiles.values()), range(len(profiles)), 0.55)
    labels = [_shorten(name, 16) for name in profiles]
    ax.set_xticks(range(len(profiles)), labels)
    if len(labels) > 3:
      ax.tick_params(axis="x", rotation=30)
    ax.set_ylabel("Pearson r over markers, per cell")
    ax.grid(True, axis="y")
  return page


def draw_markers(markers: "pd.DataFrame") -> Figure | None:
  """Box plots over images of each marker's correlation (figure 4C).

  Args:
    markers: `method`, `image`, `marker`, `pearson`.
  """
  markers = markers.dropna(subset=["pearson"])
  if markers.empty:
    return None
  methods, names = list_methods(markers), list(dict.fromkeys(markers["marker"]))
  with mpl.rc_context(STYLE):
    page = _start_figure(max(WIDTH_IN, 0.2 * len(names) * len(methods)), 3.0)
    ax = page.subplots()
    step = 0.8 / len(methods)
    groups = markers.groupby(["method", "marker"])["pearson"]
    found = {key: values.to_numpy() for key, values in groups}
    for i, method in enumerate(methods):
      values = [found.get((method, name), np.zeros(0)) for name in names]
      places = np.arange(len(names)) - 0.4 + step * (i + 0.5)
      _draw_boxes(ax, values, places, step * 0.8, i)
    ax.set_xticks(range(len(names)), [_shorten(n, 18) for n in names])
    ax.tick_params(axis="x", rotation=60)
    for label in ax.get_xticklabels():
      label.set(ha="right", rotation_mode="anchor")
    ax.set(
      ylabel="Pearson r over cells, per image", xlim=(-0.6, len(names) - 0.4)
    )
    ax.grid(True, axis="y")
    _add_legend(page, ax, methods)
  return page


def draw_differences(
  differences: Mapping[str, Mapping[str, Mapping]], names: Sequence[str]
) -> Figure | None:
  """Paired differences between methods with their intervals.

  Args:
    differences: "A - B" -> score -> `mean`, `interval`, as in summary.json.
    names: scores to show.
  """
  rows = [
    (f"{pair}", name, found[name])
    for pair, found in differences.items()
    for name in names
    if name in found and not np.isnan(found[name]["mean"])
  ]
  if not rows:
    return None
  with mpl.rc_context(STYLE):
    page = _start_figure(WIDTH_IN, 0.7 + 0.19 * len(rows))
    ax = page.subplots()
    ax.axvline(0, color="#999999", linewidth=0.8)
    for y, (_, name, value) in enumerate(rows):
      i = list(names).index(name)
      low, high = value["interval"]
      ax.plot([low, high], [y, y], color=COLORS[i % len(COLORS)], linewidth=1.4)
      ax.plot(
        value["mean"],
        y,
        color=COLORS[i % len(COLORS)],
        markersize=4.5,
        marker=MARKERS[i % len(MARKERS)],
      )
    labels = [f"{_shorten(pair, 44)}   {name}" for pair, name, _ in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.invert_yaxis()
    ax.set_xlabel("difference of the means, 95 % interval over images")
    ax.grid(True, axis="x")
  return page


def estimate_density(
  values: np.ndarray, grid: np.ndarray, width: float = 0.02
) -> np.ndarray:
  """Gaussian kernel density on 0..1, mirrored at both ends.

  Args:
    values: within 0..1, at least one.
    grid: evenly spaced from 0 to 1.
    width: standard deviation of the kernel.

  Returns:
    Density at each point of the grid; its integral is 1.
  """
  step = grid[1] - grid[0]
  counts = np.histogram(values, len(grid), (-step / 2, 1 + step / 2))[0]
  mirrored = np.concatenate((counts[::-1], counts, counts[::-1])).astype(float)
  reach = np.arange(-len(grid) // 2, len(grid) // 2 + 1) * step
  kernel = np.exp(-0.5 * (reach / width) ** 2)
  smooth = np.convolve(mirrored, kernel / kernel.sum(), "same")
  return smooth[len(grid) : 2 * len(grid)] / (len(values) * step)


def color_matches(values: np.ndarray, outlines: np.ndarray) -> np.ndarray:
  """Colours match values: blue by IoU; orange merged, pink split, black other.

  Args:
    values: (y, x), as in Example.
    outlines: bool (y, x), drawn over the rest in grey.

  Returns:
    float (y, x, 3), 0..1.
  """
  pixels = mpl.colormaps["Blues"](0.15 + 0.85 * np.clip(values, 0, 1))[..., :3]
  pixels[np.isnan(values)] = 1.0
  for value, color in (
    (MERGED_VALUE, MERGED),
    (SPLIT_VALUE, SPLIT),
    (OTHER_VALUE, OTHER),
  ):
    pixels[np.isclose(values, value)] = colors.to_rgb(color)
  pixels[outlines] = 0.45 * pixels[outlines] + 0.55 * 0.5
  return pixels


def list_methods(table: "pd.DataFrame") -> list[str]:
  """Names of the methods in the order of the table."""
  return list(dict.fromkeys(table["method"]))


def _start_figure(width_in: float, height_in: float) -> Figure:
  return Figure(figsize=(width_in, height_in), layout="constrained")


def _shorten(text: str, length: int) -> str:
  """Cuts the middle out of long names; their ends tell them apart."""
  if len(text) <= length:
    return text
  half = (length - 1) // 2
  return f"{text[: length - half - 1]}…{text[-half:]}"


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
      color=COLORS[i % len(COLORS)],
      hatch=HATCHES[i % len(HATCHES)],
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


def _draw_heat(ax: Axes, values: np.ndarray, has_numbers: bool) -> None:
  ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
  ax.tick_params(length=0)
  ax.spines[:].set_visible(False)
  if not has_numbers:
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
        fontsize=6.5,
      )


def _draw_boxes(
  ax: Axes,
  values: Sequence[np.ndarray],
  places: Sequence[float],
  width: float,
  color: int | None = None,
) -> None:
  """Boxes from quartile to quartile; one colour, or one per box."""
  boxes = ax.boxplot(
    values,
    positions=list(places),
    widths=width,
    patch_artist=True,
    manage_ticks=False,
    flierprops={"marker": ".", "markersize": 1.5, "alpha": 0.4},
    medianprops={"color": "#222222"},
    whiskerprops={"linewidth": 0.8},
    capprops={"linewidth": 0.8},
  )
  for i, box in enumerate(boxes["boxes"]):
    k = i if color is None else color
    box.set(
      facecolor=COLORS[k % len(COLORS)],
      hatch=HATCHES[k % len(HATCHES)],
      alpha=0.75,
      linewidth=0.8,
    )


def _add_legend(page: Figure, ax: Axes, methods: Sequence[str]) -> None:
  """Names the methods below the figure; a single one needs no legend."""
  if len(methods) < 2:
    return
  handles = ax.get_legend_handles_labels()[0] or [
    patches.Patch(
      facecolor=COLORS[i % len(COLORS)],
      hatch=HATCHES[i % len(HATCHES)],
      edgecolor="white",
    )
    for i in range(len(methods))
  ]
  page.legend(
    handles,
    list(methods),
    loc="outside lower center",
    ncols=min(4, len(methods)),
  )


def _add_match_legend(page: Figure, axes: Sequence[Axes]) -> None:
  """Explains the colours of match values."""
  palette = colors.LinearSegmentedColormap.from_list(
    "iou", mpl.colormaps["Blues"](np.linspace(0.15, 1, 64))
  )
  scale = mpl.cm.ScalarMappable(colors.Normalize(0, 1), palette)
  page.colorbar(scale, ax=axes, fraction=0.03, pad=0.01, label="IoU, matched")
  names = {"merged": MERGED, "split": SPLIT, "no counterpart": OTHER}
  handles = [patches.Patch(color=color, label=n) for n, color in names.items()]
  handles.append(
    patches.Patch(color="#888888", label="outline in the reference")
  )
  page.legend(handles=handles, loc="outside lower center", ncols=4)
