"""A small output folder of predict, with the images that it is of."""

import json

import numpy as np
import pandas as pd

from dicexmbd_jax.io import h5ad, write
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.masks import measure
from dicexmbd_jax.runs import results

NAMES = ("DNA1", "CD45")
PIXEL_UM = 0.5
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Ir191,DNA1,1,1,0
Sm152,CD45,1,0,1
"""


def make_cells(shape=(40, 60)):
  """Squares of 6 px on a grid of 10; cell 1 has a second piece and a hole."""
  y, x = np.mgrid[: shape[0], : shape[1]]
  is_cell = (y % 10 < 6) & (x % 10 < 6)
  number = y // 10 * (shape[1] // 10) + x // 10 + 1
  cells = np.where(is_cell, number, 0).astype(np.int32)
  cells[7, 2] = 1
  cells[3, 3] = 0
  return cells


def make_output(folder):
  """Writes folder/OUT and folder/study: two images with cells, EMPTY without.

  Cell 2 has no nucleus.
  """
  output = folder / "OUT"
  rng = np.random.default_rng(0)
  rows, packed = [], []
  for stem in ("EMPTY", "ROI-1", "ROI2"):
    cells = make_cells() * (stem != "EMPTY")
    inner = cells * (np.indices(cells.shape) % 10 < 4).all(0) * (cells != 2)
    stack = rng.poisson(5, (*cells.shape, 2)).astype(np.float32)
    path = folder / f"study/{stem}.ome.tiff"
    write.write_stack(path, stack, NAMES, PIXEL_UM)
    row = {
      "image": f"{stem}.tiff",
      "width_px": cells.shape[1],
      "height_px": cells.shape[0],
      "num_channels": 2,
      "source_file": path.name,
      "num_cells": int(cells.max()),
      "pixel_size_um": PIXEL_UM,
    }
    made = {
      "intensities": measure.measure_intensities(stack, cells, NAMES),
      "regionprops": measure.measure_regions(cells).assign(is_border=False),
      "neighbors": measure.measure_neighbors(cells),
    }
    for kind, table in made.items():
      write.write_table(results.locate(output, kind, stem), table)
    for kind, labels in (("masks", cells), ("nuclei", inner)):
      write.write_labels(results.locate(output, kind, stem), labels, PIXEL_UM)
    rows.append(row)
    packed.append(h5ad.pack_cells(*made.values(), cells))
  write.write_table(output / "images.csv", pd.DataFrame(rows))
  (output / "panel.csv").write_text(PANEL)
  (output / "run.json").write_text(json.dumps({}))
  panel = read_panel(output / "panel.csv")
  h5ad.write_cells(output / "cells.h5ad", rows, packed, panel)
  return folder


def read_files(output):
  """Returns what the images' files hold, but for states, which tell times."""
  return {
    path.relative_to(output).as_posix(): path.read_bytes()
    for path in output.glob("*/*")
    if path.parent.name != "state"
  }
