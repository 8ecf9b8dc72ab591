"""The curve of annotation: mean uncertainty by round, image by image."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from dicexmbd_jax.report import style

_WIDTH_IN, _HEIGHT_IN, _DPI = 5.0, 3.0, 120


def draw_curve(
  history: Sequence[Mapping[str, float]], told: str = ""
) -> UInt8[np.ndarray, "y x 3"]:
  """Draws a thin line for every image and a thick one for their mean.

  Args:
    history: image -> mean uncertainty, of every round; without rounds the axes
      are empty.
    told: goes above the curve.
  """
  import matplotlib as mpl
  from matplotlib import ticker
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  with mpl.rc_context(style.STYLE):
    page = style.start_figure(_WIDTH_IN, _HEIGHT_IN)
    canvas = FigureCanvasAgg(page)
    page.set_dpi(_DPI)
    axes = page.subplots()
    numbers = np.arange(1, len(history) + 1)
    for image in dict.fromkeys(name for one in history for name in one):
      values = [one.get(image, np.nan) for one in history]
      axes.plot(numbers, values, color="#9aa3ad", linewidth=0.7)
    means = [np.mean(list(one.values())) for one in history]
    axes.plot(numbers, means, "o-", color=style.pick_color(0), label="mean")
    axes.set(xlabel="round", ylabel="mean uncertainty", title=told)
    axes.set_ylim(0, None)
    axes.set_xlim(0.5, max(2, len(history)) + 0.5)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
