"""Parts of the simulator on arrays small enough to see through."""

import numpy as np
import pytest

from dicexmbd_jax.simulate import (
  antibodies,
  cells,
  layout,
  levels,
  noise,
  optics,
  outline,
  study_panel,
  truth,
)


def test_field_is_standard_noise_of_its_scale():
  rng = np.random.default_rng(0)
  field = noise.make_field(rng, (400, 400), 4)
  assert field.shape == (400, 400)
  assert field.dtype == np.float32
  assert abs(field.mean()) < 0.05
  assert field.std() == pytest.approx(1, abs=0.05)
  near = np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1]
  far = np.corrcoef(field[:, 20:].ravel(), field[:, :-20].ravel())[0, 1]
  assert near > 0.95
  assert abs(far) < 0.05


def test_fibres_run_along_their_direction():
  rng = np.random.default_rng(1)
  fibres = noise.make_fibres(rng, np.zeros((120, 120), np.float32), 1.5)
  assert fibres.min() >= 0
  along = np.abs(np.diff(fibres, axis=1)).mean()
  assert 2 * along < np.abs(np.diff(fibres, axis=0)).mean()


def test_vote_takes_the_majority_of_each_block():
  fine = np.array(
    [
      [1, 1, 0, 2, -1, -1],
      [1, 5, 2, 0, -1, 3],
      [4, 4, 7, 8, 0, 0],
      [9, 9, 6, 5, 0, 0],
    ]
  )
  # Ties take the larger; so does a block without two alike.
  np.testing.assert_array_equal(truth._vote(fine), [[1, 2, -1], [9, 8, 0]])


def test_keep_largest_drops_the_smaller_piece():
  labels = np.array([[1, 1, 0, 2], [0, 0, 1, 2], [3, 0, 1, 1]])
  expected = np.array([[0, 0, 0, 2], [0, 0, 1, 2], [3, 0, 1, 1]])
  np.testing.assert_array_equal(truth._keep_largest(labels), expected)


def test_keep_largest_of_nothing():
  empty = np.zeros((3, 4), np.int32)
  np.testing.assert_array_equal(truth._keep_largest(empty), empty)


def make_cells(y, x, radius):
  num = len(y)
  return cells.DrawnCells(
    y=np.array(y, float),
    x=np.array(x, float),
    type=np.full(num, cells.TYPE_INDEX["t_cell"]),
    long=np.full(num, float(radius)),
    short=np.full(num, float(radius)),
    angle=np.zeros(num),
    reach=np.ones(num),
  )


def test_a_lone_cell_is_painted_where_it_lies():
  rng = np.random.default_rng(3)
  painting = outline.paint_cells(rng, make_cells([10], [20], 5), (24, 40))
  has_nucleus = np.array([True, False])
  labels, nuclei, kept = truth.cut_labels(painting, has_nucleus)
  np.testing.assert_array_equal(kept, [0])
  assert labels.max() == 1
  assert (labels > 0).sum() == pytest.approx(np.pi * 25, rel=0.2)
  y, x = np.nonzero(labels)
  assert y.mean() == pytest.approx(10, abs=0.7)
  assert x.mean() == pytest.approx(20, abs=0.7)
  assert 0.3 < (nuclei > 0).sum() / (labels > 0).sum() < 0.95


def test_coverage_sums_to_at_most_one_cell_per_pixel():
  rng = np.random.default_rng(4)
  shape = (24, 40)
  painting = outline.paint_cells(rng, make_cells([8, 14], [10, 22], 5), shape)
  has_nucleus = np.array([True, False, False])
  hollow = np.zeros(3, np.float32)
  coverage = outline.cover_pixels(rng, painting, has_nucleus, hollow)
  assert coverage.nucleus.shape == (24 * 40, 3)
  nucleus = coverage.nucleus.toarray()
  assert nucleus[:, 0].sum() > 10
  assert not nucleus[:, 1:].any()  # The second cell's nucleus is hidden.
  membrane = coverage.membrane.toarray().reshape(*shape, 3)
  # The edge outshines the centre.
  assert membrane[8, 5:15, 0].max() > 1.5 * membrane[7:10, 9:12, 0].mean()
  assert membrane[..., 0][:, 30:].sum() == 0


def test_relaxing_parts_overlapping_cells():
  relaxed = cells._relax_cells(make_cells([5, 5], [5, 6], 3), 1.0, 20)
  distance = np.hypot(relaxed.y[1] - relaxed.y[0], relaxed.x[1] - relaxed.x[0])
  assert distance == pytest.approx(6, abs=0.1)
  # Neither leaves its side.
  assert relaxed.x[0] < relaxed.x[1]


def test_relaxing_leaves_cells_that_do_not_touch():
  apart = make_cells([5, 5], [5, 15], 3)
  relaxed = cells._relax_cells(apart, 1.0, 5)
  np.testing.assert_array_equal(relaxed.x, apart.x)


def test_an_empty_layout_has_no_cells():
  empty = layout.Layout(
    np.zeros((50, 60), np.uint8), np.zeros((50, 60), np.float32), "pulp"
  )
  assert len(cells.place_cells(np.random.default_rng(0), empty, 5).y) == 0


def test_spillover_goes_to_neighbouring_masses_and_oxides():
  marker = antibodies.GENERAL[0]
  channels = tuple(
    study_panel.Channel(metal, marker, True, False, False)
    for metal in ("142Nd", "143Nd", "158Gd", "170Er")
  )
  matrix = optics.make_spillover(np.random.default_rng(0), channels)
  np.testing.assert_array_equal(np.diag(matrix), 1)
  expected = np.eye(4, dtype=bool)
  expected[[0, 1], [1, 0]] = True  # 142 <-> 143
  expected[0, 2] = True  # 142 + 16
  np.testing.assert_array_equal(matrix > 0, expected)
  assert matrix[~np.eye(4, dtype=bool)].max() < 0.05


def test_detection_keeps_the_mean_of_poisson_counts():
  marker = antibodies.Marker("CD45", "membrane", 1e-3, {})
  channels = (study_panel.Channel("152Sm", marker, True, False, True),)
  signal = np.full((200, 200, 1), 6, np.float32)
  counts = optics.detect_counts(np.random.default_rng(2), signal, channels)
  assert counts.dtype == np.uint16
  # Gain drifts by a few percent; hot pixels are rare.
  assert np.median(counts) == pytest.approx(6, abs=1)
  assert counts.max() > 60


def test_signal_beyond_the_dtype_is_clipped_not_wrapped():
  marker = antibodies.Marker("X", "membrane", 1e-3, {})
  channels = (study_panel.Channel("152Sm", marker, True, False, True),)
  signal = np.full((8, 8, 1), 1e6, np.float32)
  rng = np.random.default_rng(2)
  assert optics.detect_counts(rng, signal, channels).min() > 20_000


def test_types_show_their_own_markers():
  names = {"CD3": "t_cell", "CD20": "b_cell", "panCK": "epithelial"}
  library = [m for group, _ in antibodies.GROUPS for m in group]
  channels = tuple(
    study_panel.Channel(f"{150 + i}Sm", m, True, False, True)
    for i, m in enumerate(m for m in library if m.name in names)
  )
  types = np.repeat([cells.TYPE_INDEX[t] for t in names.values()], 50)
  total = np.zeros((150, 3))
  for seed in range(5):
    rng = np.random.default_rng(seed)
    total += sum(levels.draw_levels(rng, channels, types))
  own = [list(names).index(c.marker.name) for c in channels]
  medians = np.median(total.reshape(3, 50, 3), axis=1)
  np.testing.assert_array_equal(np.argmax(medians, axis=0), own)
