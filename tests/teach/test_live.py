"""The engine behind the widget: lazy, and its features those of `teach fit`."""

import threading

import numpy as np
import pytest

from dicexmbd_jax.teach import features, forest, live, teacher

SHAPE = (60, 300)  # Two tiles.


@pytest.fixture(scope="module")
def planes():
  """Bright on the left in the first channel, in the middle in the second."""
  rng = np.random.default_rng(0)
  thirds = np.floor(np.linspace(0, 2.999, SHAPE[1]))
  levels = np.stack([30 * (thirds == 0) + 2, 30 * (thirds == 1) + 2], -1)
  return rng.poisson(np.broadcast_to(levels, (*SHAPE, 2))).astype(np.float32)


def paint(*classes):
  strokes = np.zeros(SHAPE, np.int32)
  for k in classes:
    strokes[10, 100 * k - 70 : 100 * k - 50] = k
  return strokes


def test_a_stroke_changes_the_maps_where_it_should(planes):
  engine = live.LiveTeacher(num_trees=5)
  part = (slice(5, 55), slice(10, 290))
  engine.learn("a", planes, paint(1))
  assert not engine.fit()
  with pytest.raises(ValueError, match="fewer than two classes"):
    engine.classify("a", planes, part)
  engine.learn("a", planes, paint(1, 3))
  assert engine.fit()
  before = engine.classify("a", planes, part)
  assert before.probabilities.shape == (50, 280, 3)
  assert not before.probabilities[..., 1].any()
  engine.learn("a", planes, paint(1, 2, 3))
  assert engine.fit()
  after = engine.classify("a", planes, part)
  best = after.probabilities.argmax(axis=2)
  assert (best[:, 120:160] == 1).mean() > 0.9
  assert (best[:, 10:60] == 0).mean() > 0.9
  engine.learn("a", planes, paint())
  assert not engine.fit()


def test_maps_are_those_of_the_same_forest_on_the_whole(planes):
  """Tiles, views and threads change nothing."""
  engine = live.LiveTeacher(num_trees=5)
  engine.learn("a", planes, paint(1, 2, 3))
  engine.fit()
  whole = teacher.classify_planes(
    planes, features.list_features(), engine.forest
  )
  part = (slice(20, 50), slice(200, 290))
  found = engine.classify("a", planes, part)
  np.testing.assert_array_equal(found.probabilities, whole[part])
  kept = engine.num_bytes
  unsure = engine.measure("a", planes)
  np.testing.assert_array_equal(unsure[part], found.uncertainty)
  assert engine.num_bytes == kept


def test_features_are_of_tiles_in_view_only(planes, monkeypatch):
  parts = []
  compute = live.compute_part

  def count(planes, selection, part, halo):
    parts.append((part[0].start, part[1].start))
    return compute(planes, selection, part, halo)

  monkeypatch.setattr(live, "compute_part", count)
  engine = live.LiveTeacher(num_trees=3)
  engine.learn("a", planes, paint(1, 2))
  engine.fit()
  assert parts == [(0, 0)]
  engine.classify("a", planes, (slice(0, 60), slice(0, 190)))
  assert parts == [(0, 0)]
  engine.classify("a", planes, (slice(0, 60), slice(200, 300)))
  assert parts == [(0, 0), (0, live.TILE_PX)]
  # Other strokes in a tile that was let go of: only that is computed again.
  engine.learn("a", planes, paint(1, 2, 3))
  assert len(parts) == 2
  small = live.LiveTeacher(num_trees=3, cache_bytes=1)
  small.learn("a", planes, paint(1, 2, 3))
  assert 0 < small.num_bytes < engine.num_bytes
  engine.forget("a")
  assert engine.num_bytes == 0


def test_what_is_ready_is_shown_first(planes):
  engine = live.LiveTeacher(num_trees=3)
  engine.learn("a", planes, paint(1, 2))  # In the first tile.
  engine.fit()
  part = (slice(0, 60), slice(100, 300))
  first, last = engine.look("a", planes, part)
  edge = live.TILE_PX - 100
  assert first.is_known[:, :edge].all()
  assert not first.is_known[:, edge:].any()
  assert not first.probabilities[:, edge:].any()
  assert last.is_known.all()
  np.testing.assert_array_equal(
    first.probabilities[:, :edge], last.probabilities[:, :edge]
  )
  assert len(list(engine.look("a", planes, part))) == 1


