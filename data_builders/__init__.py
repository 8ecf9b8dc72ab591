"""Builders of record datasets, and the downloads that they start from.

Their programs, as `python -m data_builders.build`, need the extra `train`.
"""

import sys

from dicexmbd_jax import extras

if sys.argv[0] == "-m":  # So it is while `python -m` looks for the module.
  try:
    extras.check_extra("train")
  except ModuleNotFoundError as error:
    print(f"data_builders: {extras.describe_missing(error)}", file=sys.stderr)
    sys.exit(2)
