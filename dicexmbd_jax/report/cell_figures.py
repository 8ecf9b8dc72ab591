"""Figures of cells: IoU, matches, profiles, after the paper's 2D, 2E and 4.

Each function returns a matplotlib Figure, or None where there is nothing to
draw.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import colors, patches
from matplotlib.axes import Axes

from dicexmbd_jax.report import style
from dicexmbd_jax.scores.evaluate import (
  ALONE_VALUE,
  MERGED_VALUE,
  SPLIT_VALUE,
)

if TYPE_CHECKING:
  import pandas as pd

MERGED, SPLIT, OTHER = "#E69F00", "#CC79A7", "#222222"


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


def draw_densities(ious: Mapping[str, np.ndarray]) -> style.Figure | None:
  """Density of the IoU of one-to-one pairs, all images (figure 2D)."""
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN / 2, 2.9)
    ax = page.subplots()
    grid = np.linspace(0, 1, 201)
    for i, (name, values) in enumerate(ious.items()):
      if not len(values):
        continue
      color = style.pick_color(i)
      label = (
        f"{name}: mean {values.mean():.3f}, median {np.median(values):.3f}"
      )
      line = style.pick_line(i)
      density = estimate_density(values, grid)
      ax.plot(grid, density, color=color, linestyle=line, label=label)
      ax.fill_between(grid, density, color=color, alpha=0.08, linewidth=0)
    if not ax.lines:
      return None
    ax.set(xlabel="IoU of one-to-one pairs", ylabel="density", xlim=(0, 1))
    ax.set_ylim(bottom=0)
    page.legend(loc="outside lower center", fontsize=7.5)
  return page


def draw_example(example: Example, max_px: int = 240) -> style.Figure | None:
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
  num_columns = 4 if len(example.values) == 4 else 3
  num_columns = min(num_columns, max(2, len(example.values)))
  num_rows = -(-len(example.values) // num_columns)
  with mpl.rc_context(style.STYLE):
    size = style.WIDTH_IN / num_columns
    page = style.start_figure(style.WIDTH_IN, num_rows * (size + 0.15) + 0.45)
    axes = list(page.subplots(num_rows, num_columns, squeeze=False).flat)
    for ax in axes:
      ax.set_axis_off()
    for ax, (name, values) in zip(axes, example.values.items(), strict=False):
      pixels = color_matches(values[window], example.outlines[window])
      ax.imshow(pixels, interpolation="nearest")
      ax.set_title(style.shorten(name, 34))
    _add_match_legend(page, axes[: len(example.values)])
  return page


def draw_profiles(profiles: Mapping[str, np.ndarray]) -> style.Figure | None:
  """Box plots of the correlation of each cell's profile (figure 4B).

  Args:
    profiles: method -> Pearson over markers, one per one-to-one pair.
  """
  profiles = {
    name: values[~np.isnan(values)] for name, values in profiles.items()
  }
  if not any(len(values) for values in profiles.values()):
    return None
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(style.WIDTH_IN / 2, 2.9)
    ax = page.subplots()
    _draw_boxes(ax, list(profiles.values()), range(len(profiles)), 0.55)
    labels = [style.shorten(name, 16) for name in profiles]
    ax.set_xticks(range(len(profiles)), labels)
    if len(labels) > 3:
      ax.tick_params(axis="x", rotation=30)
    ax.set_ylabel("Pearson r over markers, per cell")
    ax.grid(True, axis="y")
  return page


def draw_marker_correlations(
  markers: "pd.DataFrame", methods: Sequence[str]
) -> style.Figure | None:
  """Box plots over images of each marker's correlation (figure 4C).

  Args:
    markers: `method`, `image`, `marker`, `pearson`.
    methods: all of the evaluation, so that each looks as in other figures.
  """
  markers = markers.dropna(subset=["pearson"])
  if markers.empty:
    return None
  names = list(dict.fromkeys(markers["marker"]))
  with mpl.rc_context(style.STYLE):
    page = style.start_figure(
      max(style.WIDTH_IN, 0.2 * len(names) * len(methods)), 3.3
    )
    ax = page.subplots()
    step = 0.8 / len(methods)
    groups = markers.groupby(["method", "marker"])["pearson"]
    found = {key: values.to_numpy() for key, values in groups}
    for i, method in enumerate(methods):
      values = [found.get((method, name), np.zeros(0)) for name in names]
      places = np.arange(len(names)) - 0.4 + step * (i + 0.5)
      _draw_boxes(ax, values, places, step * 0.8, i)
    ax.set_xticks(range(len(names)), [style.shorten(n, 18) for n in names])
    ax.tick_params(axis="x", rotation=60)
    for label in ax.get_xticklabels():
      label.set(ha="right", rotation_mode="anchor")
    ax.set(ylabel="Pearson r over cells", xlim=(-0.6, len(names) - 0.4))
    ax.grid(True, axis="y")
    style.add_legend(page, ax, methods)
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
    (ALONE_VALUE, OTHER),
  ):
    pixels[np.isclose(values, value)] = colors.to_rgb(color)
  pixels[outlines] = 0.45 * pixels[outlines] + 0.55 * 0.5
  return pixels


def _draw_boxes(
  ax: Axes,
  values: Sequence[np.ndarray],
  places: Iterable[float],
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
      facecolor=style.pick_color(k),
      hatch=style.pick_hatch(k),
      alpha=0.75,
      linewidth=0.8,
    )


def _add_match_legend(page: style.Figure, axes: Sequence[Axes]) -> None:
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
