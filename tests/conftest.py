"""Shared by all tests: the real data's place, and their skip."""

import os
import pathlib

import hypothesis
import pytest

# Times are noisy on shared machines, and nothing timed is asserted.
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.load_profile("all")

ROOT = pathlib.Path(__file__).resolve().parent.parent
REAL_DATA = pathlib.Path(
  os.environ.get("DICEXMBD_REAL_DATA", ROOT.parent / "shared" / "data")
)


def pytest_collection_modifyitems(items):
  """Skips tests marked `real` where the real data are not at hand."""
  if REAL_DATA.is_dir():
    return
  reason = f"no real data at {REAL_DATA}; set DICEXMBD_REAL_DATA"
  for item in items:
    if "real" in item.keywords:
      item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
  return REAL_DATA


@pytest.fixture(scope="module")
def keeps_compiled(tmp_path_factory):
  """Lets a module's tests share what JAX compiles for the same program."""
  import jax

  names = {
    "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
    "jax_persistent_cache_min_compile_time_secs": 0,
  }
  before = {name: getattr(jax.config, name) for name in names}
  for name, value in names.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)
