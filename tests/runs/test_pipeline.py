"""The steps of many images, with a network and workers that tell on them."""

import pathlib
import time

import numpy as np
import pytest
import tifffile

from configs.default import get_config
from dicexmbd_jax import chain, memory
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.image import preparation
from dicexmbd_jax.io import source as source_lib
from dicexmbd_jax.runs import image_job, pipeline, pool
from dicexmbd_jax.types import ImageSource

IMAGE = np.zeros((4, 4, 2), np.float32)


class TellingJob:
  """Takes the place of runs.image_job.ImageJob."""

  def __init__(self):
    self.calls = []

  def _tell(self, step, source, *values):
    self.calls.append((step, source.stem, *values))
    if source.stem == step:
      raise ValueError(f"{step} failed")

  def prepare(self, source, digest):
    self._tell("prepare", source, digest)
    if source.stem == "done":
      return image_job.PreparedImage(is_finished=True)
    return image_job.PreparedImage(
      ("a warning",), views=[IMAGE] * 2, shape=(40, 30)
    )

  def magnify(self, source, views, maps, seconds):
    assert seconds >= 0
    self._tell("magnify", source, len(views), len(maps))
    return 1.5, IMAGE

  def finish(self, source, digest, factor, levels, seconds):
    self._tell("finish", source, digest, factor, levels.max())
    return len(source.stem)

  def drop(self, source):
    self.calls.append(("drop", source.stem))


def answer(images):
  for key, image in images:
    value = np.nan if key.source.stem == "network" else 1.0
    yield key, np.full((*image.shape[:2], 3), value, np.float32)


def run(sources, needs_hash=lambda source: False):
  job = TellingJob()
  workers = pool.Workers(0, lambda: job)
  line = pipeline.Pipeline(workers, answer, answer, 2, needs_hash)
  outcomes = {one.source.stem: one for one in line.run(sources)}
  line.close()
  return job.calls, outcomes


def make_source(stem, acquisition=None):
  return ImageSource(stem, pathlib.Path(stem), acquisition=acquisition)


def test_the_network_is_compiled_once_before_it_sees_an_image():
  steps = []

  def compile_ahead(shape):
    time.sleep(0.05)
    steps.append(shape)

  def network(images):
    for key, maps in answer(images):
      steps.append(key.source.stem)
      yield key, maps

  workers = pool.Workers(0, TellingJob)
  line = pipeline.Pipeline(
    workers, answer, network, 2, lambda source: False, compile_ahead
  )
  assert len([*line.run([make_source("a"), make_source("bb")])]) == 2
  line.close()
  assert steps == [(40, 30), "a", "bb"]


def test_what_could_not_be_compiled_is_left_to_the_network():
  def compile_ahead(shape):
    raise ValueError(shape)

  workers = pool.Workers(0, TellingJob)
  line = pipeline.Pipeline(
    workers, answer, answer, 2, lambda source: False, compile_ahead
  )
  (outcome,) = line.run([make_source("a")])
  line.close()
  assert outcome.result == 1


def test_each_image_takes_every_step():
  calls, outcomes = run([make_source("a"), make_source("bb")])
  assert {stem: one.result for stem, one in outcomes.items()} == {
    "a": 1,
    "bb": 2,
  }
  assert outcomes["a"].warnings == ("a warning",)
  assert [call for call in calls if call[1] == "a"] == [
    ("prepare", "a", None),
    ("magnify", "a", 2, 2),
    ("finish", "a", None, 1.5, 65535),
  ]


def test_an_image_that_fails_at_any_step_costs_itself_only():
  steps = ["prepare", "magnify", "network", "finish"]
  calls, outcomes = run([make_source(stem) for stem in [*steps, "done", "a"]])
  failed = [s for s, o in outcomes.items() if isinstance(o.result, ValueError)]
  assert sorted(failed) == sorted(steps)
  assert outcomes["done"].result is None
  assert outcomes["a"].result == 1
  dropped = [stem for step, stem, *_ in calls if step == "drop"]
  assert sorted(dropped) == sorted(steps)


