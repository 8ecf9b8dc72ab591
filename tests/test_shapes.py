"""The shape contracts of types.py, checked along the whole line."""

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from configs import default
from dicexmbd_jax import simulate
from dicexmbd_jax.image import channels, resample
from dicexmbd_jax.masks import measure, segment
from dicexmbd_jax.report import overlay
from dicexmbd_jax.teach import features, forest, teacher, uncertainty
from dicexmbd_jax.train import targets


def check(function):
  """Returns the function with its annotations enforced."""
  return jaxtyped(typechecker=beartype)(function)


def test_every_step_hands_on_what_the_next_one_takes():
  config = default.get_config()
  found = simulate.simulate_image(np.random.default_rng(0), (64, 80))
  stack = found.stack.astype(np.float32)
  image, _ = check(channels.merge_channels)(
    stack, found.nuclear, found.membrane, config.image, found.names
  )
  image = check(resample.resample_image)(image, (80, 100))
  image = check(resample.resample_image)(image, (64, 80))
  maps = check(targets.make_target)(found.cells, 0.7)
  masks = check(segment.segment_image)(maps, config.segment.to_dict(), (64, 80))
  check(measure.measure_intensities)(stack, masks.cells, found.names)
  check(measure.measure_regions)(masks.cells)
  check(measure.measure_neighbors)(masks.cells)
  check(overlay.draw_overlay)(image, masks.cells, masks.nuclei)


def test_the_teacher_hands_on_what_the_next_step_takes():
  planes = np.random.default_rng(0).random((20, 30, 2)).astype(np.float32)
  selection = features.list_features((1.0,))
  values = check(features.compute_features)(planes, selection)
  labels = np.arange(600, dtype=np.int32) % 3 + 1
  trees = check(forest.fit_forest)(values.reshape(600, -1), labels, 0)
  maps = check(forest.predict_forest)(trees, values)
  for kind in uncertainty.KINDS:
    check(uncertainty.measure_uncertainty)(maps, kind)
  check(teacher.classify_planes)(planes, selection, trees)
  strokes = labels.reshape(20, 30)
  check(teacher.gather_rows)(planes, strokes, selection)


def test_a_wrong_shape_or_type_is_seen():
  with pytest.raises(TypeCheckError):
    check(measure.measure_regions)(np.zeros((4, 4, 1), np.int32))
  with pytest.raises(TypeCheckError):
    check(targets.make_target)(np.zeros((4, 4), np.float32), 0.7)
