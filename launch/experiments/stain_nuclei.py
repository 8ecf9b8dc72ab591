"""Makes training images of nuclei that people drew, for gaps.sh.

usage: python launch/experiments/stain_nuclei.py SOURCE OUTPUT NUM [SIZE ...]

SOURCE holds img/ and masks/ of nuclei, of which the pixel size is not known:
each image is resampled so that its median nucleus is 6 to 9 um across at 1 um
per pixel, NUM times with another size, membrane and noise. Writes
two-channel TIFFs (img/), cells (cells/) and nuclei (nuclei/). With sizes as
256x320 (rows, columns), only such images are taken: a plate has one size.
"""

import hashlib
import pathlib
import sys

import numpy as np
import tifffile

from dicexmbd_jax.image import resample
from dicexmbd_jax.io import labels, write
from dicexmbd_jax.masks import grid
from dicexmbd_jax.simulate import drawn_nuclei

DIAMETERS_UM = (6.0, 9.0)  # Of an image's median nucleus.
MIN_NUCLEI = 8
MIN_PX = 96  # Smaller images would be padding for the most part.


def main(source: str, output: str, num_drawn: str, *sizes: str) -> None:
  """Writes what is missing of all images."""
  folder = pathlib.Path(source)
  for path in sorted((folder / "img").glob("*.tiff")):
    nuclei = labels.read_labels(folder / "masks" / path.name)
    if sizes and "x".join(map(str, nuclei.shape)) not in sizes:
      continue
    for draw in range(int(num_drawn)):
      draw_image(path, nuclei, pathlib.Path(output), draw)


def draw_image(
  path: pathlib.Path, nuclei: np.ndarray, output: pathlib.Path, draw: int
) -> None:
  """Writes one drawn image, its cells and nuclei; the same ones each time."""
  name = f"{path.stem}_{draw}.tiff"
  digest = hashlib.sha256(f"{path.stem}|{draw}".encode()).digest()
  rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
  areas = np.bincount(nuclei.ravel())[1:]
  areas = areas[areas > 0]
  if len(areas) < MIN_NUCLEI or (output / "img" / name).exists():
    return
  diameter_px = float(np.sqrt(4 / np.pi * np.median(areas)))
  pixel_um = rng.uniform(*DIAMETERS_UM) / diameter_px
  shape = resample.resampled_shape(nuclei.shape, pixel_um, 1.0)
  if min(shape) < MIN_PX:
    return
  image = tifffile.imread(path).astype(np.float32)[..., None]
  nuclear = resample.resample_image(image, shape)[..., 0]
  nuclei = grid.sample_labels(nuclei, shape)
  counts, cells = drawn_nuclei.stain_nuclei(rng, nuclear, nuclei)
  write.write_labels(output / "cells" / name, cells, 1.0)
  write.write_labels(output / "nuclei" / name, nuclei, 1.0)
  # Last: its presence tells that all three are there.
  with write.replace_file(output / "img" / name) as temporary:
    tifffile.imwrite(temporary, np.moveaxis(counts, -1, 0).astype(np.uint16))


if __name__ == "__main__":
  main(*sys.argv[1:])
