"""Short runs from random weights, to see what matters: ablations.md.

    python launch/experiments/ablations.py DATA TRAINING OUTPUT

Simulated studies (a study has one panel), spleen and imc_testdata, each at
pixel sizes that make its cells smaller or larger than they are. Spleen ROIs 28
and 30 are never trained on: they are what is reported. Spleen ROI 24, one image
of four of the studies and three of imc_testdata are kept aside for choices.
"""

from ml_collections import ConfigDict

from configs import simulated

NUM_STUDIES = 14
SHARES = {
  "spleen": 0.38,
  "spleen_small": 0.08,
  "spleen_large": 0.08,
  "imc_testdata": 0.03,
}


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = simulated.get_config()
  config.records.num_panels = 1
  config.train.data = simulated.mix_sources(SHARES, NUM_STUDIES)
  config.train.cells_records = 1
  config.train.warmup_steps = 30
  config.train.augment.interpolated = 0.35
  config.train.augment.log_scale = 0.25
  config.train.augment.blur_px = 1.0
  config.train.augment.channel_dropout = 0.1
  return config
