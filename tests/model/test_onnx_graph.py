"""The ONNX graph answers as the network does, for images of any size."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from dicexmbd_jax import predict
from dicexmbd_jax.model import unet, weights

onnxruntime = pytest.importorskip("onnxruntime")
onnx_graph = pytest.importorskip("dicexmbd_jax.model.onnx_graph")


def make_model(in_channels=2):
  """Returns a network whose statistics are not those it starts with."""
  config = ConfigDict(
    {"width": 3, "depth": 2, "in_channels": in_channels, "dtype": "float32"}
  )
  rng = np.random.default_rng(1)
  arrays = weights.list_arrays(unet.build_model(config))
  for name, values in arrays.items():
    if name.endswith(("mean", "bias")):
      arrays[name] = rng.normal(0, 0.3, values.shape).astype(np.float32)
    if name.endswith(("var", "scale")):
      arrays[name] = rng.uniform(0.5, 2, values.shape).astype(np.float32)
  return unet.fill_model(config, arrays, "test"), config, arrays


def answer(model, image, num_views):
  config = ConfigDict({"tile_px": 64, "batch_size": 1, "views": num_views})
  ((_, probabilities),) = predict.predict_images([(0, image)], model, config)
  return probabilities


def run_graph(config, arrays, num_views, images):
  graph = onnx_graph.build_graph(arrays, config, predict.VIEWS[num_views])
  session = onnxruntime.InferenceSession(graph.SerializeToString())
  batch = np.stack(images).transpose(0, 3, 1, 2)
  (found,) = session.run(None, {onnx_graph.IMAGE: batch})
  return found.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
  ("in_channels", "num_views", "shape"),
  [(2, 1, (1, 1)), (2, 4, (21, 34)), (3, 4, (64, 32)), (2, 8, (7, 130))],
)
def test_the_graph_answers_as_predict_does(in_channels, num_views, shape):
  model, config, arrays = make_model(in_channels)
  rng = np.random.default_rng(0)
  image = rng.uniform(0, 2, (*shape, 2)).astype(np.float32)
  expected = answer(model, image, num_views)
  (found,) = run_graph(config, arrays, num_views, [image])
  assert found.shape == (*shape, 3)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  assert np.ptp(found) > 0.1 or shape == (1, 1)  # Not all alike.


def test_images_of_a_batch_do_not_know_one_another():
  _, config, arrays = make_model()
  rng = np.random.default_rng(0)
  images = rng.uniform(0, 2, (3, 9, 14, 2)).astype(np.float32)
  together = run_graph(config, arrays, 4, images)
  alone = [run_graph(config, arrays, 4, [image])[0] for image in images]
  np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_views_share_the_weights():
  _, config, arrays = make_model()
  sizes = [
    onnx_graph.build_graph(arrays, config, predict.VIEWS[n]).ByteSize()
    for n in (1, 8)
  ]
  weights_bytes = sum(values.nbytes for values in arrays.values())
  assert weights_bytes < sizes[0]
  assert sizes[1] - sizes[0] < 150_000  # Names of nodes, no numbers.
