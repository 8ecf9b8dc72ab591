"""What training says of a configuration before it begins."""

import pytest

from configs import default
from dicexmbd_jax.train import check


@pytest.mark.parametrize(
  ("patch_px", "line"),
  [(160, ""), (320, ""), (512, "10 times the pixels of a crop are read")],
)
def test_crops_of_much_larger_records_are_told(caplog, patch_px, line):
  check.tell_unused(patch_px, 160)
  assert line in caplog.text
  assert bool(caplog.messages) == bool(line)


def test_records_that_are_to_be_built_too_large_are_told(caplog):
  config = default.get_config()
  config.train.data.records.path = "not there"
  assert check.plan_patch_px(config) == 512
  assert "10 times the pixels" in caplog.text
