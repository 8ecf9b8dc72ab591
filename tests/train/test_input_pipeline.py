"""The order, the sharing, the mixing and the resuming of batches."""

import collections
import itertools
import threading

import numpy as np
import pytest
import record_datasets
from absl import flags

from dicexmbd_jax.train import input_pipeline
from dicexmbd_jax.train.input_pipeline import Source

NUM_TRAIN = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return record_datasets.write_dataset(
    tmp_path_factory.mktemp("a"), train=NUM_TRAIN, validation=5
  )


@pytest.fixture(scope="module")
def second(tmp_path_factory):
  return record_datasets.write_dataset(
    tmp_path_factory.mktemp("b"), "b", train=7, validation=3
  )


def make(folders, split="train", weights=None, **kwargs):
  weights = weights or [1.0] * len(folders)
  sources = [
    Source(str(f), weight) for f, weight in zip(folders, weights, strict=True)
  ]
  settings = {"batch_size": 4, "seed": 0, **kwargs}
  return input_pipeline.make_batches(sources, split, **settings)


def open_validation(folders, split="validation", **kwargs):
  sources = [Source(str(folder), 1.0) for folder in folders]
  settings = {"batch_size": 4, **kwargs}
  return input_pipeline.make_passes(sources, split, **settings)


def take_ids(batches, number):
  return [batch["record_id"] for batch in itertools.islice(batches, number)]


def test_a_batch_holds_the_records_as_they_are_stored(folder):
  batch = next(make([folder], seed=3))
  value = int(batch["record_id"][0].split("-")[-1])
  assert batch["image"].dtype == np.float32
  assert batch["image"].shape == (4, 4, 4, 2)
  assert np.all(batch["image"][0, :-1] == value)
  assert batch["target"].dtype == np.uint16
  assert np.all(batch["target"][0, :-1] == 65535 * np.eye(3)[value % 3])
  assert batch["valid"].dtype == batch["known"].dtype == np.uint8
  assert np.all(batch["valid"][:, :-1] == 1)
  assert np.all(batch["valid"][:, -1] == 0)
  assert batch["is_real"].tolist() == [True] * 4


