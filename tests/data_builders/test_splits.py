"""Who trains and who is kept for the test."""

import collections

import pytest

from configs import records_paper
from data_builders import jobs, splits


def make_rule(table=None, **values):
  config = jobs.make_config(None, {}).records
  with config.unlocked():
    config.update(values)
  return splits.make_rule(config, table)


def split(stems, rule):
  groups = {stem: splits.find_group(stem, rule) for stem in stems}
  return splits.split_images(groups, rule)


def test_images_that_come_later_move_none():
  rule = make_rule()
  stems = [f"image{i}" for i in range(200)]
  before = split(stems[::3], rule)
  after = split(stems[::-1], rule)
  assert {stem: after[stem] for stem in before} == before


def test_the_hash_is_the_same_for_ever():
  assert splits.hash_group("slide1", "dicexmbd") == 0.9173503417981491


def test_shares_are_kept_on_average():
  found = split([str(i) for i in range(4000)], make_rule())
  count = collections.Counter(found.values())
  for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
    assert abs(count[name] / 4000 - share) < 0.025


def test_another_salt_deals_anew():
  stems = [str(i) for i in range(100)]
  assert split(stems, make_rule()) != split(stems, make_rule(salt="b"))


def test_groups_come_from_names():
  rule = make_rule(group_pattern=r"^(\w+?)_")
  assert splits.find_group("S1_ROI2", rule) == "S1"
  assert splits.find_group("S1_x", make_rule(group_pattern=r"S\d")) == "S1"
  with pytest.raises(ValueError, match="ROI2: found no group"):
    splits.find_group("ROI2", rule)


def test_groups_come_from_a_table():
  rule = make_rule(table={"a": "p1"})
  assert splits.find_group("a", rule) == "p1"
  with pytest.raises(ValueError, match="b: found no group of it"):
    splits.find_group("b", rule)


def test_lists_go_first_and_take_the_whole_group():
  rule = make_rule(
    group_pattern="^.", lists={"test": ("a1",), "validation": ("b",)}
  )
  found = split(["a1", "a2", "b1", "c1"], rule)
  assert (found["a1"], found["a2"], found["b1"]) == (
    "test",
    "test",
    "validation",
  )
  both = make_rule(
    group_pattern="^.", lists={"test": ("a1",), "train": ("a2",)}
  )
  with pytest.raises(ValueError, match="group a in"):
    split(["a1", "a2"], both)


def test_a_listed_name_that_no_image_has_is_told(caplog):
  lists = {"validation": ["b.tiff"], "test": ["A", "c"]}
  found = split("abc", make_rule(lists=lists))
  assert found["c"] == "test"
  assert "found A, b.tiff, which no image and no group is named" in caplog.text


def test_the_papers_numbers_come_out():
  rule = splits.make_rule(records_paper.get_config().records)
  found = split([f"image{i}" for i in range(548)], rule)
  assert collections.Counter(found.values()) == {
    "train": 348,
    "validation": 100,
    "test": 100,
  }
  with pytest.raises(ValueError, match="sum of 547"):
    split([f"image{i}" for i in range(547)], rule)


@pytest.mark.parametrize(
  ("values", "words"),
  [
    ({"shares": {"train": 0.5, "validation": 0.1, "test": 0.1}}, "sum of 0.7"),
    (
      {"shares": {"train": -0.5}},
      "shares.train: found -0.5, expected a numb",
    ),
    (
      {"counts": {"train": 1.5}},
      "counts.train: found 1.5, expected a whole nu",
    ),
    (
      {"lists": {"test": "ROI1"}},
      "lists.test: found 'ROI1', expected a list of",
    ),
    ({"lists": {"tests": ("a",)}}, "'tests'"),
    ({"lists": {"test": ("a",), "train": ("a",)}}, "found a twice"),
    ({"group_pattern": "("}, "regular expression"),
  ],
)
def test_wrong_rules_are_refused(values, words):
  with pytest.raises(ValueError, match=words):
    make_rule(**values)
