"""What matters in the recipe: short runs, each with one thing changed.

usage:

    python launch/experiments/ablations.py DATA TRAINING OUTPUT [STEPS [SEED]]

Needs the studies that base.sh simulates in TRAINING, and builds records
of them and of the real data in OUTPUT. Each variant is trained from two seeds,
or from the one given, and scored on the validation images alone. Writes
OUTPUT/seed_SEED.csv (one row a run) and prints a table of what is there: F1 at
IoU 0.5 of the recipe, and for the rest the change against the recipe of the
same seed. Records and runs that are there are not made again.

Runs without a source show what transfers: "spleen, nine ROIs" is the spleen as
another laboratory's study would be, where no spleen was trained on, and only
there. With spleen in training, eight of the nine have been seen.
"""

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import pandas as pd
import validation

from dicexmbd_jax import config as config_lib

SEEDS = (0, 1)
SHOWN = ("spleen", "spleen, nine ROIs", "simulated")
SPLEEN_ROIS = (6, 8, 10, 14, 16, 18, 20, 22, 24)
# um per pixel that the studies are said to have, in turns.
SIZES_UM = (1.0, 0.7, 1.3, 1.0, 0.85, 0.6, 1.0)
STUDIES = [f"study_{i}" for i in range(14)]
SPLEEN = ["spleen", "spleen_small", "spleen_large"]
RECORDS = [*STUDIES, *SPLEEN, "imc_testdata"]
# Images that choices are made on, by source.
KEPT = {
  **{study: ["ROI006"] for study in STUDIES[:4]},
  **{name: ["ROI024"] for name in SPLEEN},
  "imc_testdata": list(validation.TEST_CROPS),
}
# What records are built for: folder -> flags of the builder.
RECORD_SETS = {
  "records": [],
  "records_panels": ["--config.records.num_panels=3"],
  "records_reference": ["--config.image.preset=reference"],
  "records_cone": ["--config.records.rim_fraction=1.0"],
  "records_plateau": ["--config.records.rim_fraction=0.2"],
}


def weigh(names: list[str], weight: float) -> list[str]:
  """Returns the flags that give each of these records a weight."""
  return [f"--config.train.data.{name}.weight={weight}" for name in names]


def build_records(
  data: pathlib.Path, training: pathlib.Path, output: pathlib.Path, flags
) -> None:
  """Builds the records of all sources in `output`, those that are missing."""
  spleen, crops = data / "spleen_imc", data / "imc_testdata"
  sources = [
    (name, training / name, "truth/masks", SIZES_UM[i % len(SIZES_UM)])
    for i, name in enumerate(STUDIES)
  ]
  sources += [
    (name, spleen, "masks", size_um)
    for name, size_um in zip(SPLEEN, (1.0, 0.8, 1.25), strict=True)
  ]
  sources.append(("imc_testdata", crops, "masks_ilastik", 1.0))
  for name, folder, masks, size_um in sources:
    if (output / name / "build.json").exists():
      continue
    words = [sys.executable, "-m", "data_builders.build"]
    words += [
      "--config=configs/experiments/ablations.py",
      f"--output={output / name}",
    ]
    words += [f"--images={folder / 'img'}", f"--panel={folder / 'panel.csv'}"]
    words += [f"--teacher={folder / masks}", f"--pixel_size_um={size_um}"]
    words += [f"--config.records.lists.validation={KEPT.get(name, [])}"]
    if name in SPLEEN:
      words += ["--config.records.lists.test=[ROI028, ROI030]"]
    subprocess.run([*words, *flags], check=True, stdout=subprocess.DEVNULL)


def strengths(**values: float) -> list[str]:
  """Returns the flags that set augmentations."""
  return [f"--config.train.augment.{k}={v}" for k, v in values.items()]


NO_SPLEEN = weigh(SPLEEN, 0)
SAME_INTENSITIES = strengths(
  contrast=0, intensity=0, gamma=0, noise=0, blur_px=0
)
SAME_SIZES = strengths(log_scale=0, interpolated=0)
REFERENCE = ["--config.image.preset=reference"]