def test_a_file_of_several_images_is_hashed_once_and_not_by_workers(
  tmp_path, monkeypatch
):
  path = tmp_path / "a.mcd"
  path.write_bytes(b"abc")
  read = []
  true_open = source_lib._open_member

  def open_member(*arguments):
    read.append(arguments)
    return true_open(*arguments)

  monkeypatch.setattr(source_lib, "_open_member", open_member)
  sources = [ImageSource(f"a{k}", path, acquisition=k) for k in range(5)]
  calls, _ = run(sources, lambda source: source.stem == "a3")
  assert len(read) == 1
  known = {call[1] for call in calls if call[0] == "prepare" and call[2]}
  assert known == {"a3"}
  assert all(call[2] for call in calls if call[0] == "finish")


def test_cells_of_a_share_are_not_told(tmp_path):
  path = tmp_path / "a.tiff"
  counts = np.random.default_rng(0).poisson(4, (2, 40, 36))
  tifffile.imwrite(path, counts.astype(np.float32))
  source = ImageSource("a", path)
  told = []
  for is_share in (False, True):
    plan = image_job.RunPlan(
      get_config(), None, None, "distance", tmp_path, {}, True, is_share
    )
    told.append(image_job.ImageJob(plan).finish(source, None, 1.0, None, 0.0))
  assert told[0].num_cells == told[1].num_cells > 0
  assert told[0].cells is not None and told[1].cells is None


@pytest.mark.parametrize("method", ["distance", chain.NETWORK])
def test_another_process_finishes_what_one_that_died_prepared(tmp_path, method):
  path = tmp_path / "a.tiff"
  counts = np.random.default_rng(0).poisson(4, (2, 40, 36))
  tifffile.imwrite(path, counts.astype(np.float32))
  source = ImageSource("a", path)
  levels = None
  if method == chain.NETWORK:
    levels = np.full((40, 36, 3), 21845, np.uint16)
  found = []
  for dies in (False, True):
    plan = image_job.RunPlan(
      get_config(), None, None, method, tmp_path / str(dies), {}, False
    )
    job = image_job.ImageJob(plan)
    job.prepare(source, None)
    if dies:
      job = image_job.ImageJob(plan)
    finished = job.finish(source, None, 1.0, levels, 0.0)
    assert len(finished.cells.ids) == finished.num_cells
    found.append(finished.num_cells)
  assert found[0] == found[1]
  masks = [tmp_path / str(dies) / "masks/a.tiff" for dies in (False, True)]
  assert masks[0].read_bytes() == masks[1].read_bytes()


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_an_image_is_put_on_the_networks_grid_once(
  tmp_path, monkeypatch, factor
):
  path = tmp_path / "a.tiff"
  counts = np.random.default_rng(0).poisson(4, (2, 40, 36))
  tifffile.imwrite(path, counts.astype(np.float32))
  true_resample, factors = preparation.to_network_grid, []

  def resample(image, pixel_size_um, config):
    factors.append(pixel_size_um / 2.0)
    return true_resample(image, pixel_size_um, config)

  monkeypatch.setattr(preparation, "to_network_grid", resample)
  monkeypatch.setattr(image_job.magnification, "judge_views", lambda *_: factor)
  config = config_lib.resolve_config(
    get_config(), None, {"predict.magnification": "auto"}
  )
  job = image_job.ImageJob(
    image_job.RunPlan(config, None, 2.0, chain.NETWORK, tmp_path, {}, False)
  )
  views = job.prepare(ImageSource("a", path), None).views
  _, image = job.magnify(ImageSource("a", path), views, [], 10.0)
  assert factors == list(dict.fromkeys([1.0, factor]))
  assert image.shape == (80 * factor, 72 * factor, 2)
  # The time of the first pass counts.
  assert 10 < job._held["a"].seconds["magnify"] < 20


@pytest.mark.parametrize(("limit_gb", "num_held"), [("1", 3), ("1e-6", 0)])
def test_few_large_images_wait(limit_gb, num_held, monkeypatch):
  """An image has 128 bytes, of which a tenth of a kilobyte holds none."""
  monkeypatch.setenv(memory.VARIABLE, limit_gb)
  job = TellingJob()
  line = pipeline.Pipeline(
    pool.Workers(0, lambda: job), answer, answer, 3, lambda source: False
  )
  sources = [make_source(f"image {k}") for k in range(12)]
  held = []
  for _ in line.run(sources):
    steps = [call[0] for call in job.calls]
    held.append(steps.count("magnify") - steps.count("finish"))
  line.close()
  assert len(held) == 12
  assert max(held[4:-4]) == num_held, held
