"""Simulated tissue left out: configs/simulated.py on spleen with masks alone.

    python -m dicexmbd_jax train --config=configs/experiments/spleen_alone.py \
      --workdir=training/spleen_alone

Not part of the shipped weights' recipe: it shows what the simulated studies are
worth (ablations.md). The records are those of launch/experiments/base.sh.
"""

from ml_collections import ConfigDict

from configs import base, simulated


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = simulated.get_config()
  sources = base.get_config().train.data.items()
  config.train.data = ConfigDict(
    {name: part for name, part in sources if name.startswith("spleen")}
  )
  # Half the steps of configs/simulated.py: the spleen is eight images.
  config.train.num_steps = 1500
  config.train.eval_steps = 750
  return config
