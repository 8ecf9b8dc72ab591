"""How far a run is: a bar in a terminal, plain log lines elsewhere."""

import sys
from types import TracebackType

import tqdm
from absl import logging


class Progress:
  """Counts the images that are done, as a context manager.

  Args:
    num_images: how many there are.
    unit: what they are called in the bar.
    num_done: how many were done before.
  """

  def __init__(self, num_images: int, unit: str = "image", num_done: int = 0):
    self._num_images = num_images
    self._num_done = num_done
    self._bar = tqdm.tqdm(
      total=num_images,
      unit=unit,
      initial=num_done,
      disable=not sys.stderr.isatty() or num_images == 0,
    )

  def tell(self, line: str, num_more: int = 1):
    """Counts images as done; `line` says what came out."""
    self._num_done += num_more
    self._bar.update(num_more)
    if self._bar.disable:
      logging.info("[%d/%d] %s", self._num_done, self._num_images, line)
    else:
      self._bar.set_postfix_str(line)

  def note(self, line: str):
    """Writes a line that stays, above the bar where there is one."""
    if self._bar.disable:
      logging.info("%s", line)
    else:
      self._bar.write(line, file=sys.stderr)

  def __enter__(self) -> "Progress":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ):
    self._bar.close()
