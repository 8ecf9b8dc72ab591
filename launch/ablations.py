"""What matters in the recipe: short runs, each with one thing changed.

usage: python launch/ablations.py DATA TRAINING OUTPUT [NUM_STEPS [SEED]]

Needs the records that launch/base.sh builds in TRAINING, and those of the
variants (see `move`). Each variant is trained from two seeds, or from the one
given, and scored on the validation images alone. Writes OUTPUT/seed_SEED.csv
(one row a run) and prints a table of what is there: F1 at IoU 0.5 of the
recipe, and for the rest the change against the recipe of the same seed. Runs
that are there are not repeated.

Runs without a source show what transfers: "spleen, nine ROIs" is the spleen as
another laboratory's study would be, where no spleen was trained on, and only
there. With spleen in training, eight of the nine have been seen.
"""

import dataclasses
import pathlib
import subprocess
import sys

import pandas as pd
import validation

from dicexmbd_jax import config as config_lib

SEEDS = (0, 1)
SHOWN = ("spleen", "spleen, nine ROIs", "simulated")
SPLEEN_ROIS = (6, 8, 10, 14, 16, 18, 20, 22, 24)
STUDIES = [f"new_study_{i}" for i in range(14)]
SPLEEN = ["spleen", "spleen_small", "spleen_large"]
RECORDS = [*STUDIES, *SPLEEN, "imc_testdata"]


def weigh(names: list[str], weight: float) -> list[str]:
  """Returns the flags that give each of these records a weight."""
  return [f"--config.train.data.{name}.weight={weight}" for name in names]


def move(suffix: str) -> list[str]:
  """Returns the flags that take the records from other folders."""
  return [
    f"--config.train.data.{name}.path=training/{suffix}/{name}"
    for name in RECORDS
  ]


def strengths(**values: float) -> list[str]:
  """Returns the flags that set augmentations."""
  return [f"--config.train.augment.{k}={v}" for k, v in values.items()]


NO_SPLEEN = weigh(SPLEEN, 0)
SAME_INTENSITIES = strengths(
  contrast=0, intensity=0, gamma=0, noise=0, blur_px=0
)
SAME_SIZES = strengths(log_scale=0, interpolated=0)
REFERENCE = [*move("records_reference"), "--config.image.preset=reference"]

VARIANTS = {
  "recipe": [],
  "no spleen": NO_SPLEEN,
  "no simulated tissue": weigh(STUDIES, 0),
  "no spleen, intensities unchanged": [*NO_SPLEEN, *SAME_INTENSITIES],
  "no spleen, sizes unchanged": [*NO_SPLEEN, *SAME_SIZES],
  "no spleen, reference preprocessing": [*NO_SPLEEN, *REFERENCE],
  "no spleen, cone (rim 1.0)": [*NO_SPLEEN, *move("records_cone")],
  "intensities unchanged": SAME_INTENSITIES,
  "sizes unchanged": [
    *SAME_SIZES,
    *weigh(SPLEEN[1:], 0),
    *weigh(SPLEEN[:1], 0.54),
  ],
  "reference preprocessing": REFERENCE,
  "cone (rim 1.0)": move("records_cone"),
  "plateau (rim 0.2)": move("records_plateau"),
  "simulated 3 of 4": weigh(STUDIES, 1.71 / 14),
  "dice in the loss": ["--config.train.loss.dice_weight=0.5"],
  "nucleus twice in the loss": [
    "--config.train.loss.class_weights=(2.0,1.0,1.0)"
  ],
  "width 32, half the steps": ["--config.model.width=32", "half"],
}


def train(folder: pathlib.Path, flags: list[str], seed: int, num_steps: int):
  """Trains one variant, if it is not there."""
  if (folder / "done").exists():
    return
  if "half" in flags:
    flags = [flag for flag in flags if flag != "half"]
    num_steps //= 2
  words = [sys.executable, "-m", "dicexmbd_jax", "train"]
  words += ["--config=configs/labeller.py", f"--workdir={folder}"]
  words += ["--config.model.width=16", f"--config.seed={seed}"]
  words += [f"--config.train.num_steps={num_steps}"]
  words += ["--config.train.warmup_steps=30", "--config.train.cells_records=1"]
  words += [f"--config.train.eval_steps={num_steps}", *flags]
  subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
  (folder / "done").touch()


def main(data, training, output, num_steps=300, only_seed=None):
  """Runs all variants, writes their scores, prints the table."""
  judged = validation.list_validation(data, training)
  judged += [
    dataclasses.replace(one, source="spleen, nine ROIs")
    for one in validation.list_spleen(data, SPLEEN_ROIS)
  ]
  output.mkdir(parents=True, exist_ok=True)
  for seed in SEEDS if only_seed is None else [only_seed]:
    rows = []
    for name, flags in VARIANTS.items():
      folder = output / f"{name.replace(' ', '_')}_{seed}".replace("/", "-")
      train(folder, flags, seed, num_steps)
      rows.append({"variant": name, "seed": seed, **score(folder, judged, 1)})
      if name == "recipe":
        rows += [
          {
            "variant": f"{views} views",
            "seed": seed,
            **score(folder, judged, views),
          }
          for views in (4, 8)
        ]
      pd.DataFrame(rows).to_csv(output / f"seed_{seed}.csv", index=False)
  print_table([pd.read_csv(path) for path in sorted(output.glob("seed_*.csv"))])


def score(folder: pathlib.Path, judged, views: int) -> dict[str, float]:
  """Returns F1 at IoU 0.5 by source."""
  config = config_lib.read_model_config(folder)
  maps = validation.predict_maps(folder, judged, views)
  return validation.score_sources(maps, config.segment)


def print_table(tables: list[pd.DataFrame]) -> None:
  """Prints Markdown: for each variant the change by seed, on each source."""
  print("| variant |", " | ".join(SHOWN), "|")
  print("|---" * (1 + len(SHOWN)) + "|")
  for name in tables[0]["variant"]:
    cells = []
    for source in SHOWN:
      found = [table.set_index("variant")[source] for table in tables]
      found = [one for one in found if name in one]
      if name == "recipe":
        cells.append(", ".join(f"{one[name]:.3f}" for one in found))
      else:
        cells.append(
          ", ".join(f"{one[name] - one['recipe']:+.3f}" for one in found)
        )
    print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
  words = sys.argv[1:]
  kinds = (*[pathlib.Path] * 3, int, int)
  main(*(kind(word) for kind, word in zip(kinds, words, strict=False)))
