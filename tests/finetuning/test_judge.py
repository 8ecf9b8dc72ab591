"""Intervals, the clock and the verdict."""

import dataclasses
import types

import numpy as np
import pytest
from test_split import make_sample

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.finetuning import advice, judge, patches, samples
from dicexmbd_jax.image import resample


def make_verdict(counts):
  return judge.Verdict(np.array(counts), {}, {}, 0, 0)


def test_a_model_is_better_where_its_interval_is_above_zero():
  before = make_verdict([[5, 5, 5]] * 20)
  after = make_verdict([[8, 2, 2]] * 20)
  difference = judge.compare(after, before)
  assert np.allclose(difference, 0.3)
  assert advice.is_better(difference)
  assert advice.say_verdict(difference, 0.5, 0.8).startswith("better")
  assert not advice.is_better(judge.compare(before, after))
  assert not advice.is_better(judge.compare(before, before))


def test_chance_is_not_better():
  rng = np.random.default_rng(0)
  before = make_verdict(rng.integers(0, 9, (10, 3)))
  after = make_verdict(rng.integers(0, 9, (10, 3)))
  mean, low, high = judge.compare(after, before)
  assert low < mean < high
  assert low < 0 < high


def test_one_square_shows_nothing():
  one = make_verdict([[5, 0, 0]])
  difference = judge.compare(one, make_verdict([[1, 4, 4]]))
  assert not advice.is_better(difference)
  assert "too few labels" in advice.say_verdict(difference, 0.2, 1)


def advise(*doubts):
  samples = [types.SimpleNamespace(kind="cells", doubts=[d]) for d in doubts]
  after = make_verdict([[200, 0, 0]])
  notes = {"way": "by slide", "history": [], "simulated": None, "factors": [1]}
  return advice.advise(samples, (after, after), notes)


def test_a_doubt_that_images_share_is_said_once():
  lines = advise(*(f"ROI{k}: no membrane marker" for k in range(5)))
  assert lines[-1] == "ROI0, ROI1, ROI2 and 2 more: no membrane marker"


def test_doubts_that_differ_in_numbers_are_counted():
  alike = "a long sentence that ends with a number"
  lines = advise(*(f"ROI{k}: {alike} {k}" for k in range(5)))
  assert lines[-2] == f"ROI2: {alike} 2"
  assert lines[-1] == f"and 2 times more: {alike[:30]} ..."


def test_a_teachers_cells_are_the_same_at_twice_the_size():
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  known = patches.simulate_sample((0, 1), 128, "cells", config)
  used = np.ones((128, 128), bool)
  maps, _ = samples.make_sample_target(known, (128, 128), used)
  maps = resample.resample_image(maps.astype(np.float32), (64, 64))
  record = dataclasses.replace(known.record, pixel_size_um=1.0)
  counts = []
  for scale in (1, 2):
    large = resample.resample_image(maps, (64 * scale, 64 * scale))
    teacher = samples.Sample(record, maps=large, is_covered=used[:64, :64])
    found = judge.find_reference(teacher, config)
    assert found.shape == (64, 64)
    counts.append(samples.count_objects(found))
  assert counts[0] > 10
  assert abs(counts[0] - counts[1]) <= 0.03 * counts[0]


def test_membrane_is_counted_by_pixels():
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  membrane = np.zeros((40, 60), bool)
  membrane[:, :30] = True
  sample = samples.check_sample(
    make_sample("a", np.zeros((40, 60), np.int32), membrane=membrane)
  )
  sample = dataclasses.replace(sample, cells=None)
  everywhere = np.ones((40, 60), bool)
  maps = np.zeros((40, 60, 3), np.float32)
  maps[:, 10:20, 1] = 1
  shown = judge.Shown(
    sample, everywhere, 1.0, sample.record.image, sample.objects
  )
  verdict = judge.judge_maps([shown], [maps], config)
  found = verdict.summarise()
  assert (found["num_labelled"], found["num_found"]) == (1200, 400)
  assert found["count_error"] == pytest.approx(-2 / 3)
  assert np.isnan(found["splits"]) and np.isnan(found["merges"])


def test_shares_of_no_label_are_unknown():
  found = make_verdict([[0, 3, 0]]).summarise()
  assert (found["num_labelled"], found["num_found"]) == (0, 3)
  assert np.isnan([found[n] for n in ("count_error", "splits")]).all()
