"""Small studies for the viewer's tests: made up, 40 x 50 px."""

import numpy as np
import pandas as pd

from dicexmbd_jax.io import write
from dicexmbd_jax.masks import measure

NAMES = ("CD45", "DNA1", "Ki67")
SHAPE = (40, 50)


def make_cells():
  """Four cells; 1 and 2 touch."""
  cells = np.zeros(SHAPE, np.int32)
  cells[5:15, 5:15] = 1
  cells[5:15, 15:25] = 2
  cells[20:35, 5:15] = 3
  cells[20:35, 30:45] = 4
  return cells


def make_stack(seed=0):
  """DNA1 in the cells' middles, CD45 in the cells."""
  cells = make_cells()
  rng = np.random.default_rng(seed)
  stack = rng.poisson(1, (*SHAPE, 3)).astype(np.float32)
  stack[..., 0] += 20 * (cells > 0)
  stack[7:13, 7:13, 1] = stack[22:33, 32:43, 1] = 50
  return stack


def write_output(folder, stems=("ROI1", "ROI2")):
  """Writes a folder of results, with its images in img."""
  for seed, stem in enumerate(stems):
    stack, cells = make_stack(seed), make_cells()
    write.write_stack(folder / f"img/{stem}.ome.tiff", stack, NAMES)
    for kind in ("masks", "nuclei"):
      write.write_labels(folder / f"{kind}/{stem}.tiff", cells)
    maps = np.full((20, 25, 3), 0.25, np.float32)
    write.write_probabilities(folder / f"probabilities/{stem}.tiff", maps, 2.0)
    write.write_uncertainty(folder / f"uncertainty/{stem}.tiff", maps[..., 0])
    regions = measure.measure_regions(cells)
    write.write_table(folder / f"regionprops/{stem}.csv", regions)
    counts = measure.measure_intensities(stack, cells, NAMES)
    write.write_table(folder / f"intensities/{stem}.csv", counts)
  panel = pd.DataFrame(
    {
      "channel": ["", "", ""],
      "name": NAMES,
      "keep": [1, 1, 1],
      "deepcell": [2, 1, ""],
    }
  )
  write.write_table(folder / "panel.csv", panel)
  return folder