@dataclasses.dataclass(frozen=True)
class Variant:
  """What a run has other than the recipe.

  Attributes:
    flags: of `train`.
    records: which of RECORD_SETS it reads.
    share: of the recipe's steps.
  """

  flags: Sequence[str] = ()
  records: str = "records"
  share: float = 1.0


VARIANTS = {
  "recipe": Variant(),
  "no spleen": Variant(NO_SPLEEN),
  "no simulated tissue": Variant(weigh(STUDIES, 0)),
  "no spleen, intensities unchanged": Variant([*NO_SPLEEN, *SAME_INTENSITIES]),
  "no spleen, sizes unchanged": Variant([*NO_SPLEEN, *SAME_SIZES]),
  "no spleen, reference preprocessing": Variant(
    [*NO_SPLEEN, *REFERENCE], "records_reference"
  ),
  "no spleen, cone (rim 1.0)": Variant(NO_SPLEEN, "records_cone"),
  "no spleen, three panels": Variant(NO_SPLEEN, "records_panels"),
  "three panels": Variant(records="records_panels"),
  "intensities unchanged": Variant(SAME_INTENSITIES),
  "sizes unchanged": Variant(
    [*SAME_SIZES, *weigh(SPLEEN[1:], 0), *weigh(SPLEEN[:1], 0.54)]
  ),
  "reference preprocessing": Variant(REFERENCE, "records_reference"),
  "cone (rim 1.0)": Variant(records="records_cone"),
  "plateau (rim 0.2)": Variant(records="records_plateau"),
  "simulated 3 of 4": Variant(weigh(STUDIES, 1.71 / 14)),
  "dice in the loss": Variant(["--config.train.loss.dice_weight=0.5"]),
  "nucleus twice in the loss": Variant(
    ["--config.train.loss.class_weights=(2.0,1.0,1.0)"]
  ),
  "width 32, half the steps": Variant(["--config.model.width=32"], share=0.5),
}


def train(
  folder: pathlib.Path,
  variant: Variant,
  records: pathlib.Path,
  seed: int,
  num_steps: int,
):
  """Trains one variant on records in `records`, if it is not there."""
  if (folder / "done").exists():
    return
  num_steps = int(num_steps * variant.share)
  words = [sys.executable, "-m", "dicexmbd_jax", "train"]
  words += ["--config=configs/experiments/ablations.py", f"--workdir={folder}"]
  words += [f"--config.seed={seed}", f"--config.train.num_steps={num_steps}"]
  words += [f"--config.train.eval_steps={num_steps}", *variant.flags]
  words += [
    f"--config.train.data.{name}.path={records / name}" for name in RECORDS
  ]
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
  for name, flags in RECORD_SETS.items():
    build_records(data, training, output / name, flags)
  for seed in SEEDS if only_seed is None else [only_seed]:
    rows = []
    for name, variant in VARIANTS.items():
      folder = output / f"{name.replace(' ', '_')}_{seed}"
      records = output / variant.records
      train(folder, variant, records, seed, num_steps)
      rows.append(
        {"variant": name, "seed": seed, **score(folder / "best", judged, 1)}
      )
      if name == "recipe":
        rows += [
          {
            "variant": f"{views} views",
            "seed": seed,
            **score(folder / "best", judged, views),
          }
          for views in (4, 8)
        ]
      pd.DataFrame(rows).to_csv(output / f"seed_{seed}.csv", index=False)
  print_table([pd.read_csv(path) for path in sorted(output.glob("seed_*.csv"))])


def score(folder: pathlib.Path, judged, views: int) -> dict[str, float]:
  """Returns F1 at IoU 0.5 by source."""
  config = config_lib.read_model_config(folder)
  maps = validation.predict_maps(folder, judged, views)
  return validation.score_sources(maps, config)


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
