"""The teacher against Ilastik: the same strokes, features and images.

    python tests/benchmarks/bench_teacher.py [PROJECT DRAWN_ON EXPORTED MAPS]

PROJECT is an .ilp file, DRAWN_ON the images that its strokes were drawn on,
EXPORTED the images that Ilastik made the probability maps MAPS of, by stem.
Default: imc_testdata of the real data. One JSON line per comparison: `forest`
(`ilastik`: the one that the project stores, which pins down the features;
`ours`: fit on the strokes, mean over 5 seeds), `against` (`ilastik`: its maps,
or its forest on images without such maps; `ours`: all pairs of seeds, which is
as near as two forests come), the share of pixels of the same class, the
correlation of each class's probabilities, and the F1 at IoU 0.5 of the masks
that follow (preset steinbock), pairs pooled over the images.
"""

import itertools
import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import ilastik as oracle
from conftest import REAL_DATA

from dicexmbd_jax.io.probabilities import read_probabilities
from dicexmbd_jax.masks import segment
from dicexmbd_jax.scores import evaluate
from dicexmbd_jax.teach import inputs, strokes
from dicexmbd_jax.teach.features import Feature, compute_features
from dicexmbd_jax.teach.forest import fit_forest
from dicexmbd_jax.teach.ilastik import read_project
from dicexmbd_jax.teach.teacher import View, classify_planes, gather_rows
from dicexmbd_jax.types import ImageSource

VIEW = View("all")
NUM_SEEDS = 5


def main(arguments):
  folder = REAL_DATA / "imc_testdata"
  if not arguments:
    arguments = [
      folder / name
      for name in (
        "pixel_classifier.ilp",
        "ilastik_crops",
        "ilastik_img",
        "ilastik_probabilities",
      )
    ]
  project_path, drawn_on, exported, maps = map(pathlib.Path, arguments)
  project = read_project(project_path)
  selection = tuple(Feature(*one) for one in project.features)
  forests = fit_forests(project, drawn_on, selection)
  for name, images in (("exported", exported), ("drawn_on", drawn_on)):
    sources, _ = inputs.list_inputs(str(images))
    planes = [inputs.view_image(one, VIEW).planes for one in sources]
    stored = predict_stored(project_path, planes, selection)
    ours = [
      [quantise(classify_planes(one, selection, trees)) for one in planes]
      for trees in forests
    ]
    reference = stored
    if name == "exported":
      reference = [read_maps(maps, source.stem) for source in sources]
      report(name, "ilastik", "ilastik", [(stored, reference)])
    report(name, "ours", "ilastik", [(one, reference) for one in ours])
    report(name, "ours", "ours", list(itertools.combinations(ours, 2)))


def fit_forests(project, drawn_on, selection):
  items, failures = strokes.pair_lanes(project, str(drawn_on))
  if failures:
    raise SystemExit(failures)
  parts = [
    gather_rows(
      inputs.view_image(item.source, VIEW).planes,
      item.strokes,
      selection,
    )
    for item in items
  ]
  rows, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
  return [fit_forest(rows, labels, seed) for seed in range(NUM_SEEDS)]


def predict_stored(project_path, planes, selection):
  """The maps of the project's own forest on our features."""
  trees = oracle.read_trees(project_path)
  found = []
  for one in planes:
    values = compute_features(one, selection)
    flat = oracle.predict(trees, values.reshape(-1, values.shape[2]))
    found.append(quantise(flat.reshape(*one.shape[:2], 3)))
  return found


def quantise(maps):
  """To 16 bits, as maps are stored."""
  return np.rint(maps * 65535).astype(np.uint16)


def read_maps(folder, stem):
  return read_probabilities(ImageSource(stem, folder / f"{stem}.tiff"))


def report(images, forest, against, pairs):
  lines = [compare(*pair) for pair in pairs]
  agreements = [line["agreement"] for line in lines]
  print(
    json.dumps(
      {
        "images": images,
        "forest": forest,
        "against": against,
        "agreement": round(float(np.mean(agreements)), 4),
        "agreement_least": round(min(agreements), 4),
        "correlation": [
          round(float(one), 4)
          for one in np.mean([line["correlation"] for line in lines], axis=0)
        ],
        "mask_f1": round(float(np.mean([line["f1"] for line in lines])), 3),
      }
    ),
    flush=True,
  )


def compare(first, second):
  """Compares two lists of maps."""
  a, b = (
    np.concatenate([maps.reshape(-1, 3) for maps in one]).astype(float)
    for one in (first, second)
  )
  pairs = cells = 0
  for one, other in zip(first, second, strict=True):
    masks = [
      segment.segment_image(maps, {"preset": "steinbock"}).cells
      for maps in (one, other)
    ]
    scores = evaluate.evaluate_image(*masks).scores
    pairs += scores["tp_iou_0.50"]
    cells += scores["num_predicted"] + scores["num_reference"]
  return {
    "agreement": float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
    "correlation": [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(3)],
    "f1": 2 * pairs / max(cells, 1),
  }


if __name__ == "__main__":
  main(sys.argv[1:])
