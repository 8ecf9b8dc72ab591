"""Training: windows, one step, and a network that learns by heart."""

import numpy as np
import pytest
from flax import nnx

from configs import default
from dicexmbd_jax import predict, train
from dicexmbd_jax.image import targets
from dicexmbd_jax.model import unet


@pytest.fixture
def config():
  config = default.get_config()
  config.model.update({"width": 4, "depth": 1})
  config.train.update(
    {
      "num_steps": 60,
      "batch_size": 2,
      "crop_px": 32,
      "window_px": 40,
      "warmup_steps": 5,
      "learning_rate": 2e-2,
      "report_steps": 30,
      "average_decay": 0.8,
    }
  )
  config.train.augment.update(
    dict.fromkeys(config.train.augment, 0.0) | {"flip": True}
  )
  config.predict.update({"tile_px": 64, "batch_size": 1})
  return config


def build(config):
  return unet.build_model(config.model)


def make_example(seed=0, shape=(48, 56)):
  y, x = np.mgrid[: shape[0], : shape[1]]
  distance = np.hypot(y % 12 - 5.5, x % 12 - 5.5)
  cells = (1 + y // 12 * 10 + x // 12) * (distance < 5)
  rng = np.random.default_rng(seed)
  nuclear = 200 * (distance < 3) + rng.uniform(0, 20, shape)
  membrane = 150 * (abs(distance - 4) < 1) + rng.uniform(0, 20, shape)
  return train.Example(
    name="drawn",
    image=np.stack([nuclear, membrane], -1).astype(np.float32),
    target=targets.make_target(cells.astype(np.int32), 0.5),
    share=1.0,
  )


def test_windows_are_cut_around_their_centre_and_say_what_is_valid():
  example = make_example()
  image, target, valid = train.cut_window(example, (0, 30), 16)
  assert image.shape == (16, 16, 2)
  np.testing.assert_array_equal(valid[:8], 0)
  np.testing.assert_array_equal(valid[8:], 1)
  np.testing.assert_array_equal(image[8:], example.image[:8, 22:38])
  np.testing.assert_array_equal(target[8:], example.target[:8, 22:38])
  assert not image[:8].any()


def test_an_image_smaller_than_the_window_is_in_it_whole():
  example = make_example(shape=(5, 7))
  image, _, valid = train.cut_window(example, (2, 3), 20)
  assert valid.sum() == 35
  np.testing.assert_allclose(image.sum(), example.image.sum(), rtol=1e-6)


def test_batches_come_from_the_seed_and_follow_the_shares(config):
  examples = [make_example(0), make_example(1)]
  first = next(train.draw_batches(examples, config.train, 3))
  again = next(train.draw_batches(examples, config.train, 3))
  other = next(train.draw_batches(examples, config.train, 4))
  np.testing.assert_array_equal(first[0], again[0])
  assert not np.array_equal(first[0], other[0])
  never = train.Example("never", np.full((9, 9, 2), -1, np.float32),
                        np.zeros((9, 9, 3), np.float32), 0.0)  # fmt: skip
  batches = train.draw_batches([examples[0], never], config.train, 0)
  assert all(next(batches)[0].min() >= 0 for _ in range(20))


def test_a_network_learns_an_image_by_heart(config):
  example = make_example()
  losses = []
  model = train.train(
    build(config), [example], config, lambda *call: losses.append(call[:2])
  )
  assert [step for step, _ in losses] == [30, 60]
  assert losses[1][1] < losses[0][1]
  [(_, found)] = predict.predict_images(
    [(0, example.image)], model, config.predict
  )
  is_nucleus = example.target[..., 0] > 0.5
  # As far as sixty steps go: each class stands out where it is.
  assert found[is_nucleus, 0].min() > found[~is_nucleus, 0].mean()
  is_background = example.target[..., 2] == 1
  assert found[is_background, 2].mean() > 0.8
  assert found[~is_background, 2].mean() < 0.3
  norms = [m for _, m in nnx.iter_graph(model) if isinstance(m, nnx.BatchNorm)]
  assert all(norm.use_running_average for norm in norms)


def test_the_seed_reproduces_the_weights(config):
  config.train.update({"num_steps": 6, "report_steps": 6})
  examples = [make_example()]
  losses = []
  for _ in range(2):
    train.train(
      build(config), examples, config, lambda *call: losses.append(call[1])
    )
  assert losses[0] == losses[1]


def test_a_loss_that_is_not_finite_stops(config):
  example = make_example()
  example.image[20, 20] = np.nan
  with pytest.raises(FloatingPointError, match="step 30"):
    train.train(build(config), [example], config)
