"""The second half of the first weights' recipe: milder changes, more spleen.

    bash launch/first_weights.sh

Starts from what configs/first_weights.py made. The first half makes the network
robust; this one brings it back to how images really look.
"""

from ml_collections import ConfigDict

from configs import first_weights

SPLEEN_SHARE = 0.6


def get_config() -> ConfigDict:
  """Returns the configuration of the second half."""
  config = first_weights.get_config()
  config.train.data = first_weights.share_records(SPLEEN_SHARE)
  config.train.num_steps = 2000
  config.train.learning_rate = 1.5e-3
  config.train.warmup_steps = 50
  config.train.augment.contrast = 0.25
  config.train.augment.intensity = 0.25
  config.train.augment.gamma = 0.15
  config.train.augment.noise = 3.0
  config.train.augment.blur_px = 0.3
  config.train.augment.interpolated = 0.15
  config.train.augment.channel_dropout = 0.03
  return config