def test_a_view_is_made_ready_and_then_what_is_around_it(planes):
  engine = live.LiveTeacher(num_trees=3)
  part = (slice(0, 60), slice(0, 100))
  assert engine.prepare("a", planes, part)
  (first,) = engine._tiles
  assert first == ("a", 0, 0)
  assert not engine.prepare("a", planes, part)
  assert not engine.prepare("a", planes, part)
  assert len(engine._tiles) == 2
  small = live.LiveTeacher(num_trees=3, cache_bytes=1)
  assert not small.prepare("a", planes, part)
  assert list(small._tiles) == [("a", 0, 0)]


def test_strokes_stay_where_their_features_are_let_go_of(planes):
  engine = live.LiveTeacher(num_trees=3)
  engine.learn("a", planes, paint(1, 2, 3))
  engine.fit()
  engine._tiles.clear()
  small = live.LiveTeacher(num_trees=3, cache_bytes=1)
  for strokes in (paint(3), paint(3, 2), paint(1, 2, 3)):
    small.learn("a", planes, strokes)
  assert small.fit()
  np.testing.assert_array_equal(
    small.forest.thresholds, engine.forest.thresholds
  )


def test_measuring_tells_how_far_it_is_and_can_be_ended(planes):
  engine = live.LiveTeacher(num_trees=3)
  engine.learn("a", planes, paint(1, 2))
  engine.fit()
  seen = []
  engine.measure("a", planes, seen.append)
  assert seen[0] == 0 and seen == sorted(seen)

  def stop(share):
    raise InterruptedError

  with pytest.raises(InterruptedError):
    engine.measure("a", planes, stop)


def test_fewer_trees_and_threads(planes):
  rows = planes.reshape(-1, 2)[::50]
  labels = 1 + np.arange(len(rows), dtype=np.int32) % 3
  one = forest.fit_forest(rows, labels, 0, 4)
  two = forest.fit_forest(rows, labels, 0, 4, 2)
  assert one.roots.size == 4
  np.testing.assert_array_equal(one.thresholds, two.thresholds)


def test_only_the_newest_of_what_waits_is_done():
  newest, done, go = live.Newest(), [], threading.Event()
  started = threading.Event()

  def first():
    started.set()
    go.wait(30)

  newest.submit(first)
  assert started.wait(30)
  for k in range(5):
    newest.submit(lambda k=k: done.append(k))
  go.set()
  newest.call(lambda: done.append("call"))
  newest.wait()
  assert done == [4, "call"]


def test_jobs_go_before_what_fills_the_time():
  newest, done = live.Newest(), []
  started, go = threading.Event(), threading.Event()

  def step():
    done.append("step")
    started.set()
    go.wait(30)
    return len(done) < 5

  newest.fill(step)
  assert started.wait(30)
  newest.submit(lambda: done.append("job"))
  assert newest.has_waiting()
  go.set()
  newest.wait()
  assert done[:2] == ["step", "job"]
  newest.fill(lambda: done.append("other"))
  newest.call(lambda: None)
  newest.call(lambda: None)
  newest.wait()
  assert done[-1] == "other"


@pytest.mark.parametrize(
  ("corners", "expected"),
  [
    ([[-5, 10], [30, 999]], (0, 30, 10, 300)),
    ([[70, 0], [90, 10]], (0, 60, 0, 10)),
    ([[2.7, 3.2], [9.1, 9.9]], (2, 10, 3, 10)),
  ],
)
def test_what_is_classified_for_a_view(corners, expected):
  rows, columns = live.choose_view(SHAPE, np.array(corners))
  assert (rows.start, rows.stop, columns.start, columns.stop) == expected


def test_a_large_view_is_cut_to_its_middle():
  rows, columns = live.choose_view((5000, 400), np.array([[0, 0], [5e3, 400]]))
  assert (rows.start, rows.stop) == (1988, 3012)
  assert (columns.start, columns.stop) == (0, 400)


def test_the_most_uncertain_place_is_one_without_strokes():
  unsure = np.zeros((40, 40), np.float32)
  unsure[:10, :10], unsure[30:, 30:] = 1, 0.5
  strokes = np.zeros((40, 40), np.int32)
  assert live.find_place(unsure, strokes, 10)[0].start == 0
  strokes[4, 4] = 1
  assert live.find_place(unsure, strokes, 10)[0].start == 30
