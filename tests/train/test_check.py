"""What training says of a configuration before it begins."""

import pytest

from dicexmbd_jax.train import check


@pytest.mark.parametrize(
  ("patch_px", "line"),
  [(160, ""), (320, ""), (512, "10 times the pixels of a crop are read")],
)
def test_crops_of_much_larger_records_are_told(caplog, patch_px, line):
  check.tell_unused(patch_px, 160)
  assert line in caplog.text
  assert bool(caplog.messages) == bool(line)