def test_every_epoch_has_every_record_once_in_a_new_order(folder):
  ids = sum(take_ids(make([folder]), NUM_TRAIN), [])
  epochs = [ids[i : i + NUM_TRAIN] for i in range(0, len(ids), NUM_TRAIN)]
  assert len(epochs) == 4
  wanted = sorted(f"a-train-{i}" for i in range(NUM_TRAIN))
  assert all(sorted(epoch) == wanted for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_seed_decides_the_order(folder):
  orders = [
    tuple(sum(take_ids(make([folder], seed=seed), 6), []))
    for seed in (0, 0, 1, 2)
  ]
  assert orders[0] == orders[1]
  assert len(set(orders)) == 3


def test_neighbouring_seeds_share_no_epoch(folder):
  size = NUM_TRAIN
  first, second = (
    take_ids(make([folder], seed=seed, batch_size=size), 3) for seed in (0, 1)
  )
  assert not {tuple(e) for e in first} & {tuple(e) for e in second}


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_a_restart_goes_on_where_it_was(folder, second, step):
  whole = list(itertools.islice(make([folder, second]), 10))
  resumed = make([folder, second], start_step=step)
  rest = list(itertools.islice(resumed, 10 - step))
  for wanted, got in zip(whole[step:], rest, strict=True):
    assert wanted["record_id"] == got["record_id"]
    np.testing.assert_array_equal(wanted["image"], got["image"])


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_batches_of_one(folder, second, process_count):
  whole = take_ids(make([folder, second], start_step=2), 5)
  parts = [
    take_ids(
      make(
        [folder, second],
        start_step=2,
        process_index=index,
        process_count=process_count,
      ),
      5,
    )
    for index in range(process_count)
  ]
  assert whole == [sum(step, []) for step in zip(*parts, strict=True)]


def test_processes_share_an_evaluation_and_its_filling(folder):
  whole = list(open_validation([folder]).read())
  parts = [
    list(open_validation([folder], process_index=index, process_count=2).read())
    for index in range(2)
  ]
  assert [len(part) for part in parts] == [2, 2]
  for one, *both in zip(whole, *parts, strict=True):
    for key in ("image", "is_real", "valid"):
      np.testing.assert_array_equal(
        one[key], np.concatenate([part[key] for part in both])
      )


def test_mixtures_keep_their_shares(folder, second):
  ids = sum(take_ids(make([folder, second], weights=[3, 1]), 100), [])
  counts = collections.Counter(name[0] for name in ids)
  assert counts == {"a": 300, "b": 100}
  # Interleaved, not one after the other.
  running = np.cumsum([name[0] == "a" for name in ids])
  assert np.abs(running - 0.75 * np.arange(1, 401)).max() < 1


def test_each_source_of_a_mixture_is_covered_before_it_repeats(folder, second):
  ids = sum(take_ids(make([folder, second], weights=[3, 1]), 20), [])
  small = [name for name in ids if name[0] == "b"]
  assert len(set(small[:7])) == 7
  assert len(set(small[7:14])) == 7


def test_evaluation_is_one_ordered_pass_with_a_filled_last_batch(
  folder, second
):
  batches = list(open_validation([folder, second], batch_size=3).read())
  ids = sum((batch["record_id"] for batch in batches), [])
  assert sorted(ids[:5]) == [f"a-validation-{i}" for i in range(5)]
  assert sorted(ids[5:8]) == [f"b-validation-{i}" for i in range(3)]
  assert ids[8:] == [""]
  real = np.concatenate([batch["is_real"] for batch in batches])
  assert real.tolist() == [True] * 8 + [False]
  assert not batches[-1]["image"][-1].any()
  assert not batches[-1]["valid"][-1].any()


def test_passes_are_alike_and_may_be_left_early(folder, monkeypatch):
  opened = []
  real = input_pipeline.Records

  def open_records(path, split):
    opened.append(split)
    return real(path, split)

  monkeypatch.setattr(input_pipeline, "Records", open_records)
  passes = open_validation([folder])
  first = take_ids(passes.read(), 9)
  assert len(first) == 2
  passes.read_ahead()
  passes.read_ahead()
  for _ in range(2):
    left = passes.read()
    assert next(left)["record_id"] == first[0]
    left.close()
  assert take_ids(passes.read(), 9) == first
  assert opened == ["validation"]


def test_a_pass_is_read_before_it_is_taken(folder, monkeypatch):
  is_read = threading.Event()
  real = input_pipeline.BatchReader.__call__

  def read(reader, step):
    is_read.set()
    return real(reader, step)

  monkeypatch.setattr(input_pipeline.BatchReader, "__call__", read)
  passes = open_validation([folder])
  passes.read_ahead()
  assert is_read.wait(60)  # Without end where nothing is read ahead.
  assert len(list(passes.read())) == 2


def test_a_split_without_records_has_empty_passes(folder):
  passes = open_validation([folder], "test")
  passes.read_ahead()
  assert list(passes.read()) == list(passes.read()) == []


def test_reading_ahead_changes_nothing(folder, monkeypatch):
  ahead = take_ids(make([folder]), 9)
  monkeypatch.setattr(input_pipeline, "count_read_threads", lambda _: 0)
  assert take_ids(make([folder]), 9) == ahead


@pytest.mark.slow
def test_workers_change_nothing(folder, second):
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def read(num_workers, start_step):
    batches = make(
      [folder, second], num_workers=num_workers, start_step=start_step
    )
    return list(itertools.islice(batches, 6))

  wanted = read(0, 3)
  for num_workers in (1, 2):
    for one, other in zip(wanted, read(num_workers, 3), strict=True):
      assert one["record_id"] == other["record_id"]
      np.testing.assert_array_equal(one["target"], other["target"])


def test_records_are_counted(folder, second):
  sources = [Source(str(folder), 1.0), Source(str(second), 9.0)]
  assert input_pipeline.count_records(sources, "train") == 18
  assert input_pipeline.count_records(sources, "test") == 0


def test_different_patch_sizes_are_one_error(folder, tmp_path):
  big = record_datasets.write_dataset(tmp_path, patch_px=8, train=2)
  with pytest.raises(ValueError, match="4 px.*8 px.*expected one") as error:
    make([folder, big])
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"split": "tarin"}, "split: got 'tarin'"),
    ({"split": "test"}, "split 'test' is empty"),
    ({"batch_size": 0}, "batch_size: got 0"),
    ({"batch_size": 5, "process_count": 2}, "batch_size: got 5"),
    ({"process_index": 1}, "process_index: got 1"),
    ({"process_count": 0}, "process_count: got 0"),
    ({"num_workers": -1}, "num_workers: got -1"),
    ({"start_step": -1}, "start_step: got -1"),
    ({"seed": -1}, "seed: got -1"),
    ({"weights": [0.0]}, "every weight is 0"),
    ({"weights": [-1.0]}, "weight is -1.0, expected 0 or more"),
    ({"weights": [float("nan")]}, "weight is nan"),
  ],
)
def test_wrong_arguments_are_named(folder, kwargs, message):
  with pytest.raises(ValueError, match=message):
    make([folder], **kwargs)


def test_no_sources_is_an_error():
  with pytest.raises(ValueError, match="sources: got none"):
    make([])
