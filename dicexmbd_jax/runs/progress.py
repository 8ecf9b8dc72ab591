"""How far a run is: a bar in a terminal, a log line a minute elsewhere."""

import sys
import time
from types import TracebackType

import tqdm
from absl import logging


class Progress:
  """Counts the images that are done, as a context manager.

  Args:
    num_images: how many there are.
    unit: what they are called.
    num_done: how many were done before; more than all count as all.
    silent_s: at least so long between two log lines.
  """

  def __init__(
    self,
    num_images: int,
    unit: str = "image",
    num_done: int = 0,
    silent_s: float = 60,
  ):
    self._silent_s = silent_s
    self._num_images = num_images
    self._num_done = num_done
    self._num_new = 0
    self._num_failed = 0
    self._unit = unit
    self._started = self._told = time.monotonic()
    self._bar = tqdm.tqdm(
      total=num_images,
      unit=unit,
      initial=num_done,
      disable=not sys.stderr.isatty() or num_images == 0,
    )

  def tell(self, line: str, num_more: int = 1, is_failure: bool = False):
    """Counts images as done; `line` says what came out."""
    self._num_new += num_more
    self._num_failed += is_failure
    failed = f"{self._num_failed} failed, " if self._num_failed else ""
    self._bar.set_postfix_str(f"{failed}{line}", refresh=False)
    self._count(num_more, line)

  def skip(self):
    """Counts an image as done that was found done."""
    self._count(1, "done before")

  def note(self, line: str):
    """Writes a line that stays, above the bar where there is one."""
    if self._bar.disable:
      logging.info("%s", line)
    else:
      self._bar.write(line, file=sys.stderr)

  def describe(self) -> str:
    """Returns how many are done, how fast, what is left and what failed."""
    elapsed_s = max(time.monotonic() - self._started, 1e-3)
    rate = self._num_new / elapsed_s
    num_done = min(self._num_done, self._num_images)
    parts = [f"{num_done} of {self._num_images} {self._unit}s"]
    if rate and self._unit != "second":  # Time goes at its own rate.
      left_s = (self._num_images - self._num_done) / rate
      left = tqdm.tqdm.format_interval(left_s)
      parts += [f"{rate:.2g} a second", f"{left} left"]
    if self._num_failed:
      parts.append(f"{self._num_failed} failed")
    return ", ".join(parts)

  def _count(self, num_more: int, line: str):
    self._num_done += num_more
    self._bar.update(num_more)
    now = time.monotonic()
    if self._bar.disable and now - self._told >= self._silent_s:
      self._told = now
      logging.info("%s; %s", self.describe(), line)

  def __enter__(self) -> "Progress":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ):
    self._bar.close()
