"""Cuts the centres of nuclear_imc's PNGs to TIFFs for launch/base.sh.

usage: python launch/crop_nuclear.py PNG_FOLDER TIFF_FOLDER
"""

import pathlib
import sys

import tifffile
from skimage import io

CROP_PX = 600  # Enough cells of each; whole ones would outweigh all else.


def main(source: pathlib.Path, output: pathlib.Path) -> None:
  """Writes YX TIFFs of 1 um per pixel, values unchanged, if missing."""
  for path in sorted(source.glob("*.png")):
    if (output / f"{path.stem}.tiff").exists():
      continue
    image = io.imread(path)
    top, left = ((edge - CROP_PX) // 2 for edge in image.shape[:2])
    crop = image[top : top + CROP_PX, left : left + CROP_PX]
    tifffile.imwrite(output / f"{path.stem}.tiff", crop)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
