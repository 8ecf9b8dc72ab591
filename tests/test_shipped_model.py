"""The shipped weights: small, good on what they were not trained on, exact."""

import json

import numpy as np
import pytest

from configs import robust
from dicexmbd_jax import config as config_lib
from dicexmbd_jax import predict
from dicexmbd_jax.image import channels
from dicexmbd_jax.io import images, labels, listing, panel
from dicexmbd_jax.masks import segment
from dicexmbd_jax.model import weights
from dicexmbd_jax.scores import match
from dicexmbd_jax.simulate import study


@pytest.fixture(scope="module")
def shipped():
  return weights.read_model(config_lib.SHIPPED_MODEL)


def find_cells(image, shipped, tile_px=512):
  """Returns probabilities at the file's 65,536 levels, and the cells."""
  model, config = shipped
  config = config.copy_and_resolve_references()
  config.predict.tile_px = tile_px
  [(_, maps)] = predict.predict_images([(0, image)], model, config.predict)
  rounded = np.rint(maps * 65535) / np.float32(65535)
  return maps, segment.segment_image(rounded, config.segment).cells


def draw_image(shipped, seed):
  found = study.draw_image(seed, 0, (330, 300))
  image, _ = channels.merge_channels(
    found.stack.astype(np.float32),
    found.nuclear,
    found.membrane,
    shipped[1].image,
  )
  return image, found.cells


def test_the_model_is_small():
  files = config_lib.SHIPPED_MODEL.iterdir()
  assert sum(path.stat().st_size for path in files) < 10e6


def test_the_weights_know_their_recipe(shipped):
  recipe = robust.get_config()
  for name in ("model", "records", "train.data", "train.augment"):
    wanted, found = recipe, shipped[1]
    for part in name.split("."):
      wanted, found = wanted[part], found[part]
    assert json.loads(wanted.to_json()) == json.loads(found.to_json()), name


def test_fresh_simulated_tissue_is_segmented(shipped):
  scores = []
  for seed in (101, 102, 103):
    image, cells = draw_image(shipped, seed)
    scores.append(match.score_f1(find_cells(image, shipped)[1], cells))
  assert np.mean(scores) > 0.8, scores


@pytest.mark.parametrize("counts", [0.02, 0.2, 2.0])
def test_fields_without_cells_have_none(shipped, counts):
  rng = np.random.default_rng(7)
  stack = rng.poisson(counts, (200, 200, 4)).astype(np.float32)
  image, _ = channels.merge_channels(stack, (0,), (1, 2, 3), shipped[1].image)
  assert find_cells(image, shipped)[1].max() <= 2


def test_tiles_change_no_mask(shipped):
  image, _ = draw_image(shipped, 104)
  whole, cells = find_cells(image, shipped)
  tiled, same = find_cells(image, shipped, tile_px=256)
  np.testing.assert_allclose(tiled, whole, atol=1e-5)
  np.testing.assert_array_equal(same, cells)


@pytest.mark.real
@pytest.mark.parametrize(
  ("stem", "least"), [("ROI028", 0.76), ("ROI030", 0.78)]
)
def test_spleen_that_was_kept_aside_is_segmented(
  shipped, real_data, stem, least
):
  folder = real_data / "spleen_imc"
  rows = panel.read_panel(folder / "panel.csv")
  [source], _ = listing.list_images(folder / f"img/{stem}.ome.tiff")
  loaded = images.read_image(source, rows)
  image, _ = channels.merge_channels(
    loaded.stack, loaded.nuclear, loaded.membrane, shipped[1].image
  )
  reference = labels.read_labels(folder / f"masks/{stem}.tiff")
  assert match.score_f1(find_cells(image, shipped)[1], reference) > least
