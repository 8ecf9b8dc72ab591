"""How fast a run trains: images per second, and the share of the peak."""

import time

import jax
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
    edge_px = config.train.crop_px
    flops = metrics.count_flops(config.model, edge_px, edge_px)
    peak = chips.peak_flops(jax.devices()[0].device_kind, config.model.dtype)
    self.batch_size = config.train.batch_size
    self.flops_per_image = 3 * flops
    self.peak_flops = peak and peak * jax.device_count()
    self.restart(step)

  def restart(self, step: int):
    """Starts to count after a step."""
    self._step, self._start_s = step, time.perf_counter()

  def read(self, step: int) -> dict[str, float]:
    """Returns the rates since the last look, and starts anew.

    Args:
      step: the last one that is done, on the device too.
    """
    seconds = time.perf_counter() - self._start_s
    num_steps = step - self._step
    self.restart(step)
    if not num_steps:
      return {}
    rate = num_steps * self.batch_size / seconds
    found = {"images_per_second": rate}
    if self.peak_flops:
      found["mfu"] = rate * self.flops_per_image / self.peak_flops
    return found
