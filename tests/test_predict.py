import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from dicexmbd_jax import predict
from dicexmbd_jax.image import evidence, tiling
from dicexmbd_jax.model.unet import UNet

# Sums run in another order for other shapes, which costs up to about 3e-5 with
# these networks; a halo one step too small costs 0.2.
TOLERANCE = 1e-4


def make_config(tile_px=256, batch_size=2, views=1):
  return ConfigDict(
    {"tile_px": tile_px, "batch_size": batch_size, "views": views}
  )


def make_unet(width, depth, in_channels, draw):
  """A network with drawn kernels; JAX's own drawing compiles for long."""
  graph, state = nnx.split(
    nnx.eval_shape(lambda: UNet(width, depth, in_channels, rngs=nnx.Rngs(0)))
  )

  def fill(path, leaf):
    kind = path[-2].key  # The last part of the path is Variable's own.
    if kind == "kernel":
      values = draw(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) / 2)
    else:
      values = np.full(leaf.shape, kind in ("scale", "var"))
    return jnp.asarray(values, leaf.dtype)

  return nnx.merge(graph, jax.tree.map_with_path(fill, state))


@functools.cache
def make_model(depth=4, in_channels=2, seed=0):
  """A small network whose answers vary from pixel to pixel.

  Its BatchNorm statistics come from images, and its shifts are random, so
  that zeros outside the image do not stay zeros by accident.
  """
  rng = np.random.default_rng(seed)
  model = make_unet(2, depth, in_channels, draw=rng.normal)
  norms = [
    norm
    for block in [*model.encoders, *model.decoders]
    for norm in (block.norm1, block.norm2)
  ]
  for norm in norms:
    norm.momentum = 0.0  # One pass is enough to take up the statistics.
  model.train()
  images = np.stack([make_image((64, 64), seed) for seed in range(2)])
  images = np.pad(images, [(0, 0)] * 3 + [(0, in_channels - 2)])
  nnx.jit(lambda model, images: model(images))(model, images)
  for norm in norms:
    size = norm.bias[...].shape
    norm.bias[...] = jnp.asarray(rng.normal(0, 0.5, size), jnp.float32)
    norm.scale[...] = jnp.asarray(rng.uniform(0.7, 1.5, size), jnp.float32)
  for up in model.ups:
    up.bias[...] += 0.3
  model.head.kernel[...] *= 3
  model.eval()
  return model


