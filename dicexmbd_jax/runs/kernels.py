"""The loops over pixels that `predict` needs, compiled before an image does.

On a machine's first run that takes longer than all else, and most of it can
only be done by one thread of a process. So two processes share it: one takes
the steps from the front, the other from the back, and what one has compiled
the other reads.
"""

import contextlib
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from dicexmbd_jax.masks import confidence, measure, nuclei, segment
from dicexmbd_jax.masks.maps import WorkingMaps
from dicexmbd_jax.masks.settings import resolve_settings
from dicexmbd_jax.report import overlay

_EDGE_PX = 48


def load_kernels(config: ConfigDict, from_back: bool = False) -> None:
  """Finds, measures and draws cells in noise, so that loops are machine code.

  Args:
    config: the config's section `segment`.
    from_back: whether the last step comes first.
  """
  steps = list_steps(config)
  for step in reversed(steps) if from_back else steps:
    step()


def load_quietly(config: ConfigDict, from_back: bool = False) -> None:
  """Loads what it can; the first image will tell what is wrong."""
  with contextlib.suppress(Exception):
    load_kernels(config, from_back)


def list_steps(config: ConfigDict) -> list[Callable[[], None]]:
  """Returns what loads the kernels; each step does without the others."""
  # Noise has what few images have: holes in holes, and nuclei of all sizes.
  shape = _EDGE_PX, _EDGE_PX
  noise = np.random.default_rng(0).random((*shape, 3), np.float32)

  def find() -> None:
    segment.segment_image(noise, config)

  def grow() -> None:
    settings = resolve_settings(config)
    maps = WorkingMaps(noise, settings)
    seeds, numbers = nuclei.select_nuclei(draw_squares(maps.shape), settings)
    limit_px = settings.max_growth_um * settings.scale
    segment.grow_cells(
      maps, "propagation", seeds, numbers, settings, None, limit_px
    )

  def measure_cells() -> None:
    cells = draw_squares(shape)
    stack = np.moveaxis(np.zeros((2, *shape), np.float32), 0, -1)
    confidence.measure_doubt(noise, cells)
    measure.measure_intensities(stack, cells, ("one", "other"))
    measure.measure_regions(cells)
    measure.measure_neighbors(cells)

  def draw() -> None:
    cells = draw_squares(shape)
    overlay.draw_overlay(noise[..., :2], cells, cells)

  return [find, grow, measure_cells, draw]


def draw_squares(shape: tuple[int, int]) -> np.ndarray:
  """Returns labels: squares of 6 px that touch, with gaps here and there."""
  y, x = np.indices(shape) // 6
  labels = y * (shape[1] // 6 + 1) + x + 1
  return np.where((y + 2 * x) % 5 > 0, labels, 0).astype(np.int32)
