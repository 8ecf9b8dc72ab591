"""How fast a run trains, what holds it up, and a trace of some steps."""

import contextlib
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax.train import chips, metrics


class Speed:
  """Measures between two looks; what is not training is left out.

  Attributes:
    batch_size: images a step, of all devices.
    flops_per_image: forward and backward pass.
    peak_flops: of all devices together; None where it is not known.
  """

  def __init__(self, config: ConfigDict, step: int):
    """Starts to count after `step`, which a run may go on from."""
    peak = chips.peak_flops(jax.devices()[0].device_kind, config.model.dtype)
    self.batch_size = config.train.batch_size
    self.flops_per_image = metrics.count_step_flops(config)
    self.peak_flops = peak and peak * jax.device_count()
    self.restart(step)

  def restart(self, step: int):
    """Starts to count after a step."""
    self._step, self._start_s, self._waited_s = step, time.perf_counter(), 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside as one in which the devices get no batch."""
    start_s = time.perf_counter()
    yield
    self._waited_s += time.perf_counter() - start_s

  def read(self, step: int) -> dict[str, float]:
    """Returns the rates since the last look, and starts anew.

    Args:
      step: the last one that is done, on the device too.

    Returns:
      images_per_second; model_tflops, of the network's own arithmetic on all
      devices per second; mfu, its share of their peak, where that is known;
      input_wait, the share of the time in which the host waited for records.
    """
    seconds = time.perf_counter() - self._start_s
    num_steps, waited_s = step - self._step, self._waited_s
    self.restart(step)
    if not num_steps:
      return {}
    rate = num_steps * self.batch_size / seconds
    flops = rate * self.flops_per_image
    found = {"images_per_second": rate, "model_tflops": flops / 1e12}
    if self.peak_flops:
      found["mfu"] = flops / self.peak_flops
    return found | {"input_wait": waited_s / seconds}


class Profile:
  """Records some steps as a trace for TensorBoard or XProf."""

  def __init__(self, steps: str | None, folder: pathlib.Path):
    """Records nothing yet.

    Args:
      steps: FIRST:LAST, both recorded; None: none is.
      folder: where the trace comes; of several processes in a folder of its
        own each, since traces of one host and second share a name.

    Raises:
      ValueError: `steps` is no such window.
    """
    self._folder, self._is_on, self._has_begun = folder, False, False
    self._window = range(0)
    if steps is not None:
      found = re.fullmatch(r"(\d+):(\d+)", steps)
      first, last = (int(text) for text in found.groups()) if found else (0, 0)
      if not 1 <= first <= last:
        raise ValueError(
          f"--profile_steps: found {steps!r}, expected FIRST:LAST, as 100:105"
        )
      self._window = range(first, last + 1)

  @contextlib.contextmanager
  def record(self, step: int) -> Iterator[None]:
    """Records what is done inside as a step, if it is in the window."""
    if step not in self._window:
      yield
      return
    if not self._is_on:
      folder = self._folder
      if jax.process_count() > 1:
        folder /= f"process_{jax.process_index()}"
      jax.profiler.start_trace(str(folder))
      self._is_on = self._has_begun = True
    with jax.profiler.StepTraceAnnotation("train", step_num=step):
      yield

  def end(self, step: int, found: Any) -> None:
    """Writes the trace where the window ends.

    Args:
      step: the one that was started last.
      found: what it gives, which is waited for.
    """
    if self._is_on and step + 1 not in self._window:
      jax.block_until_ready(found)
      self.close()

  def close(self) -> None:
    """Writes what was recorded; says so where no step of the window came."""
    if self._is_on:
      self._is_on = False
      jax.profiler.stop_trace()
    elif self._window and not self._has_begun:
      logging.warning(
        "--profile_steps=%d:%d: found no such step in this call, nothing is "
        "recorded",
        *(self._window[0], self._window[-1]),
      )


NO_PROFILE = Profile(None, pathlib.Path())
