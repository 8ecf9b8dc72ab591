"""How strongly each simulated cell shows each marker, and where in it."""

import numpy as np
from jaxtyping import Float32

from dicexmbd_jax.simulate.antibodies import Marker
from dicexmbd_jax.simulate.cells import CELL_TYPES, TYPE_INDEX
from dicexmbd_jax.simulate.study_panel import Channel

Levels = Float32[np.ndarray, "n m"]


def draw_levels(
  rng: np.random.Generator, channels: tuple[Channel, ...], types: np.ndarray
) -> tuple[Levels, Levels, Levels]:
  """Draws how strongly each cell shows each marker, and where in the cell.

  Args:
    rng: source of randomness.
    channels: the m channels.
    types: indices into `CELL_TYPES` of n cells.

  Returns:
    Counts per pixel at the membrane, in the cytoplasm and in the nucleus,
    three float32 arrays (n, m).
  """
  places = np.array([c.marker.place for c in channels])
  table = _vary_table(rng, channels, places)
  level = table[types] * _vary_cells(rng, channels, places, len(types))
  counts = np.array([c.marker.counts for c in channels])
  is_stain = (places != "junk") & (places != "fibre")
  level = level + rng.uniform(0, 0.04) * counts * is_stain
  mixing = rng.uniform(0.0, 0.35, len(channels))
  is_membrane, is_cytoplasm, is_nucleus = (
    places == place for place in ("membrane", "cytoplasm", "nucleus")
  )
  elsewhere = np.where(is_nucleus, 0.3 * mixing, 0.4 * mixing)
  shares = (
    np.where(is_membrane, 1, mixing * is_cytoplasm),
    np.where(is_cytoplasm, 1, elsewhere),
    np.where(is_nucleus, 1, 0),
  )
  first, second, third = ((level * s).astype(np.float32) for s in shares)
  return first, second, third


def _vary_table(
  rng: np.random.Generator, channels: tuple[Channel, ...], places: np.ndarray
) -> np.ndarray:
  """Counts by cell type and channel, as they differ from image to image.

  Some channels are dim, a few hardly work; some types show hardly any of
  their membrane and cytoplasm markers.
  """
  table = np.array([_tabulate_marker(c.marker) for c in channels]).T
  is_nucleus = places == "nucleus"
  dim = np.clip(rng.lognormal(-0.5, 0.6, len(channels)), 0.08, 2.5)
  dim = np.where(rng.uniform(size=len(channels)) < 0.08, 0.05, dim)
  dim = np.where(is_nucleus, np.sqrt(dim), dim)
  factor = rng.lognormal(0, 0.5, table.shape)
  is_silent = rng.uniform(size=(len(table), 1)) < rng.choice([0.02, 0.2])
  factor = np.where(is_silent, 0.1, factor)
  return table * dim * np.where(is_nucleus, 1, factor)


def _tabulate_marker(marker: Marker) -> np.ndarray:
  """Counts of a marker by cell type."""
  row = np.zeros(len(CELL_TYPES))
  for name, level in marker.levels.items():
    row[TYPE_INDEX[name]] = level * marker.counts
  row[TYPE_INDEX["columnar"]] = row[TYPE_INDEX["epithelial"]]
  return row


def _vary_cells(
  rng: np.random.Generator,
  channels: tuple[Channel, ...],
  places: np.ndarray,
  num: int,
) -> np.ndarray:
  """Factors (n, m) by which cells of one type differ."""
  is_nucleus = places == "nucleus"
  # Markers that mark a positive few do so by cell, not by type.
  positive = np.array([c.marker.positive for c in channels])
  factor = rng.uniform(size=(num, len(channels))) < positive
  spread = rng.uniform(0.25, 0.8, len(channels))
  spread = np.where(is_nucleus, 0.15, spread)
  factor = factor * np.exp(spread * rng.standard_normal(factor.shape))
  # A cell that the section only grazes is dim in everything.
  grazed = rng.uniform(0.1, 0.4) * rng.standard_normal((num, 1))
  # Nuclei differ in all their stains alike: ploidy, condensed chromatin.
  dense = rng.uniform(0.05, 0.3) * rng.standard_normal((num, 1))
  dense = dense + 0.6 * (rng.uniform(size=(num, 1)) < 0.02)
  return factor * np.exp(grazed + dense * is_nucleus)
