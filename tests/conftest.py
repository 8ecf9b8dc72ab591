"""Shared by all tests: the real data's place, and their skip."""

import contextlib
import os
import pathlib
from collections.abc import Callable

import hypothesis
import pytest

from dicexmbd_jax import storage

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What JAX compiles is kept, for other tests, the processes that they start and
# the next call. Before JAX is imported, which reads it then.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache/compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Times are noisy on shared machines, and nothing timed is asserted.
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.load_profile("all")

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


@pytest.fixture
def quick_figures(request, monkeypatch):
  """Renders nothing, which takes most of a call; but for tests of figures."""
  if "figures" not in request.keywords:
    place = "dicexmbd_jax.report.score_page.render_figure"
    monkeypatch.setattr(place, lambda page, kind: kind.encode())


@pytest.fixture
def cut_finely() -> Callable[[], contextlib.AbstractContextManager]:
  """Makes all planes lie in files, and strips a few rows high, while open."""

  @contextlib.contextmanager
  def cut():
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(storage, "LARGE_BYTES", 1)
      patch.setattr(storage, "STACK_BYTES", 1)
      patch.setattr(storage, "STRIP_BYTES", 2000)
      yield

  return cut
