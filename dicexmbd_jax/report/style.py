"""What all figures of an evaluation share: colours, marks, style, legend.

Every figure works in print without colour: methods differ in hatch, marker and
line style as well as in a colour of Okabe and Ito's palette, which the
colour-blind can tell apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import figure, patches
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

Figure = figure.Figure


def pick_color(i: int) -> str:
  """The i-th method's colour; they repeat, with other marks, after seven."""
  return COLORS[i % len(COLORS)]


def pick_hatch(i: int) -> str:
  """The i-th method's hatch."""
  return HATCHES[(i + i // len(HATCHES)) % len(HATCHES)]


def pick_marker(i: int) -> str:
  """The i-th method's marker."""
  return MARKERS[(i + i // len(MARKERS)) % len(MARKERS)]


def pick_line(i: int) -> Any:
  """The i-th method's line style."""
  return LINES[(i + i // len(LINES)) % len(LINES)]


def list_methods(table: "pd.DataFrame") -> list[str]:
  """Names of the methods in the order of the table."""
  return list(dict.fromkeys(table["method"]))


def start_figure(width_in: float, height_in: float) -> Figure:
  """An empty figure that lays out its parts without overlaps."""
  return Figure(figsize=(width_in, height_in), layout="constrained")


def shorten(text: str, length: int) -> str:
  """Cuts the middle out of long names; their ends tell them apart."""
  if len(text) <= length:
    return text
  half = (length - 1) // 2
  return f"{text[: length - half - 1]}…{text[-half:]}"


def add_legend(page: Figure, ax: Axes, methods: Sequence[str]) -> None:
  """Names the methods below the figure; a single one needs no legend."""
  if len(methods) < 2:
    return
  handles = ax.get_legend_handles_labels()[0] or [
    patches.Patch(
      facecolor=pick_color(i),
      hatch=pick_hatch(i),
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