@functools.cache
def make_image(shape, seed=0):
  """Blobs of a few pixels, 0..255, as the channels come out."""
  rng = np.random.default_rng(seed)
  image = np.zeros((*shape, 2), np.float32)
  coarse = rng.random((shape[0] // 6 + 1, shape[1] // 6 + 1, 2))
  image += np.kron(coarse, np.ones((6, 6, 1)))[: shape[0], : shape[1]]
  return (image * rng.uniform(0, 255, image.shape)).astype(np.float32)


@functools.cache
def predict_whole(shape, depth=4, seed=0):
  """The plain network on the whole image, filled up to the pooling grid."""
  image = make_image(shape, seed)
  stride = 2**depth
  size = [-(-edge // stride) * stride for edge in shape]
  pixels = np.zeros((1, *size, 2), np.float32)
  valid = np.zeros((1, *size, 1), np.float32)
  pixels[0, : shape[0], : shape[1]] = image
  valid[0, : shape[0], : shape[1]] = 1
  logits = nnx.jit(lambda m, x, v: m(x, v))(make_model(depth), pixels, valid)
  return np.asarray(jax.nn.sigmoid(logits))[0, : shape[0], : shape[1]]


def predict_one(image, model, **options):
  [(_, probabilities)] = predict.predict_images(
    [(0, image)], model, make_config(**options)
  )
  return probabilities


def test_only_the_second_pass_asks_for_evidence():
  rng = np.random.default_rng(0)
  images = [
    (name, (255 * rng.random((20 + 9 * name, 50, 2)) ** 4).astype(np.float32))
    for name in range(3)
  ]
  model, answers = make_model(2), {}
  for share in (0.0, 0.9):
    config = make_config(64, 1)
    config.nuclear_evidence, config.membrane_evidence = share, 0.4
    passes = predict.load_passes(model, config, 64)
    answers[share] = [dict(run(iter(images))) for run in passes]
  (first, plain), (same, limited) = answers[0.0], answers[0.9]
  for name, image in images:
    np.testing.assert_array_equal(same[name], first[name])
    assert (plain[name] != limited[name]).any()
    np.testing.assert_array_equal(
      evidence.limit_foreground(plain[name], image, 0.9, 0.4), limited[name]
    )


def test_the_model_of_these_tests_is_not_dull():
  probabilities = predict_whole((230, 470))
  assert (probabilities.std((0, 1)) > 0.05).all()


@pytest.mark.parametrize(
  ("shape", "tile_px"),
  [
    ((1, 1), 208),
    ((1, 1), 256),
    ((1, 300), 208),
    ((300, 1), 256),
    ((15, 17), 208),
    ((15, 17), 512),
    ((230, 470), 208),
    ((230, 470), 256),
    ((230, 470), 320),
    ((230, 470), 512),
  ],
)
def test_tiled_equals_whole(shape, tile_px):
  tiled = predict_one(make_image(shape), make_model(), tile_px=tile_px)
  assert tiled.shape == (*shape, 3)
  assert tiled.dtype == np.float32
  np.testing.assert_allclose(
    tiled, predict_whole(shape), rtol=0, atol=TOLERANCE
  )


@pytest.mark.parametrize(
  "tile_px", [512, pytest.param(1024, marks=pytest.mark.slow)]
)
def test_tiled_equals_whole_on_a_large_image(tile_px):
  shape = (2333, 1377)
  tiled = predict_one(make_image(shape), make_model(), tile_px=tile_px)
  np.testing.assert_allclose(
    tiled, predict_whole(shape), rtol=0, atol=TOLERANCE
  )


@pytest.mark.parametrize("tile_px", [52, 56, 96])
def test_tiled_equals_whole_at_another_depth(tile_px):
  shape = (130, 77)
  tiled = predict_one(make_image(shape), make_model(2), tile_px=tile_px)
  np.testing.assert_allclose(
    tiled, predict_whole(shape, depth=2), rtol=0, atol=TOLERANCE
  )


@pytest.mark.parametrize(
  "batch_size", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8))]
)
def test_batches_mix_images_without_mixing_them_up(batch_size):
  shapes = [(30, 40), (230, 300), (1, 1), (40, 250), (16, 16)]
  images = [
    (f"image {seed}", make_image(shape, seed))
    for seed, shape in enumerate(shapes)
  ]
  results = list(
    predict.predict_images(images, make_model(), make_config(208, batch_size))
  )
  assert [key for key, _ in results] == [key for key, _ in images]
  for (_, probabilities), (_, image) in zip(results, images, strict=True):
    alone = predict_one(image, make_model(), tile_px=208, batch_size=1)
    np.testing.assert_allclose(probabilities, alone, rtol=0, atol=TOLERANCE)


def test_images_are_taken_only_as_they_are_needed():
  taken = []

  def take():
    for key in range(9):
      taken.append(key)
      yield key, make_image((5, 5), key)

  results = predict.predict_images(take(), make_model(2), make_config(64, 2))
  assert taken == []
  # Two batches of two: one answered, one on its way.
  assert next(results)[0] == 0
  assert taken == [0, 1, 2, 3]
  assert [key for key, _ in results] == list(range(1, 9))


def test_no_images_give_nothing():
  assert list(predict.predict_images([], make_model(2), make_config(64))) == []


def test_one_shape_and_all_checkpoints_compile_once():
  predict.predict_tiles.clear_cache()
  images = [
    (seed, make_image(shape, seed))
    for seed, shape in enumerate([(5, 5), (100, 70), (64, 1)])
  ]
  answers = [
    list(
      predict.predict_images(images, make_model(2, 2, seed), make_config(64))
    )
    for seed in (0, 1)
  ]
  assert predict.predict_tiles._cache_size() == 1
  assert not np.allclose(answers[0][1][1], answers[1][1][1], atol=1e-2)


def test_the_model_runs_with_stored_statistics_and_is_left_alone():
  image = make_image((60, 60))
  expected = predict_one(image, make_model(2), tile_px=64)
  model = nnx.clone(make_model(2))
  model.train()
  before = jax.tree.map(np.asarray, nnx.state(model))
  np.testing.assert_array_equal(predict_one(image, model, tile_px=64), expected)
  jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model))
  assert not model.encoders[0].norm1.use_running_average


def test_a_third_input_is_fed_zeros():
  image = make_image((60, 60))
  model = make_model(2, in_channels=3)
  filled = np.concatenate([image, np.zeros((60, 60, 1), np.float32)], -1)
  np.testing.assert_array_equal(
    predict_one(image, model, tile_px=64),
    predict_one(filled, model, tile_px=64),
  )


def test_an_empty_image_gives_probabilities():
  image = np.zeros((20, 30, 2), np.float32)
  probabilities = predict_one(image, make_model(2), tile_px=64)
  assert np.isfinite(probabilities).all()
  assert probabilities.min() >= 0
  assert probabilities.max() <= 1


