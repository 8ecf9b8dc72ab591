"""The recipe of the shipped weights, second half: how images really look.

    bash launch/base.sh

Starts from what configs/base.py made, with milder changes. Images without
masks join in: MIBI fields and nuclei of lung tumours, whose targets are the
cells that the first half's network finds in them (self-training). So are those
of imc_testdata from here on: its own masks call empty background cells.
"""

from ml_collections import ConfigDict

from configs import base

SHARES = {
  "spleen": 0.38,
  "spleen_small": 0.06,
  "spleen_large": 0.06,
  "mibi_lymph": 0.08,
  "mibi_lymph_small": 0.04,
  "nuclear_imc": 0.05,
  "imc_testdata_self": 0.02,
}


def get_config() -> ConfigDict:
  """Returns the configuration of the second half."""
  config = base.get_config()
  config.train.data = base.mix_sources(SHARES)
  config.train.num_steps = 1400
  config.train.learning_rate = 1.5e-3
  config.train.warmup_steps = 50
  config.train.augment.contrast = 0.25
  config.train.augment.intensity = 0.25
  config.train.augment.gamma = 0.15
  config.train.augment.noise = 3.0
  config.train.augment.blur_px = 0.5
  config.train.augment.interpolated = 0.25
  return config
