"""Averages the weights of a network before and after further training.

usage: python launch/average_weights.py BEFORE AFTER OUTPUT

The mean keeps what the first training knew and most of what the second added
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). BEFORE and
AFTER are model folders or checkpoints; OUTPUT is a model folder with BEFORE's
configuration.
"""

import pathlib
import sys

import jax
from flax import nnx

from dicexmbd_jax import checkpoint


def main(
  before: pathlib.Path, after: pathlib.Path, output: pathlib.Path
) -> None:
  """Writes the mean of parameters and of BatchNorm's statistics, float32.

  Raises:
    ValueError: one is no model, or they are different networks.
  """
  (first, config), (last, last_config) = map(
    checkpoint.read_model, (before, after)
  )
  if config.model != last_config.model:
    raise ValueError(
      f"{after}: found another network than in {before}, expected the same"
    )
  mean = jax.tree.map(
    lambda one, other: (one + other) / 2, nnx.state(first), nnx.state(last)
  )
  nnx.update(last, mean)
  checkpoint.write_model(output, last, config, "float32")


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
