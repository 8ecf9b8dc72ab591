"""The command `simulate`: a study of synthetic tissue with known truth."""

import time

from absl import logging


def run(flags) -> int:
  """Writes the study; see `simulate.study.simulate_study` for the files.

  Args:
    flags: output, num_images, seed, size_px.

  Returns:
    0: done; 2: a flag is out of range or the output cannot be written.
  """
  from dicexmbd_jax.simulate import study

  start_s = time.perf_counter()
  written = study.simulate_study(
    flags.output, flags.num_images, flags.seed, flags.size_px
  )
  try:
    for image in written:
      logging.info(
        "%s: %d cells, %s tissue", image.path, image.num_cells, image.style
      )
  except ValueError as error:
    logging.error("simulate: --%s", error)
    return 2
  except OSError as error:
    reason = error.strerror or error
    logging.error(
      "%s: found %s, expected a folder to write to", flags.output, reason
    )
    return 2
  seconds = time.perf_counter() - start_s
  logging.info("%d images in %.0f s", flags.num_images, seconds)
  return 0
