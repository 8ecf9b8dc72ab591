"""Prints the README's accuracy table from what scores.sh measured.

usage: python launch/experiments/scores_table.py FOLDER
"""

import pathlib
import sys

import pandas as pd

COLUMNS = {
  "f1_iou_0.50": "F1 at IoU 0.5",
  "cell_f1": "cell F1 (paper)",
  "oversplit": "oversplit",
  "merge": "merge",
  "pixel_f1": "outline F1 (paper)",
  "iou_mean": "IoU of pairs",
}
SETS = {
  "simulated": "simulated_*",
  "spleen 28, 30": "spleen",
  "imc_testdata": "imc_testdata",
}


def main(folder: pathlib.Path) -> None:
  """Prints Markdown: means over images, and the number of images."""
  print("| images | method |", " | ".join(COLUMNS.values()), "|")
  print("|---" * (2 + len(COLUMNS)) + "|")
  for name, pattern in SETS.items():
    paths = sorted(folder.glob(f"{pattern}/per_image.csv"))
    if not paths:
      continue
    table = pd.concat([pd.read_csv(path) for path in paths])
    for method, rows in table.groupby("method", sort=False):
      values = " | ".join(f"{rows[column].mean():.3f}" for column in COLUMNS)
      print(f"| {name} ({len(rows)}) | {method} | {values} |")


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
