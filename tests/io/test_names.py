"""Names of any length and make are taken apart in no time."""

import pytest

from dicexmbd_jax.io import names

LONG = 200_000


@pytest.mark.parametrize(
  "text",
  [
    "1" * 30 + "x",
    "channel " + "1" * 5000 + "x",
    "1 " * 15 + "x",
    " " * LONG + "(1",
    "_" * LONG + "x",
    "a" * LONG,
    "1" * LONG,
    "Ir" * LONG,
    "1_2-3:" * LONG + "x",
  ],
)
def test_names_without_an_end(text):
  """A pattern that tries all ways to split them would never end."""
  assert names.parse_name(text).metal is None
  assert names.parse_row(text, "CD3").label == "CD3"
  assert names.parse_number(text) is None


def test_long_names_are_told_apart_by_all_of_their_text():
  left, right = names.parse_name("a" * LONG), names.parse_name("a" * LONG + "b")
  assert not left.markers & right.markers


@pytest.mark.parametrize(
  "text", ["1", "channel 12", "c_1-2", "Channel: 0 1 2", "image#3.4", "", "NA"]
)
def test_names_that_only_count(text):
  assert names.parse_name(text) == names.Name(None, frozenset(), frozenset())


def test_many_equal_names_become_unique():
  found = names.make_unique(["a"] * 20_000)
  assert len(set(found)) == 20_000
  assert (found[1], found[-1]) == ("a_2", "a_20000")


@pytest.mark.parametrize(
  "text", ["K10", "Il10", "CD-11B", "A12", "Galectin-B12"]
)
def test_no_element_is_no_metal(text):
  assert names.parse_name(text).metal is None
  assert names.parse_row("Pr141", text).metal == "Pr141"
