"""`benchmark`: this system, the paper's baselines and other tools' masks.

It is the paper's figure 2 on one's own data: every method gets the same two
channels of the same images and is judged against the same reference.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.commands import evaluate, predict
from dicexmbd_jax.io import pairing, panel
from dicexmbd_jax.runs.baselines import BASELINES, run_baselines
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.types import Panel

Path = pathlib.Path

OURS = "dicexmbd_jax"


@dataclasses.dataclass(frozen=True)
class Request:
  """What runs, and what is compared.

  Attributes:
    model: how this system runs.
    scores: what is compared, with which reference.
    baseline_config: the whole configuration, without what was fitted to the
      network.
  """

  model: predict.Request
  scores: evaluate.Request
  baseline_config: ConfigDict


def run(flags) -> int:
  """Runs all methods and evaluates them; returns the exit code.

  Each method's files go to OUTPUT/methods/NAME, this system's with all that
  `predict` writes; the comparison goes to OUTPUT, as `evaluate` writes it.
  References without an image are left out.

  Args:
    flags: images, panel, reference, output, masks (list of "name=DIR"),
      checkpoint, pixel_size_um, num_workers, overwrite, tolerance_px, seed,
      label_components, config, baseline_config.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  output = Path(flags.output)
  panel_path = Path(flags.panel) if flags.panel else None
  methods = {
    name: str(output / "methods" / name / "masks")
    for name in (OURS, *BASELINES)
  }
  try:
    request = Request(
      predict.Request(
        images=flags.images,
        output=output / "methods" / OURS,
        config=flags.config,
        panel_path=panel_path,
        model_path=Path(flags.checkpoint or config_lib.SHIPPED_MODEL),
        pixel_size_um=flags.pixel_size_um,
        num_workers=flags.num_workers,
        overwrite=flags.overwrite,
      ),
      evaluate.Request(
        methods={**methods, **parse_others(flags.masks or [])},
        reference=flags.reference,
        output=output,
        images=flags.images,
        panel_path=panel_path,
        tolerance_px=flags.tolerance_px,
        seed=flags.seed,
        label_components=flags.label_components,
      ),
      flags.baseline_config,
    )
  except (ValueError, OSError) as error:
    return refuse_call(error, output)
  return run_request(request)


def run_request(request: Request) -> int:
  """Does what is asked for; returns the exit code, as `run`."""
  model, scores, log = request.model, request.scores, FailureLog()
  try:
    rows = panel.read_panel(model.panel_path) if model.panel_path else None
    sources = list_judged(scores, rows, log)
  except (ValueError, OSError) as error:
    return refuse_call(error, scores.output)
  if predict.run_request(model) == 2:
    return 2
  run_baselines(
    list(sources.values()),
    rows,
    scores.output / "methods",
    request.baseline_config,
    model.pixel_size_um,
    model.num_workers,
    log,
  )
  return evaluate.run_request(scores, log, set(sources))


def parse_others(words: Sequence[str]) -> dict[str, str]:
  """Splits "name=DIR" of masks made elsewhere.

  Raises:
    ValueError: no name, or one that this command gives to a method of its own.
  """
  for word in words:
    name = word.partition("=")[0]
    if "=" not in word or name in (OURS, *BASELINES):
      raise ValueError(
        f"--masks: found {word!r}, expected name=DIR with a name other than "
        f"{', '.join((OURS, *BASELINES))}"
      )
  return evaluate.parse_methods(words, "masks")


def list_judged(
  request: evaluate.Request, rows: Panel | None, log: FailureLog
) -> pairing.Sources:
  """Lists the images that have a reference; logs those that have none.

  What cannot be listed is logged later, by `evaluate`.

  Raises:
    ValueError: there are no images or no references, or none fits.
  """
  images, _ = pairing.list_stacks(request.images or "", rows)
  references, _ = pairing.list_masks(evaluate.find_masks(request.reference))
  for stem, source in images.items():
    if stem not in references:
      line = f"{source.path}: found no reference {stem}, expected one"
      log.add(stem, source.path, ValueError(line))
  judged = {stem: images[stem] for stem in references if stem in images}
  if not judged:
    raise ValueError(
      f"{request.reference}: found no reference for any of the {len(images)} "
      f"images of {request.images}, expected files of the same names"
    )
  return judged
