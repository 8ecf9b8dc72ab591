"""Costs of the network and rates of devices."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax.model import unet
from dicexmbd_jax.train import metrics


def test_flops_are_those_that_the_compiler_counts():
  config = ConfigDict(
    {"width": 16, "depth": 2, "in_channels": 2, "dtype": "float32"}
  )
  model = unet.build_model(config)
  model.eval()
  graph, state = nnx.split(model)

  def compute_logits(state, image):
    return nnx.merge(graph, state)(image)

  image = jnp.zeros((1, 64, 64, 2))
  cost = jax.jit(compute_logits).lower(state, image).cost_analysis()
  # The compiler counts BatchNorm, ReLU and pooling, too.
  assert metrics.count_flops(config, 64, 64) == pytest.approx(
    cost["flops"], rel=0.05
  )


def test_scores_leave_out_classes_that_are_not_valid():
  logits = jnp.array([[[1.0, -1, -1], [-1, 1, -1]]])[None]
  target = jnp.array([[[1.0, 0, 0], [1, 0, 0]]])[None]
  valid = jnp.array([[[1.0, 1, 1], [0, 1, 1]]])[None]
  sums = metrics.pixel_scores(logits, target, valid)
  assert (float(sums["num_right"]), float(sums["num_px"])) == (1, 1)
  assert sums["num_both"].tolist() == [1, 0, 0]
  assert sums["num_either"].tolist() == [2, 1, 0]


def test_pixel_scores_by_hand():
  logits = jnp.array([[[1.0, -1, -1], [1, -1, -1], [-1, -1, 1]]])[None]
  target = jnp.array([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]])[None]
  valid = jnp.array([1.0, 1.0, 0.0]).reshape(1, 1, 3, 1)
  sums = metrics.pixel_scores(logits, target, valid)
  scores = metrics.finish_scores(jax.device_get(sums))
  assert scores == {
    "accuracy": 0.5,
    "f1_nucleus": pytest.approx(2 / 3),
    "f1_membrane": 0.0,
    "f1_background": 1.0,  # Its only pixel is padding.
  }
