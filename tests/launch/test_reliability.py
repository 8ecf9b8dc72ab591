import numpy as np
import pytest
import reliability


def test_reliability_by_hand():
  predicted = np.array([0.0, 0.1, 0.5, 0.7, 1.0])
  outcome = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
  table = reliability.measure_reliability(predicted, outcome, num_bins=2)
  assert table["num"].tolist() == [2, 3]
  np.testing.assert_allclose(table["predicted"], [0.05, 2.2 / 3])
  np.testing.assert_allclose(table["outcome"], [0.5, 2 / 3])
  error = reliability.score_calibration(table)
  assert error == pytest.approx((0.9 + 0.2) / 5)


def test_bins_that_are_empty_are_left_out():
  table = reliability.measure_reliability(np.array([0.95]), np.array([1.0]))
  assert table[["low", "high", "num"]].values.tolist() == [[0.9, 1.0, 1]]
  nothing = reliability.measure_reliability(np.zeros(0), np.zeros(0))
  assert np.isnan(reliability.score_calibration(nothing))


def test_outcomes_drawn_as_predicted_are_calibrated():
  rng = np.random.default_rng(0)
  predicted = rng.uniform(size=100_000)
  outcome = (rng.uniform(size=predicted.size) < predicted).astype(float)
  table = reliability.measure_reliability(predicted, outcome)
  assert reliability.score_calibration(table) < 0.01
  overconfident = reliability.measure_reliability(
    (predicted > 0.5).astype(float), outcome
  )
  assert reliability.score_calibration(overconfident) == pytest.approx(
    0.25, abs=0.01
  )


def test_what_cannot_be_is_an_error():
  with pytest.raises(ValueError, match="outcome: found"):
    reliability.measure_reliability(np.zeros(3), np.zeros(2))
  with pytest.raises(ValueError, match="found 0 to 1.5, expected 0 to 1"):
    reliability.measure_reliability(np.array([0, 1.5]), np.zeros(2))
