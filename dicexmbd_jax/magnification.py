"""How large the network should see an image: the size of its nuclei decides.

A network cuts nuclei in pieces, or runs them together, where they are larger or
smaller than those it has learnt from. So a first pass looks at parts of the
image at the network's pixel size and measures the nuclei there; the second sees
the whole image at the magnification that gives them the size that suits the
network. Masks stay on the image's own grid, and lengths in um of the tissue.

The numbers in here belong to the shipped weights; docs/results.md has what they
were chosen on.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from dicexmbd_jax.image import resample
from dicexmbd_jax.masks import confidence, segment
from dicexmbd_jax.masks.components import count_labels
from dicexmbd_jax.scores import match
from dicexmbd_jax.types import Image, Network, Probabilities

WINDOW_PX = 256  # Edge of the parts that the first pass looks at.
MAX_WINDOWS = 4
LOWEST, HIGHEST, STEP = 0.6, 1.75, 0.05
BEST_UM = 5.4  # Diameter at which the network finds nuclei best.
# Nuclei that are more likely right than wrong say how large nuclei are, if
# there are this many of them; else all do.
MIN_CONFIDENCE, MIN_NUCLEI = 0.5, 5
# How likely, by peak and uncertainty of their cells alone: BEST_UM was chosen
# with these weights, and more evidence chooses no better.
_WEIGHTS = (-3.32, 9.43, -8.63, 0.0, 0.0)
# Large nuclei that the network knows stay whole when they are magnified
# further. From this F1 at IoU 0.5 between both, it starts to count that they
# do; from the second on, the image is not made smaller.
PROBE = 1.3
SOME_AGREEMENT, FULL_AGREEMENT = 0.82, 0.88


@dataclasses.dataclass(frozen=True)
class Look:
  """What the first pass sees in one window.

  Attributes:
    diameters_um: of the nuclei that the window's edge does not cut, as circles
      of their area.
    confidence: of each of them, 0..1.
    agreement: F1 at IoU 0.5 between its cells and those that the network finds
      where it sees the window's middle PROBE times as large.
  """

  diameters_um: Float[np.ndarray, " n"]
  confidence: Float[np.ndarray, " n"]
  agreement: float


def choose_magnification(
  image: Image, config: ConfigDict, network: Network
) -> float:
  """Looks at parts of an image and says how large to show the whole.

  Args:
    image: float32 (y, x, 2) at the network's pixel size.
    config: the whole configuration.
    network: the first pass.

  Returns:
    A multiple of STEP from LOWEST to HIGHEST, above 1 where the network should
    see the tissue larger than it is; 1 where there are no nuclei.
  """
  views = list_views(image)
  maps = [maps for _, maps in network(enumerate(views))]
  return judge_views(views, maps, config)


def list_views(image: Image) -> list[Image]:
  """Returns what the first pass is shown: windows, each also magnified.

  Args:
    image: float32 (y, x, 2) at the network's pixel size.

  Returns:
    A window, its middle PROBE times as large, the next window, and so on.
  """
  return [
    view
    for window in cut_windows(image)
    for view in (window, magnify_middle(window))
  ]


def judge_views(
  views: Sequence[Image], maps: Sequence[Probabilities], config: ConfigDict
) -> float:
  """Says how large to show the whole image, as `choose_magnification` does.

  Args:
    views: of `list_views`.
    maps: the first pass' answer to each.
    config: the whole configuration.
  """
  # Dim nuclei, too: they come and go where the network does not know what it
  # sees, and without them it would seem to.
  config = config.copy_and_resolve_references()
  with config.segment.ignore_type():  # Somebody may have given a whole number.
    config.segment.min_nucleus_peak = 0.0
  shapes = [view.shape[:2] for view in views[::2]]
  looks = [
    look_at(*one, config)
    for one in zip(shapes, maps[::2], maps[1::2], strict=True)
  ]
  looks = [look for look in looks if len(look.diameters_um)]
  if not looks:
    return 1.0
  return choose_factor(
    measure_median(
      np.concatenate([look.diameters_um for look in looks]),
      np.concatenate([look.confidence for look in looks]),
    ),
    float(np.mean([look.agreement for look in looks])),
  )


def cut_windows(image: Image) -> list[Image]:
  """Returns the parts of an image with the most nuclear signal.

  A quarter of a grid of windows, at most MAX_WINDOWS and at least one. The
  grid's last row and column end with the image; a smaller image is one window.
  """
  corners = itertools.product(*(_list_corners(n) for n in image.shape[:2]))
  windows = [image[y : y + WINDOW_PX, x : x + WINDOW_PX] for y, x in corners]
  signal = [-window[..., 0].sum(dtype=np.float64) for window in windows]
  # Stable: of two with equal signal the first one is taken.
  order = np.argsort(signal, kind="stable")
  count = min(max(len(windows) // 4, 1), MAX_WINDOWS)
  return [windows[i] for i in order[:count]]


def _list_corners(size: int) -> Sequence[int]:
  last = max(size - WINDOW_PX, 0)
  return [*range(0, last, WINDOW_PX), last]


def magnify_middle(window: Image) -> Image:
  """Returns a window's middle, PROBE times as large."""
  middle = window[_find_middle(window.shape[:2])]
  return resample.resample_image(
    np.ascontiguousarray(middle),
    resample.resampled_shape(middle.shape[:2], PROBE, 1.0),
  )


