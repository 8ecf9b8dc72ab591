"""Chooses the segmenter's few settings for a model, on validation images.

usage: python launch/experiments/fit_segmenter.py MODEL DATA [STUDIES]

Writes them into MODEL/config.json. The score is the mean over the sources of
F1 at IoU 0.5. One setting after the other takes its best value, twice: the
settings work on different steps of the pipeline.
"""

import json
import pathlib
import sys

import numpy as np
import validation
from ml_collections import ConfigDict

from dicexmbd_jax.io import write

GRID = {
  "min_saddle_depth": (0.0, 0.04, 0.08, 0.12, 0.16, 0.2),
  "smoothing_px": (0.5, 1.0, 1.5),
  "declump_smoothing_px": (0.0, 1.0),
  "min_diameter_px": (2.0, 3.0),
  "cell_correction": (1.0, 1.2, 1.4, 1.6),
  "nucleus_correction": (0.8, 1.0, 1.2, 1.4),
  "regularisation": (0.1, 0.2, 0.4, 0.8),
  "min_nucleus_area_px": (2.0, 3.0, 4.5),
}
WEIGHTS = {"imc_testdata": 0.0}  # Its masks call empty background cells.


def main(
  folder: pathlib.Path,
  data: pathlib.Path,
  studies: pathlib.Path = pathlib.Path("training"),
) -> None:
  """Prints each step and writes the settings."""
  judged = validation.list_validation(data, studies)
  maps = validation.predict_maps(folder, judged)
  path = folder / "config.json"
  config = json.loads(path.read_text())
  chosen = ConfigDict(config)

  def score() -> float:
    found = validation.score_sources(maps, chosen)
    weights = [WEIGHTS.get(source, 1.0) for source in found]
    return float(np.average(list(found.values()), weights=weights))

  best = score()
  print(f"before: {best:.4f} {validation.score_sources(maps, chosen)}")
  for name, values in [*GRID.items(), *GRID.items()]:
    kept = chosen.segment[name]
    for value in values:
      chosen.segment[name] = value
      found = score()
      # A thousandth of the cells is within chance: the published value stays.
      if found > best + 1e-3:
        best, kept = found, value
    chosen.segment[name] = kept
    print(f"{name} {kept}: {best:.4f}", flush=True)
  print(f"after: {best:.4f} {validation.score_sources(maps, chosen)}")
  config["segment"] = json.loads(chosen.segment.to_json())
  write.write_json(path, config)


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
