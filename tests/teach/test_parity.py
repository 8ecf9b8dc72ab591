"""Against Ilastik itself: its strokes, its stored forest, its own maps."""

import h5py
import ilastik as oracle
import numpy as np
import pytest
import tifffile

from dicexmbd_jax.masks import segment
from dicexmbd_jax.scores import evaluate
from dicexmbd_jax.teach import strokes
from dicexmbd_jax.teach.features import Feature, compute_features
from dicexmbd_jax.teach.forest import fit_forest
from dicexmbd_jax.teach.ilastik import read_project, read_trees
from dicexmbd_jax.teach.inputs import list_inputs, view_image
from dicexmbd_jax.teach.teacher import View, classify_planes, gather_rows
from dicexmbd_jax.teach.vigra import adopt_forest

pytestmark = pytest.mark.real
VIEW = View("all")


@pytest.fixture(scope="module")
def folder(real_data):
  return real_data / "imc_testdata"


@pytest.fixture(scope="module")
def project(folder):
  return read_project(folder / "pixel_classifier.ilp")


@pytest.fixture(scope="module")
def selection(project):
  return tuple(Feature(*one) for one in project.features)


@pytest.fixture(scope="module")
def rows(folder, project, selection):
  """Features and labels of the strokes, on the images they were drawn on."""
  items, failures = strokes.pair_lanes(project, str(folder / "ilastik_crops"))
  assert not failures
  parts = [
    gather_rows(view_image(item.source, VIEW).planes, item.strokes, selection)
    for item in items
  ]
  values, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
  return values, labels


@pytest.fixture(scope="module")
def images(folder):
  """(planes, Ilastik's maps) of all 15 images."""
  return [
    (
      view_image(source, VIEW).planes,
      tifffile.imread(folder / "ilastik_probabilities" / f"{source.stem}.tiff"),
    )
    for source in list_inputs(str(folder / "ilastik_img"))[0]
  ]


def test_the_project_is_read_whole(folder, project, rows):
  with h5py.File(folder / "pixel_classifier.ilp") as file:
    forests = file["PixelClassification/ClassifierForests"]
    num_rows = forests["Forest0000/_ext_param/row_count_"][0]
    num_columns = forests["Forest0000/_ext_param/column_count_"][0]
  assert rows[0].shape == (num_rows, num_columns) == (1104, 160)
  assert np.bincount(rows[1]).tolist() == [0, 280, 385, 439]
  assert project.is_named
  assert project.classes == (1, 2, 3)


def test_ilastiks_forest_knows_its_own_strokes(folder, rows):
  trees = oracle.read_trees(folder / "pixel_classifier.ilp")
  found = oracle.predict(trees, rows[0])
  assert (found.argmax(axis=1) + 1 == rows[1]).all()


def test_features_are_ilastiks(folder, images, selection):
  """Its forest on our features gives its maps: 16 bits of nearly all pixels."""
  trees = oracle.read_trees(folder / "pixel_classifier.ilp")
  num_equal = num_pixels = 0
  for planes, expected in images:
    values = compute_features(planes, selection)
    found = oracle.predict(trees, values.reshape(-1, values.shape[2]))
    error = abs(found.reshape(expected.shape) - expected / 65535).max(axis=2)
    # A value next to a threshold may fall to the other side by rounding.
    assert error.max() < 0.025
    num_equal += (error < 1e-4).sum()
    num_pixels += error.size
  assert num_equal / num_pixels > 0.999


def test_our_forest_agrees_with_ilastiks(images, rows, selection):
  trees = fit_forest(*rows, seed=0)
  found = [classify_planes(planes, selection, trees) for planes, _ in images]
  ours = np.concatenate([maps.reshape(-1, 3) for maps in found])
  theirs = np.concatenate([maps.reshape(-1, 3) for _, maps in images]) / 65535
  agreement = (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()
  assert agreement > 0.98
  for k in range(3):
    assert np.corrcoef(ours[:, k], theirs[:, k])[0, 1] > 0.98


def test_a_forest_taken_over_is_ilastiks(folder, project, images, selection):
  """All its maps and masks, by our walk down its trees."""
  trees, labels = read_trees(project.path)
  assert labels == (1, 2, 3)
  adopted = adopt_forest(trees, project.classes)
  found = [
    quantise(classify_planes(planes, selection, adopted))
    for planes, _ in images
  ]
  error = [
    abs(mine.astype(int) - maps).max(axis=2).ravel()
    for mine, (_, maps) in zip(found, images, strict=True)
  ]
  assert (np.concatenate(error) <= 1).mean() > 0.9995
  assert score_masks(found, [maps for _, maps in images]) > 0.99


def test_masks_agree_on_the_images_that_were_drawn_on(
  folder, project, rows, selection
):
  """Exported images have two channels in turned order: docs/teaching.md."""
  ours = fit_forest(*rows, seed=0)
  theirs = adopt_forest(read_trees(project.path)[0], project.classes)
  planes = [
    view_image(source, VIEW).planes
    for source in list_inputs(str(folder / "ilastik_crops"))[0]
  ]
  first, second = (
    [quantise(classify_planes(one, selection, trees)) for one in planes]
    for trees in (ours, theirs)
  )
  assert score_masks(first, second) > 0.9


def quantise(maps):
  return np.rint(maps * 65535).astype(np.uint16)


def score_masks(first, second):
  """F1 at IoU 0.5 of the masks that follow, pairs pooled over the images."""
  pairs = cells = 0
  for maps in zip(first, second, strict=True):
    masks = [
      segment.segment_image(one, {"preset": "steinbock"}).cells for one in maps
    ]
    scores = evaluate.evaluate_image(*masks).scores
    pairs += scores["tp_iou_0.50"]
    cells += scores["num_predicted"] + scores["num_reference"]
  return 2 * pairs / cells
