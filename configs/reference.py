"""The published code's recipe, which differs from its paper.

    python -m dicexmbd_jax train --config=configs/reference.py --workdir=DIR \
      --config.train.data.records.path=RECORDS

Records have to be built with `--config.image.preset=reference`. Time as
configs/paper.py; score not measured.

Not repeated: no shuffling, augmented validation images, targets rounded to one
decimal, normalisation by tile, and the crop that mixes rows and columns.
"""

from ml_collections import ConfigDict

from configs import paper


def get_config() -> ConfigDict:
  """Returns the published code's configuration."""
  config = paper.get_config()
  config.image.preset = "reference"
  config.train.augment.rotation_deg = 0.0
  config.train.augment.interpolated = 0.0
  return config