def test_tiles_are_chosen_by_what_the_image_costs():
  def choose(*shape):
    return tiling.choose_tile(shape, predict.TILE_SIZES_PX, 96, 16)

  assert choose(10, 10) == choose(128, 128) == 128
  assert choose(129, 10) == choose(256, 256) == 256
  assert choose(520, 500) == choose(640, 640) == 640
  assert choose(1000, 1000) == 1024
  # Two tiles of 1024: 2.1 Mpx; six of 512: 1.6; ten of 384: 1.5.
  assert choose(300, 2000) == 384


def test_large_tiles_are_left_out_where_memory_would_not_do():
  list_sizes = predict.list_tile_sizes
  every = [128, 256, 384, 512, 640, 768, 1024]
  assert list_sizes(make_model(), make_config(0, 1)) == every
  wide = make_unet(64, 0, 2, draw=lambda size: np.ones(size))
  assert list_sizes(wide, make_config(0, 1)) == every
  assert list_sizes(wide, make_config(0, 4)) == every[:-2]
  assert list_sizes(wide, make_config(0, 99)) == [128]
  assert list_sizes(make_model(), make_config(256, 1)) == [256]


@pytest.mark.parametrize("in_channels", [2, 3])
def test_what_was_compiled_ahead_is_not_compiled_again(in_channels, caplog):
  model = make_model(2, in_channels, seed=5)
  config = make_config(tile_px=0, batch_size=3, views=4)

  def count_compiled(call):
    caplog.clear()
    with jax.log_compiles():
      call()
    return caplog.text.count("XLA compilation of jit(predict_tiles)")

  def predict_twice():
    image = make_image((130, 90))
    list(predict.predict_images([(0, image), (1, image)], model, config))

  ahead = functools.partial(predict.compile_ahead, model, config, (130, 90))
  assert count_compiled(ahead) == 1
  assert count_compiled(predict_twice) == 0


def test_images_of_both_tile_sizes_come_back_in_order(monkeypatch):
  monkeypatch.setattr(predict, "TILE_SIZES_PX", (208, 320))
  shapes = [(50, 60), (300, 310), (70, 40), (290, 300)]
  images = [(i, make_image(shape)) for i, shape in enumerate(shapes)]
  config = make_config(tile_px=0, batch_size=2)
  answers = list(predict.predict_images(images, make_model(), config))
  assert [key for key, _ in answers] == [0, 1, 2, 3]
  for (_, found), (_, image) in zip(answers, images, strict=True):
    expected = predict_one(image, make_model(), tile_px=256)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("views", [4, 8])
@pytest.mark.parametrize(
  "tile_px", [208, pytest.param(512, marks=pytest.mark.slow)]
)
def test_views_are_the_mean_of_the_mirrored_images(views, tile_px):
  size = 240  # A multiple of the stride: mirrored, its poolings stay.
  image = make_image((size, size))
  expected = []
  for diagonal in (False, True)[: views // 4]:
    for flip in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
      steps = np.s_[:: flip[0], :: flip[1]]
      seen = image[steps].swapaxes(0, 1) if diagonal else image[steps]
      answer = predict_one(np.ascontiguousarray(seen), make_model())
      answer = answer.swapaxes(0, 1) if diagonal else answer
      expected.append(answer[steps])
  found = predict_one(image, make_model(), tile_px=tile_px, views=views)
  np.testing.assert_allclose(found, np.mean(expected, 0), atol=TOLERANCE)
  assert np.abs(found - expected[0]).max() > 10 * TOLERANCE


def test_views_do_not_depend_on_the_tiles_where_the_stride_does_not_fit():
  image = make_image((230, 470))
  small, large = (
    predict_one(image, make_model(), tile_px=tile_px, views=8)
    for tile_px in (208, 512)
  )
  np.testing.assert_allclose(small, large, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"tile_px": 200}, "tile_px: found 200, expected a multiple of 16"),
    ({"tile_px": 192}, "tile_px: found 192, .* above 192"),
  ],
)
def test_impossible_configs_are_errors(options, message):
  with pytest.raises(ValueError, match=message):
    predict_one(make_image((5, 5)), make_model(), **options)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4])
def test_the_network_sees_as_far_as_the_halo_and_no_farther(depth):
  """One lit pixel, all weights positive: what it reaches is not zero."""
  model = make_unet(1, depth, 1, draw=lambda size: np.ones(size))
  model.eval()
  stride, halo = 2**depth, tiling.receptive_halo(depth)
  core = halo + stride  # The core begins here, on the grid.
  size = core + halo
  # A network one row high sees the same columns: 2**depth rows suffice.
  dark = np.zeros((size, stride, size, 1), np.float32)
  columns = np.arange(size)
  dark[columns, 0, columns] = 1  # Image i has column i lit.
  logits = jax.jit(model)(dark)
  seen = np.asarray(logits[:, :, core:]).any((1, 2, 3))
  assert not seen[: core - halo].any()
  assert seen[core - halo + stride :].all()
  # And the mirror image: a core that ends here, seen from the right.
  seen = np.asarray(logits[:, :, :core]).any((1, 2, 3))
  assert not seen[core + halo :].any()
  assert seen[: core + halo - stride].all()