def look_at(
  window_shape: tuple[int, int],
  maps: Probabilities,
  larger_maps: Probabilities,
  config: ConfigDict,
) -> Look:
  """Compares what the network says of a window and of its magnified middle."""
  middle = _find_middle(window_shape)
  shape = tuple(part.stop - part.start for part in middle)
  masks = segment.segment_seen(maps, config, window_shape)
  again = segment.segment_seen(larger_maps, config, shape, PROBE)
  areas_px = count_labels(masks.nuclei, len(masks.is_border) + 1)[1:]
  evidence = confidence.measure_evidence(maps, masks.cells)
  chance = confidence.judge_cells(evidence, _WEIGHTS)
  is_whole = ~masks.is_border & (areas_px > 0)
  return Look(
    diameters_um=np.sqrt(areas_px[is_whole] * 4 / np.pi)
    * config.image.pixel_size_um,
    confidence=chance[is_whole],
    agreement=match.score_f1(masks.cells[middle], again.cells, 0.5),
  )


def _find_middle(shape: tuple[int, int]) -> tuple[slice, slice]:
  """Returns the part that is no larger than the window when magnified."""
  margins = [(size - int(size / PROBE)) // 2 for size in shape]
  rows, columns = (
    slice(margin, size - margin)
    for margin, size in zip(margins, shape, strict=True)
  )
  return rows, columns


def measure_median(
  diameters_um: Float[np.ndarray, " n"], chance: Float[np.ndarray, " n"]
) -> float:
  """Returns the median diameter of the confident nuclei, of all if few are."""
  is_sure = chance > MIN_CONFIDENCE
  if np.count_nonzero(is_sure) < MIN_NUCLEI:
    is_sure = np.ones_like(is_sure)
  return float(np.median(diameters_um[is_sure]))


def choose_factor(diameter_um: float, agreement: float) -> float:
  """Returns the magnification for nuclei of this size.

  Args:
    diameter_um: their median.
    agreement: of a Look.
  """
  factor = np.clip(BEST_UM / diameter_um, LOWEST, HIGHEST)
  if factor < 1:
    known = (agreement - SOME_AGREEMENT) / (FULL_AGREEMENT - SOME_AGREEMENT)
    factor **= 1 - np.clip(known, 0, 1)
  return float(np.round(np.round(factor / STEP) * STEP, 2))
