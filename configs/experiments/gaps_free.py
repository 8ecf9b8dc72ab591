"""configs/experiments/gaps.py without intestine, whose licence is unsettled.

LICENSED_ONLY=1 bash launch/experiments/gaps.sh
"""

from ml_collections import ConfigDict

from configs.experiments import gaps


def get_config() -> ConfigDict:
  """Returns the configuration."""
  return gaps.get_config({"dsb": sum(gaps.DRAWN.values())})
