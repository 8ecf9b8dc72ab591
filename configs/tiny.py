"""A minute on a CPU."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  config.model.update({"width": 8, "depth": 3})
  config.train.data = ConfigDict(
    {"simulated": {"path": "training/tiny", "weight": 1.0}}
  )
  config.train.update({"num_steps": 200, "crop_px": 64, "warmup_steps": 10})
  return config
