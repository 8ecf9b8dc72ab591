r"""The paper's split: 348 images train, 100 validation, 100 test of BRCA1.

  python -m data_builders.build --config=configs/records_paper.py \
      --images=TRAIN/combined2_image --teacher=TRAIN/probability --output=DIR

Needs all 548 images at once. Which of them the authors took for what
is not published: here the order of their names' hashes decides.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the default configuration with the paper's numbers of images."""
  config = default.get_config()
  config.records.counts = ConfigDict(
    {"train": 348, "validation": 100, "test": 100}
  )
  return config
