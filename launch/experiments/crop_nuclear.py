"""Cuts the centres of nuclear_imc's PNGs to TIFFs for base.sh.

usage: python launch/experiments/crop_nuclear.py PNG_FOLDER TIFF_FOLDER
"""

import pathlib
import sys

import tifffile
from skimage import io

from dicexmbd_jax.io import write

CROP_PX = 600  # Enough cells of each; whole ones would outweigh all else.


def main(source: pathlib.Path, output: pathlib.Path) -> None:
  """Writes YX TIFFs of 1 um per pixel, values unchanged, if missing."""
  for path in sorted(source.glob("*.png")):
    target = output / f"{path.stem}.tiff"
    if target.exists():
      continue
    image = io.imread(path)
    top, left = ((edge - CROP_PX) // 2 for edge in image.shape[:2])
    crop = image[top : top + CROP_PX, left : left + CROP_PX]
    with write.replace_file(target) as temporary:
      tifffile.imwrite(temporary, crop)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
