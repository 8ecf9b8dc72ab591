"""Sections: what their values may be, and how a wrong one is told."""

import dataclasses
import pathlib
from typing import Annotated

import numpy as np
import pytest

from configs import default
from data_builders import jobs
from dicexmbd_jax import config as config_lib
from dicexmbd_jax import predict, sections
from dicexmbd_jax.image import channels
from dicexmbd_jax.train import check


@dataclasses.dataclass(frozen=True)
class Example(sections.Section):
  NAME = "example"

  count: Annotated[int, sections.whole(1, 3)]
  share: Annotated[float, sections.number(0, below=1)] = 0.5
  name: Annotated[str | None, sections.TEXT] = None
  is_on: Annotated[bool, sections.SWITCH] = True
  size: Annotated[
    float | str, sections.word_or("auto", sections.number(0.1, 10))
  ] = 1.0


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"count": 0}, "count: found 0, expected a whole number from 1 to 3"),
    ({"count": 4}, "count: found 4, expected a whole number from 1 to 3"),
    ({"count": 2.0}, "count: found 2.0, expected a whole number from 1 to 3"),
    ({"count": None}, "count: found None, expected a whole number from 1 to 3"),
    ({"share": 1}, "share: found 1, expected a number of 0 or more, below 1"),
    (
      {"share": "1"},
      "share: found '1', expected a number of 0 or more, below 1",
    ),
    (
      {"share": np.nan},
      "share: found nan, expected a number of 0 or more, bel",
    ),
    (
      {"share": True},
      "share: found True, expected a number of 0 or more, belo",
    ),
    ({"name": 1}, "name: found 1, expected a text"),
    ({"is_on": 1}, "is_on: found 1, expected true or false"),
    ({"size": "a"}, "size: found 'a', expected 'auto' or a number from 0.1"),
    ({"size": 0}, "size: found 0, expected 'auto' or a number from 0.1 to 10"),
  ],
)
def test_construction_and_reading_name_the_value(values, message):
  values = {"count": 1, **values}
  for make in (lambda: Example(**values), lambda: Example.read(values)):
    with pytest.raises(ValueError) as caught:
      make()
    assert str(caught.value).startswith(f"config.example.{message}")
  with pytest.raises(ValueError, match=r"^config\.other\.x\."):
    Example.read(values, "other.x")


def test_what_is_left_out_has_its_default_or_is_told():
  assert Example.read({"count": 3}) == Example(3, 0.5, None, True)
  with pytest.raises(
    ValueError, match="example.count: found nothing, expected"
  ):
    Example.read({})
  with pytest.raises(
    ValueError, match="example.cuont: found no such value, ex"
  ):
    Example.read({"cuont": 3})


def test_whole_numbers_become_floats_where_floats_are_meant():
  assert isinstance(Example(1, share=0).share, float)
  assert isinstance(Example(1).count, int)


@pytest.mark.parametrize("source", ["default", "shipped"])
def test_sections_have_what_the_configurations_have(source):
  config = default.get_config()
  if source == "shipped":
    config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  for kind in (
    sections.ImageSection,
    sections.ModelSection,
    sections.PredictSection,
  ):
    values = config[kind.NAME].to_dict()
    assert dataclasses.asdict(kind.read(values)) == values


def test_choices_are_those_that_the_code_knows():
  def accepts(section, name, value):
    kind, _ = sections.list_kinds(section)[name]
    return kind.accepts(value)

  for views in range(10):
    known = views in predict.VIEWS
    assert accepts(sections.PredictSection, "views", views) == known
  for preset in (*channels.MERGES, "other"):
    known = preset in channels.MERGES
    assert accepts(sections.ImageSection, "preset", preset) == known


CONFIGS = sorted(pathlib.Path(default.__file__).parent.rglob("[a-z]*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_all_configurations_are_possible(path):
  config = config_lib.read_config_file(path)
  config_lib.check_config(config)
  check.TrainSection.read(config.train)
  jobs.RecordsSection.read(config.records)


def test_sections_of_training_name_wrong_values():
  config = default.get_config()
  for section, name, value, message in (
    ("train", "batch_size", "4", "batch_size: found '4', expected a whole num"),
    ("train", "lerning_rate", 1.0, "lerning_rate: found no such value, expect"),
    (
      "records",
      "cut",
      "gird",
      "cut: found 'gird', expected 'grid' or 'random'",
    ),
    ("records", "patch_px", 0, "patch_px: found 0, expected a whole number fr"),
    (
      "records",
      "stride_px",
      600,
      "stride_px: found 600, expected at most patc",
    ),
  ):
    kind = {"train": check.TrainSection, "records": jobs.RecordsSection}[
      section
    ]
    values = {**config[section], name: value}
    with pytest.raises(ValueError, match=f"^config.{section}.{message}"):
      kind.read(values)
