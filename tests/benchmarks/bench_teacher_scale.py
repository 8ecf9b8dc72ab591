"""Time and memory of `teach predict` on a large image: one JSON line.

    python tests/benchmarks/bench_teacher_scale.py

The image is the largest but one of nuclear_imc (real data; 2333 x 1377), with
its local contrast as second channel; strokes are 2,000 px of each class by
their brightness. Memory is the peak of the process that predicts.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image
import tifffile
from scipy import ndimage

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

IMAGE = "nuclear_imc/tracerx_p1_tma005_roi04.png"
NUM_PIXELS = 2000  # Per class.


def main():
  from conftest import REAL_DATA

  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    shape = write_study(folder, REAL_DATA / IMAGE)
    teach(folder, "fit", f"--annotations={folder}/labels", "--output=teacher")
    teach(folder, "predict", f"--teacher={folder}/teacher", "--output=out")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    teach(
      folder,
      "predict",
      f"--teacher={folder}/teacher",
      "--output=out",
      "--overwrite",
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
  cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  print(
    json.dumps(
      {
        "what": "teach predict, two channels, one image, one process",
        "size": shape,
        "processor_s": round(cpu_s, 1),
        # Of all three calls, of which fitting needs least.
        "peak_gb": round(after.ru_maxrss / 1e6, 2),
      }
    )
  )


def write_study(folder, path):
  nuclei = np.asarray(PIL.Image.open(path)).astype(np.float32)
  contrast = abs(
    ndimage.gaussian_filter(nuclei, 3) - ndimage.gaussian_filter(nuclei, 6)
  )
  (folder / "img").mkdir()
  (folder / "labels").mkdir()
  stack = np.stack([nuclei, contrast])
  tifffile.imwrite(folder / "img" / "a.tiff", stack, photometric="minisblack")
  is_nucleus = nuclei > np.quantile(nuclei, 0.97)
  is_rim = (contrast > np.quantile(contrast, 0.98)) & ~is_nucleus
  strokes = np.zeros(nuclei.shape, np.uint8)
  generator = np.random.default_rng(0)
  for label, mask in (
    (3, nuclei <= np.quantile(nuclei, 0.2)),
    (2, is_rim),
    (1, is_nucleus),
  ):
    places = generator.choice(np.flatnonzero(mask), NUM_PIXELS, replace=False)
    strokes.ravel()[places] = label
  tifffile.imwrite(folder / "labels" / "a.tiff", strokes)
  return nuclei.shape


def teach(folder, command, *arguments):
  words = [sys.executable, "-m", "dicexmbd_jax", "teach", command]
  words += [f"--images={folder}/img", "--num_workers=0", *arguments]
  subprocess.run(
    [word.replace("--output=", f"--output={folder}/") for word in words],
    check=True,
    cwd=ROOT,
    capture_output=True,
  )


if __name__ == "__main__":
  main()
