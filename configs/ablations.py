"""A wider network that labels images without masks for configs/base.py.

    bash launch/base.sh

Simulated studies (a study has one panel), spleen and imc_testdata, each at
pixel sizes that make its cells smaller or larger than they are. ROIs 28 and 30
of the spleen are in no record: they are what is reported. Spleen ROI 24, one
image of four of the studies and three images of imc_testdata are kept aside
for choices.
"""

from ml_collections import ConfigDict

from configs import first_weights

NUM_STUDIES = 14
SHARES = {
  "spleen": 0.38,
  "spleen_small": 0.08,
  "spleen_large": 0.08,
  "imc_testdata": 0.03,
}


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = first_weights.get_config()
  config.model.width = 32
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
  studies = {f"new_study_{i}": rest for i in range(NUM_STUDIES)}
  return ConfigDict(
    {
      name: {"path": f"training/records/{name}", "weight": share}
      for name, share in {**studies, **shares}.items()
    }
  )
