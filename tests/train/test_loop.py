"""The loop: what it tells of a step that failed."""

import collections

import numpy as np
import pytest

from dicexmbd_jax.train import loop


def test_the_first_bad_step_is_named_with_its_records():
  def found(is_finite):
    return {"loss": np.nan, "gradient_norm": 1.0, "is_finite": is_finite}

  recent = collections.deque(
    [(7, ["a"], found(True)), (8, ["b", "c"], found(False))]
  )
  loop.check_finite(recent, 1)  # Step 8 may be running still.
  assert len(recent) == 1
  with pytest.raises(FloatingPointError, match="step 8: .*records b, c"):
    loop.check_finite(recent, 0)
