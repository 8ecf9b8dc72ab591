"""Tiny folders of images with a teacher, for the builder's tests."""

import numpy as np
import tifffile

PANEL = (
  "channel,name,keep,nuclear,membrane_cytoplasm\n"
  "Ir191,DNA,1,1,0\n"
  "Nd144,CD45,1,0,1\n"
)
SHAPES = ((20, 12), (9, 31), (16, 16), (40, 8))


def draw_cells(shape, seed):
  """Returns cells and their nuclei, on a grid of 8 px."""
  y, x = np.indices(shape)
  ids = 1 + (y // 8) * 100 + x // 8
  inner = (y % 8 > 0) & (x % 8 > 0)
  cells = np.where(inner & ((ids + seed) % 5 > 0), ids, 0).astype(np.int32)
  core = (abs(y % 8 - 4) < 2) & (abs(x % 8 - 4) < 2)
  return cells, np.where(core, cells, 0).astype(np.int32)


def draw_stack(shape, seed):
  """Returns counts, uint16 (2, y, x), brighter in cells."""
  cells, nuclei = draw_cells(shape, seed)
  rate = np.stack([20.0 * (nuclei > 0), 10.0 * (cells > 0)]) + 0.5
  return np.random.default_rng(seed).poisson(rate).astype(np.uint16)


def draw_maps(shape, seed, scale=1):
  """Returns maps, float32 (y, x, 3), that sum to 1."""
  size = (shape[0] * scale, shape[1] * scale)
  maps = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
  return maps / maps.sum(axis=-1, keepdims=True)


def write_tiff(path, pixels, axes):
  path.parent.mkdir(parents=True, exist_ok=True)
  photometric = "rgb" if axes == "YXS" else "minisblack"
  tifffile.imwrite(
    path, pixels, metadata={"axes": axes}, photometric=photometric
  )


def write_study(folder, shapes=SHAPES, teacher="masks"):
  """Writes img/, panel.csv and masks/ (with nuclei/) or probabilities/."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "panel.csv").write_text(PANEL)
  for i, shape in enumerate(shapes):
    name = f"S{i // 2}_ROI{i}.tiff"
    write_tiff(folder / "img" / name, draw_stack(shape, i), "CYX")
    cells, nuclei = draw_cells(shape, i)
    if teacher == "maps":
      maps = np.rint(draw_maps(shape, i, 2) * 65535).astype(np.uint16)
      name = name.replace(".tiff", "_ilastik_s2_Probabilities.tiff")
      write_tiff(folder / "probabilities" / name, maps, "YXS")
    else:
      write_tiff(folder / "truth/masks" / name, cells.astype("u2"), "YX")
      write_tiff(folder / "truth/nuclei" / name, nuclei.astype("u2"), "YX")
  return folder
