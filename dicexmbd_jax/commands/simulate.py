"""The command `simulate`: a study of synthetic tissue with known truth."""

import dataclasses
import pathlib
import time

from absl import logging

from dicexmbd_jax.io import write
from dicexmbd_jax.simulate import study


@dataclasses.dataclass(frozen=True)
class Request:
  """What to simulate: the arguments of `simulate.study.simulate_study`."""

  output: str
  num_images: int
  seed: int
  size_px: int


def run(flags) -> int:
  """Writes the study; see `simulate.study.simulate_study` for the files.

  Args:
    flags: output, num_images, seed, size_px.

  Returns:
    0: done; 2: a flag is out of range or the output cannot be written.
  """
  return run_request(
    Request(flags.output, flags.num_images, flags.seed, flags.size_px)
  )


def run_request(request: Request) -> int:
  """Does what is asked for; returns the exit code, as `run`."""
  start_s = time.perf_counter()
  try:
    write.sweep_temporary(pathlib.Path(request.output))
    for image in study.simulate_study(**dataclasses.asdict(request)):
      logging.info(
        "%s: %d cells, %s tissue", image.path, image.num_cells, image.style
      )
  except ValueError as error:
    logging.error("simulate: --%s", error)
    return 2
  except OSError as error:
    reason = error.strerror or error
    logging.error(
      "%s: found %s, expected a folder to write to", request.output, reason
    )
    return 2
  seconds = time.perf_counter() - start_s
  logging.info("%d images in %.0f s", request.num_images, seconds)
  return 0
