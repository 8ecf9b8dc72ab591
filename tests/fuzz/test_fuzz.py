"""A few damages of every format, the same each time; more: launch/fuzz.sh."""

import fuzz_driver
import fuzz_outcomes
import fuzz_samples
import pytest

NUM_EACH = 20


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
  return fuzz_samples.write_samples(tmp_path_factory.mktemp("whole"))


def test_damaged_files_are_told_or_read_as_they_are(samples):
  outcomes = list(fuzz_driver.run_cases(samples, 0, range(NUM_EACH)))
  assert len(outcomes) == NUM_EACH * len(samples)
  assert fuzz_outcomes.list_faults(outcomes) == []


def test_the_same_seed_damages_alike(samples):
  for sample in samples:
    kind, data = fuzz_driver.make_case(sample, 3, 4)
    assert (kind, data) == fuzz_driver.make_case(sample, 3, 4)


def test_the_numbers_of_damages_need_not_end(samples):
  numbers = range(1 << 40)
  assert list(fuzz_driver.run_cases(samples[:1], 0, numbers, seconds=0)) == []


class Reader:
  """A sample whose reader does what it is told."""

  name = "reader"

  def __init__(self, path, way):
    self.path, self.way = path, way
    path.write_bytes(bytes(64))

  def read(self, path):
    if path == self.path:
      return {"pixels": 1}
    if self.way == "hangs":
      while True:
        pass
    if self.way == "takes":
      return {"pixels": len(bytearray(1 << 31))}
    if self.way == "dies":
      import os

      os._exit(3)
    if self.way == "fails":
      return {}["pixels"]
    raise ValueError(
      {"whispers": "found it", "shouts": f"{path}\nis bad"}[self.way]
    )


@pytest.mark.parametrize(
  ("way", "told"),
  [
    ("hangs", "hangs for 2.0 s"),
    ("takes", "MemoryError"),
    ("dies", "died: exit code 3"),
    ("fails", "KeyError: 'pixels'"),
    ("whispers", "a line without the file: found it"),
    ("shouts", "several lines"),
  ],
)
def test_what_must_not_be_is_found(tmp_path, monkeypatch, way, told):
  monkeypatch.setattr(fuzz_driver, "LIMIT_S", 2.0)
  reader = Reader(tmp_path / "a", way)
  [outcome] = fuzz_driver.run_cases([reader], 0, [0])
  assert outcome.result == "else"
  assert told in outcome.detail
  assert fuzz_outcomes.list_faults([outcome]) == [outcome]
