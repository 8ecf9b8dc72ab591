"""The recipe of the shipped weights, first half: robust to anything.

    bash launch/base.sh

Simulated studies (a study has one panel), spleen and imc_testdata, each at
pixel sizes that make its cells smaller or larger than they are. ROIs 28 and 30
of the spleen are in no record: they are what is reported. Spleen ROI 24, one
image of four of the studies and three images of imc_testdata are kept aside
for choices.
"""

from ml_collections import ConfigDict

from configs import default

NUM_STUDIES = 14
SHARES = {
  "spleen": 0.38,
  "spleen_small": 0.08,
  "spleen_large": 0.08,
  "imc_testdata": 0.03,
}


def get_config() -> ConfigDict:
  """Returns the default configuration with the records to train on."""
  config = default.get_config()
  config.model.width = 32
  config.segment.cell_correction = 1.4
  config.segment.regularisation = 0.2
  # Crops of 160 px turn within 272 px. Overlapping by half, a place is seen
  # whole in one patch or another.
  config.records.patch_px = 272
  config.records.stride_px = 136
  config.records.shares.update({"train": 1.0, "validation": 0.0, "test": 0.0})
  # Filled in by the script, for each source its own.
  config.records.lists = ConfigDict({"validation": [], "test": []})
  config.train.data = mix_sources(SHARES)
  config.train.num_steps = 2400
  config.train.eval_steps = 600
  config.train.cells_records = 12
  config.train.augment.interpolated = 0.35
  config.train.augment.log_scale = 0.25
  config.train.augment.blur_px = 1.0
  config.train.augment.channel_dropout = 0.1
  return config


def mix_sources(shares: dict[str, float]) -> ConfigDict:
  """Returns `config.train.data`; what `shares` leave is simulated tissue."""
  rest = (1 - sum(shares.values())) / NUM_STUDIES
  studies = {f"study_{i}": rest for i in range(NUM_STUDIES)}
  return ConfigDict(
    {
      name: {"path": f"training/records/{name}", "weight": share}
      for name, share in {**studies, **shares}.items()
    }
  )
