"""A small student of a teacher that learnt from strokes: distill.sh.

Random weights to begin with: the shipped ones were trained on the masks of
these very ROIs. ROI 24, on which no stroke lies, is the validation.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  config.records.lists = ConfigDict({"validation": ("ROI024",)})
  config.records.shares = ConfigDict(
    {"train": 1.0, "validation": 0.0, "test": 0.0}
  )
  config.train.data = ConfigDict(
    {"spleen": {"path": "distill/records", "weight": 1.0}}
  )
  config.train.num_steps = 1000  # Minutes on a CPU; later steps gain little.
  config.train.eval_steps = 100
  return config
