"""Dark gaps between cells: fine-tuning on nuclei that people drew.

    bash launch/experiments/gaps.sh

Goes on from the shipped weights, which are not made by it yet (ablations.md).
Spleen and simulated tissue tile the plane, and a network that has seen nothing
else takes gaps between cells for cytoplasm. Drawn nuclei of intestine and of
cultured cells, with membranes, haze and ions by simulate/drawn_nuclei.py, show
gaps; the sources of configs/base.py keep what was learned from them.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from configs import base, robust, simulated

DRAWN = {"intestine": 0.3, "dsb": 0.15}


def get_config(drawn: Mapping[str, float] = DRAWN) -> ConfigDict:
  """Returns the configuration.

  Args:
    drawn: shares of the patches, by name of the records of drawn nuclei.
  """
  config = robust.get_config()
  rest = 1 - sum(drawn.values())
  shares = {name: rest * share for name, share in base.SHARES.items()}
  config.train.data = simulated.mix_sources(
    {**shares, **drawn}, simulated.NUM_STUDIES
  )
  config.seed = 2  # Other patches than in configs/robust.py.
  config.train.num_steps = 600
  config.train.eval_steps = 200
  config.train.checkpoint_steps = 200
  config.train.learning_rate = 5e-4
  config.train.average_decay = 0.99
  return config
