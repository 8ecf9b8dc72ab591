"""Masks and references find one another by name."""

import pathlib

import pytest

from dicexmbd_jax.io import pairing
from dicexmbd_jax.types import ImageSource


def make_sources(*stems):
  return {s: ImageSource(s, pathlib.Path(f"in/{s}.tiff")) for s in stems}


@pytest.mark.parametrize(
  ("masks", "references", "expected"),
  [
    (["a", "b"], ["a", "b"], ["a", "b"]),
    (["a_cp_masks", "b_cp_masks"], ["b", "a"], ["b", "a"]),
    (["a_1_mask", "b_1_mask"], ["a_1", "b_1"], ["a_1", "b_1"]),
    (["a_1_cp_mask"], ["a", "a_1"], ["a_1"]),
    # Numbers tell images apart: they are no tag.
    (["a_1", "b_1"], ["a", "b"], []),
    # One stem fits as it is: nothing is taken off the others.
    (["a", "b_mask"], ["a", "b"], ["a"]),
    (["a_mask", "b_cells"], ["a", "b"], []),
    ([], ["a"], []),
  ],
)
def test_pairs(masks, references, expected):
  pairs, failures = pairing.pair_sources(
    make_sources(*masks), make_sources(*references), "DIR"
  )
  assert list(pairs) == expected
  num_alone = len(masks) + len(references) - 2 * len(expected)
  assert len(failures) == num_alone


def test_whoever_is_alone_is_named():
  pairs, failures = pairing.pair_sources(
    make_sources("a", "x"), make_sources("a", "y"), "DIR"
  )
  assert list(pairs) == ["a"]
  assert failures == [
    ("x", "in/x.tiff", "in/x.tiff: found no reference x, expected one"),
    ("y", "DIR", "DIR: found no mask y, expected one"),
  ]
