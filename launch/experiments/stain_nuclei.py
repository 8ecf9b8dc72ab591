"""Makes training images of nuclei that people drew, for fine.sh.

usage: python launch/experiments/stain_nuclei.py SOURCE OUT PIXEL_UM [SIZE ...]

SOURCE holds img/ and masks/ of nuclei, of which the pixel size is not known:
each image is resampled to pixels of PIXEL_UM so that its median nucleus is 3.5
to 9 um across, 0.6 to 1.6 times the size at which `predict` shows an image.
Writes two-channel TIFFs with a drawn membrane (img/) and the maps that the
network is to give (maps/). With sizes as 256x320 (rows, columns), only such
images are taken: a plate has one size.
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
from dicexmbd_jax.train import targets
from dicexmbd_jax.types import Labels, Probabilities

DIAMETERS_UM = (3.5, 9.0)  # Of an image's median nucleus.
MIN_NUCLEI = 8
# Nucleus is this at a nucleus' edge, and 1 from a share of its depth on: a peak
# in each, without losing its outline to the rim as in targets.make_target.
EDGE, FLAT_FROM = 0.55, 0.7
MIN_PX = 96  # Smaller images would be padding for the most part.


def main(source: str, output: str, pixel_um: str, *sizes: str) -> None:
  """Writes what is missing of all images."""
  folder = pathlib.Path(source)
  for path in sorted((folder / "img").glob("*.tiff")):
    nuclei = labels.read_labels(folder / "masks" / path.name)
    if sizes and "x".join(map(str, nuclei.shape)) not in sizes:
      continue
    draw_image(path, nuclei, pathlib.Path(output), float(pixel_um))


def draw_image(
  path: pathlib.Path, nuclei: Labels, output: pathlib.Path, pixel_um: float
) -> None:
  """Writes one drawn image and its maps; the same ones each time."""
  name = f"{path.stem}.tiff"
  digest = hashlib.sha256(path.stem.encode()).digest()
  rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
  areas = np.bincount(nuclei.ravel())[1:]
  areas = areas[areas > 0]
  if len(areas) < MIN_NUCLEI or (output / "img" / name).exists():
    return
  diameter_px = float(np.sqrt(4 / np.pi * np.median(areas)))
  own_um = np.exp(rng.uniform(*np.log(DIAMETERS_UM))) / diameter_px
  shape = resample.resampled_shape(nuclei.shape, own_um, pixel_um)
  if min(shape) < MIN_PX:
    return
  image = tifffile.imread(path).astype(np.float32)[..., None]
  nuclear = resample.resample_image(image, shape)[..., 0]
  nuclei = grid.sample_labels(nuclei, shape)
  counts, cells = drawn_nuclei.stain_nuclei(rng, nuclear, nuclei)
  write.write_probabilities(
    output / "maps" / name, make_maps(cells, nuclei), pixel_um
  )
  # Last: its presence tells that both are there.
  with write.replace_file(output / "img" / name) as temporary:
    tifffile.imwrite(temporary, np.moveaxis(counts, -1, 0).astype(np.uint16))


def make_maps(cells: Labels, nuclei: Labels) -> Probabilities:
  """Returns nucleus, membrane/cytoplasm and background; they sum to 1."""
  depth = targets.measure_depth(nuclei)
  deepest = np.ones(nuclei.max(initial=0) + 1, np.float32)
  np.maximum.at(deepest, nuclei.ravel(), depth.ravel())
  rise = np.minimum(depth / (FLAT_FROM * deepest[nuclei]), 1)
  is_nucleus = (nuclei > 0) & ~targets.find_contacts(nuclei)
  nucleus = np.where(is_nucleus, EDGE + (1 - EDGE) * rise, 0)
  is_cell = (cells > 0) | (nuclei > 0)
  maps = [nucleus, is_cell - nucleus, ~is_cell]
  return np.stack(maps, axis=-1).astype(np.float32)


if __name__ == "__main__":
  main(*sys.argv[1:])