FOUR_DEVICES = """
import sys
import jax
import numpy as np
sys.path.insert(0, sys.argv[1])
import test_predict as t
from dicexmbd_jax import predict
from dicexmbd_jax.io import write
from dicexmbd_jax.masks import segment

answers, predict_tiles = [], predict.predict_tiles
def keep(*arguments):
  answers.append(predict_tiles(*arguments))
  return answers[-1]
predict.predict_tiles = keep

# Several tiles and one: batches of 8, of which the last is not full.
images = [("a", t.make_image((100, 100))), ("b", t.make_image((40, 30), 1))]
model, config = t.make_model(depth=2), t.make_config(64, views=4)
clock = predict.DeviceClock()
assert len(predict.list_devices()) == 1
one = dict(predict.predict_images(images, model, config))
answers.clear()
four = dict(
  predict.predict_images(images, model, config, jax.devices(), clock=clock)
)
assert answers and {a.shape for a in answers} == {(8, 64, 64, 3)}
for answer in answers:
  shards = answer.addressable_shards
  assert [s.data.shape for s in shards] == [(2, 64, 64, 3)] * 4
  assert {s.device for s in shards} == set(jax.devices())
for key in one:
  np.testing.assert_array_equal(one[key], four[key])
clock.close()
busy = clock.describe()
assert set(busy) == {f"cpu:{n}" for n in range(4)}
assert all(0 < share <= 1 for share in busy.values()), busy

# All views at once, as on accelerators: each device has those of its tiles.
def fold(*arguments):
  answers.append(predict_tiles(*arguments[:5], True))
  return answers[-1]
predict.predict_tiles = fold
answers.clear()
folded = dict(predict.predict_images(images, model, config, jax.devices()))
for answer in answers:
  shards = answer.addressable_shards
  assert [s.data.shape for s in shards] == [(2, 64, 64, 3)] * 4
for key in one:
  np.testing.assert_allclose(one[key], folded[key], atol=t.TOLERANCE)
settings = {"preset": "touching"}
masks = [
  segment.segment_image(write.round_shares(maps["a"], "maps"), settings).cells
  for maps in (one, four, folded)
]
assert masks[0].any()
for other in masks[1:]:
  np.testing.assert_array_equal(masks[0], other)
print("equal")
"""


def test_tiles_are_dealt_to_all_devices():
  flags = "--xla_force_host_platform_device_count=4"
  done = subprocess.run(
    [sys.executable, "-c", FOUR_DEVICES, str(pathlib.Path(__file__).parent)],
    env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.stdout == "equal\n", done.stderr


@pytest.mark.parametrize("views", [4, 8])
def test_views_at_once_are_views_one_after_another(views):
  graph, state = nnx.split(make_model(depth=2))
  image = make_image((64, 64))[None]
  valid = np.ones((1, 64, 64, 1), bool)
  valid[:, 50:] = False
  one, folded = (
    predict.predict_tiles(graph, state, image, valid, views, is_folded)
    for is_folded in (False, True)
  )
  np.testing.assert_allclose(folded, one, atol=TOLERANCE)


class Device:
  def __init__(self, limit=None, used=0):
    told = {"bytes_limit": limit, "bytes_in_use": used}
    self.memory_stats = lambda: None if limit is None else told


def test_a_batch_is_as_large_as_the_devices_memory_allows():
  model = make_model(depth=2)  # Width 2: 64 bytes for a pixel.
  config = make_config(tile_px=0, batch_size=0, views=4)
  tile = 64 * 512**2 * 4

  def choose(*devices):
    budget = predict.measure_budget(devices)
    return predict.choose_batch(model, config, 512, budget)

  assert choose(Device()) == 1
  assert choose(Device(10 * tile), Device()) == 1
  assert choose(Device(2**50)) == predict.MAX_BATCH_TILES
  assert choose(Device(11 * tile)) == 5
  assert choose(Device(2**50), Device(11 * tile, used=3 * tile)) == 4
  assert choose(Device(100)) == 1
  config.batch_size = 3
  assert choose(Device(11 * tile)) == 3


def test_tiles_fit_the_devices_memory():
  model = make_model(depth=4)
  config = make_config(tile_px=0, batch_size=0, views=4)
  budget = 64 * 512**2 * 4
  assert max(predict.list_tile_sizes(model, config, budget)) == 512
  assert max(predict.list_tile_sizes(model, config)) == 1024
