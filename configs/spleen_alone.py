"""Simulated tissue left out: configs/simulated.py on spleen with masks alone.

    python -m dicexmbd_jax train --config=configs/spleen_alone.py \
      --workdir=training/spleen_alone

Not part of the shipped weights' recipe: it shows what the simulated studies are
worth (docs/ablations.md). The records are those of launch/base.sh.
"""

from ml_collections import ConfigDict

from configs import base, simulated


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = simulated.get_config()
  shares = {
    name: share
    for name, share in base.SHARES.items()
    if name.startswith("spleen")
  }
  whole = sum(shares.values())
  config.train.data = simulated.mix_sources(
    {name: share / whole for name, share in shares.items()}, num_studies=0
  )
  # Half the steps of configs/simulated.py: the spleen is eight images.
  config.train.num_steps = 1500
  config.train.eval_steps = 750
  return config
