"""Freed memory is kept where the processor computes, and only there."""

import ctypes

import pytest

from dicexmbd_jax import __main__ as program
from dicexmbd_jax import allocator


class FakeLibrary:
  """Counts the calls, and changes nothing in this process."""

  def __init__(self):
    self.calls = []

  def mallopt(self, *arguments):
    self.calls.append(arguments)


@pytest.mark.parametrize(
  ("platforms", "plugins", "is_kept"),
  [
    (None, (), True),
    (None, ("jax_plugins",), False),
    (None, ("libtpu",), False),
    ("cpu", ("jax_plugins",), True),
    ("cuda,cpu", (), False),
  ],
)
def test_memory_is_kept_on_the_processor_alone(
  monkeypatch, platforms, plugins, is_kept
):
  library = FakeLibrary()
  monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
  monkeypatch.setattr(
    allocator.importlib.util, "find_spec", lambda name: name in plugins or None
  )
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  if platforms:
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
  monkeypatch.setattr(allocator.sys, "platform", "linux")
  allocator.keep_freed_memory()
  assert bool(library.calls) == is_kept


@pytest.mark.parametrize(
  ("command", "is_kept"), [("segment", False), ("predict", True)]
)
def test_commands_without_a_network_leave_memory_alone(
  tmp_path, monkeypatch, command, is_kept
):
  calls = []
  monkeypatch.setattr(
    allocator, "keep_freed_memory", lambda: calls.append(command)
  )
  given = "--images" if command == "predict" else "--probabilities"
  words = [f"{given}={tmp_path / 'no'}", f"--output={tmp_path / 'out'}"]
  assert program.main([command, *words]) == 2
  assert calls == [command] * is_kept
