"""The launch folder's own scores: what choices and tables are made from."""

import calibration
import gallery
import numpy as np
import pytest
import robustness
import validation

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import labels
from dicexmbd_jax.masks import segment
from dicexmbd_jax.model import weights
from dicexmbd_jax.scores import match
from dicexmbd_jax.simulate import study


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
  folder = tmp_path_factory.mktemp("scores")
  list(study.simulate_study(folder, num_images=2, seed=7, size_px=120))
  return [
    validation.Judged(
      "simulated",
      folder / "img" / f"{stem}.tiff",
      folder / "panel.csv",
      folder / "truth" / "masks" / f"{stem}.tiff",
      size_um,
    )
    for stem, size_um in (("ROI001", 1.0), ("ROI002", 0.8))
  ]


def test_a_sources_score_is_over_all_its_cells(judged):
  maps = validation.predict_maps(config_lib.SHIPPED_MODEL, judged)
  config = weights.read_model(config_lib.SHIPPED_MODEL)[1]
  size_um = config.image.pixel_size_um
  edge = round(96 / size_um)
  assert maps[judged[1]].shape == (edge, edge, 3)  # On the network's grid.
  counts = np.zeros(3)
  for item in judged:
    reference = labels.read_labels(item.masks)
    cells = segment.segment_seen(maps[item], config, reference.shape).cells
    found = match.match_cells(cells, reference, 0.5)
    counts += found.tp, found.fp, found.fn
  expected = 2 * counts[0] / (2 * counts[0] + counts[1] + counts[2])
  scores = validation.score_sources(maps, config)
  assert scores == {"simulated": pytest.approx(expected)}
  assert expected > 0.5


@pytest.mark.parametrize("name", list(robustness.CHANGES))
def test_changes_keep_what_an_image_must_have(judged, name):
  image = validation.read_stack(judged[0])
  rng = np.random.default_rng(0)
  changed = robustness.CHANGES[name](image, rng)
  assert changed.nuclear and np.isfinite(changed.stack).all()
  assert changed.stack.shape[-1] == image.stack.shape[-1]
  side_um = changed.stack.shape[0] * (changed.pixel_size_um or 1.0)
  assert side_um == pytest.approx(120, abs=1)
  is_same = np.array_equal(changed.stack, image.stack)
  groups_stay = (changed.nuclear, changed.membrane) == (
    image.nuclear,
    image.membrane,
  )
  assert (is_same and groups_stay) == (name == "as they are")


def test_the_worst_window_comes_first():
  reference = np.zeros((128, 64), np.int32)
  cells = 1 + np.arange(8 * 4).reshape(8, 4)
  reference[:64] = np.kron(cells, np.ones((8, 16), int))
  reference[64:] = np.kron(cells + 100, np.ones((8, 16), int))
  found = reference.copy()
  found[64:] = 0
  scores = gallery.score_windows(found, reference)
  assert scores == [(0.0, 64, 0), (1.0, 0, 0)]


def test_right_cells_are_told_by_their_ids():
  cells = np.array([[7, 7, 0, 2, 2], [7, 7, 0, 2, 2]], np.int32)
  reference = np.array([[5, 5, 0, 0, 0], [5, 5, 0, 0, 9]], np.int32)
  assert calibration.find_right_ids(cells, reference).tolist() == [7]
