"""Lets the tests import the experiments as their scripts do."""

import pathlib
import sys

sys.path.append(
  str(pathlib.Path(__file__).resolve().parents[2] / "launch" / "experiments")
)
