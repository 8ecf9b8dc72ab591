"""Means over images, and differences between methods."""

import numpy as np
import pytest

from dicexmbd_jax.scores import summary

TABLES = {
  "ours": {
    f"roi{i}": {
      "num_predicted": 10 * i + 1,
      "num_reference": 10 * i,
      "tp_iou_0.50": 5 * i,
      "f1_iou_0.50": 0.5 + i / 20,
      "iou_mean": np.nan if i == 1 else 0.7,
    }
    for i in range(1, 7)
  },
  "theirs": {
    f"roi{i}": {
      "num_predicted": 30,
      "num_reference": 10 * i,
      "tp_iou_0.50": 2,
      "f1_iou_0.50": 0.4 + i / 20,
      "iou_mean": 0.6,
    }
    for i in range(2, 7)
  },
  "none": {},
}


def test_means_over_the_images_of_each_method():
  found = summary.summarise_methods(TABLES)
  assert found["num_images"] == {"ours": 6, "theirs": 5, "none": 0}
  ours, theirs = found["methods"]["ours"], found["methods"]["theirs"]
  assert ours["f1_iou_0.50"] == pytest.approx(0.5 + 3.5 / 20)
  assert ours["iou_mean"] == pytest.approx(0.7)
  assert ours["count_pearson"] == pytest.approx(1)
  assert ours["f1_iou_0.50_pooled"] == pytest.approx(210 / (2 * 210 + 6))
  assert np.isnan(theirs["count_pearson"])
  assert found["methods"]["none"] == found["intervals"]["none"] == {}
  deviation = np.std([0.5 + i / 20 for i in range(1, 7)], ddof=1)
  assert found["sd"]["ours"]["f1_iou_0.50"] == pytest.approx(deviation)


def test_intervals_hold_the_means_and_follow_the_seed():
  found = summary.summarise_methods(TABLES)
  low, high = found["intervals"]["ours"]["f1_iou_0.50"]
  assert 0.55 <= low < found["methods"]["ours"]["f1_iou_0.50"] < high <= 0.8
  np.testing.assert_equal(summary.summarise_methods(TABLES), found)
  other = summary.summarise_methods(TABLES, seed=1)
  assert other["methods"]["ours"] == pytest.approx(found["methods"]["ours"])


def test_differences_are_paired():
  # The scores vary far more between images than between the methods.
  found = summary.summarise_methods(TABLES)["differences"]
  assert list(found) == ["ours - theirs", "ours - none", "theirs - none"]
  difference = found["ours - theirs"]["f1_iou_0.50"]
  assert difference["num_images"] == 5
  assert difference["mean"] == pytest.approx(0.1)
  np.testing.assert_allclose(difference["interval"], [0.1, 0.1])
  assert found["ours - none"] == {}


def test_two_images_have_no_count_correlation():
  images = {name: TABLES["ours"][name] for name in ("roi2", "roi3")}
  found = summary.summarise_methods({"a": images})
  assert np.isnan(found["methods"]["a"]["count_pearson"])


def test_one_image_has_a_mean_but_no_spread():
  found = summary.summarise_methods({"a": {"x": TABLES["ours"]["roi2"]}})
  assert found["methods"]["a"]["f1_iou_0.50"] == 0.6
  assert np.isnan(found["methods"]["a"]["count_pearson"])
  assert np.isnan(found["sd"]["a"]["f1_iou_0.50"])
  assert np.isnan(found["intervals"]["a"]["f1_iou_0.50"]).all()
