"""`finetune`: from a few labelled images to a model for their study.

Exit codes: 0 done; 1 done, but some files could not be used; 2 wrong call; 75
asked to stop: the best model so far is there, and the same call goes on.
"""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.finetuning import advice, reading, samples, study
from dicexmbd_jax.io import metadata, write
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.report import change_pictures, tune_page
from dicexmbd_jax.report.page import NO_VALUE
from dicexmbd_jax.runs import lock
from dicexmbd_jax.runs.failures import FailureLog, refuse_call

Path = pathlib.Path
STOPPED = 75  # sysexits.h: a temporary failure, try again.
MAX_PICTURES = 4
_FOLDERS = ("cells", "nuclei", "membrane", "maps")
_FLAGS = ("--masks", "--nuclei", "--membrane", "--teacher")


@dataclasses.dataclass(frozen=True)
class Request:
  """What to learn from, with what, into which folder; checked.

  Attributes:
    images: folder, file or glob.
    output: the model folder to be.
    config: the start model's configuration.
    labels: folders of labels, by what they are: cells, nuclei, membrane, maps.
    panel_path: which channels are what; None for two-channel stacks.
    start: the model folder to start from.
    minutes: of all the work.
    labelled: what the labels cover: image, rectangle or cells.
    pixel_size_um: of all images, or None: as each image's metadata says.
    seed: decides everything random.
    overwrite: whether another study's work in the output folder goes.
  """

  images: str
  output: Path
  config: ConfigDict
  labels: dict[str, str]
  panel_path: Path | None = None
  start: Path = config_lib.SHIPPED_MODEL
  minutes: float = 60.0
  labelled: str = samples.WHOLE
  pixel_size_um: float | None = None
  seed: int = 0
  overwrite: bool = False

  def __post_init__(self):
    """Raises a ValueError, one line, where the call cannot be done."""
    given = set(self.labels)
    if not given:
      raise ValueError(f"found no labels, expected one of {', '.join(_FLAGS)}")
    if len(given) > 1 and given != {"cells", "nuclei"}:
      raise ValueError(
        f"found labels of {' and '.join(sorted(given))}, expected one kind, or "
        "--masks with --nuclei"
      )
    if not self.minutes > 0:
      raise ValueError(f"--minutes: found {self.minutes:g}, expected more")
    if self.labelled not in samples.LABELLED:
      raise ValueError(
        f"--labelled: found {self.labelled}, expected one of "
        f"{', '.join(samples.LABELLED)}"
      )
    if self.seed < 0:
      raise ValueError(f"--seed: found {self.seed}, expected 0 or more")
    if self.pixel_size_um is not None:
      metadata.check_pixel_size("--pixel_size_um", self.pixel_size_um)
    check_output(self.output, self.start)
    trained = config_lib.read_model_config(self.start)
    config_lib.check_model_section(self.config, trained)
    if config_lib.flatten(self.config.get("train", ConfigDict())) != (
      config_lib.flatten(trained.get("train", ConfigDict()))
    ):
      raise ValueError(
        "--config.train: found other values than the model's, expected none: "
        "finetune plans its training itself; train takes all of them"
      )


# A model, a study, what `predict`, `segment` and `evaluate` leave, and what
# would be written over or removed.
_OF_OTHERS = (
  "config.json", "img", "run.json", "state", "shards", "masks", "images.csv",
  "scores.html", "README.md", "params.npz", "report.html", "failures.csv",
  study.APART, study.WORK,
)  # fmt: skip


def check_output(output: Path, start: Path) -> None:
  """Raises a ValueError where something else would be written over."""
  if start.resolve() == output.resolve():
    raise ValueError(
      f"--output: found {output}, the model to start from, expected another "
      "folder"
    )
  others = [name for name in _OF_OTHERS if (output / name).exists()]
  if others and not study.has_begun(output):
    raise ValueError(
      f"--output: found something else in {output} ({others[0]}), expected a "
      "new folder or that of an earlier finetune, with its work/"
    )


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: images, panel, masks, nuclei, membrane, teacher, output, checkpoint,
      minutes, labelled, pixel_size_um, seed, overwrite, config.
  """
  started_s = time.monotonic()
  try:
    words = (
      read_masks(flags.masks), flags.nuclei, flags.membrane, flags.teacher
    )  # fmt: skip
    request = Request(
      images=flags.images,
      output=Path(flags.output),
      config=flags.config,
      labels={
        name: word for name, word in zip(_FOLDERS, words, strict=True) if word
      },
      panel_path=Path(flags.panel) if flags.panel else None,
      start=Path(flags.checkpoint or config_lib.SHIPPED_MODEL),
      minutes=flags.minutes,
      labelled=flags.labelled,
      pixel_size_um=flags.pixel_size_um,
      seed=flags.seed,
      overwrite=flags.overwrite,
    )
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  return run_request(request, started_s)


def read_masks(words: Sequence[str] | None) -> str | None:
  """Returns the one folder of masks; other commands take several.

  Raises:
    ValueError: there are several.
  """
  if words and len(words) > 1:
    raise ValueError(f"--masks: found {len(words)} folders, expected one")
  return words[0] if words else None


def run_request(request: Request, started_s: float) -> int:
  """Does what is asked for; returns the exit code.

  Args:
    request: the call.
    started_s: when it began, on time.monotonic's clock.
  """
  log = FailureLog()
  plan = study.TunePlan(
    request.output, request.start, request.minutes, started_s, request.seed
  )
  try:
    found = read_inputs(request, log)
    result = tune(found, plan, request.config, request.overwrite)
    log.write(request.output)
  except (FloatingPointError, ValueError, OSError) as error:
    return refuse_call(error, request.output)
  return tell_result(result, log)


def tune(
  found: Sequence[samples.Sample],
  plan: study.TunePlan,
  config: ConfigDict,
  overwrite: bool = False,
) -> study.Result:
  """Makes the model and its report; nobody else may write there meanwhile.

  Args:
    found: the labelled images.
    plan: with an output folder that check_output takes.
    config: of the start.
    overwrite: whether an earlier fine-tuning there is begun anew.

  Raises:
    FloatingPointError, ValueError, OSError: it cannot be done; one line.
  """
  with lock.hold(plan.output / ".lock"):
    if overwrite:
      shutil.rmtree(plan.output / study.WORK, ignore_errors=True)
    write.sweep_temporary(plan.output)
    result = study.Tuning(found, plan, config).finish()
    write_report(result, found, plan.output)
  return result


def read_inputs(request: Request, log: FailureLog) -> list[samples.Sample]:
  """Reads the labelled images, and tells what is doubtful.

  Raises:
    ValueError: nothing that can be used.
  """
  path = request.panel_path
  panel = read_panel(path) if path else None
  found = reading.read_samples(
    request.images,
    panel,
    request.labels,
    (request.config.image, request.pixel_size_um, request.labelled),
    log,
  )
  number = count_labels(found, next(iter(request.labels.values())))
  # Of membrane or maps there are none.
  objects = f" with {number} labelled objects" if number else ""
  logging.info("%d labelled images%s", len(found), objects)
  for line in {line: None for one in found for line in one.doubts}:
    logging.warning("%s", line)
  if len(found) == 1:
    logging.warning(
      "one image only: a part of it judges the model, which says nothing of "
      "other images"
    )
  return found


def count_labels(found: Sequence[samples.Sample], place: str) -> int:
  """Returns the number of labelled objects.

  Raises:
    ValueError: labels are masks, and there is none; it names the place.
  """
  number = advice.count_labels(found)
  if not number and found[0].kind in ("cells", "nuclei"):
    raise ValueError(
      f"{place}: found no cell in any of {len(found)} images, expected some"
    )
  return number


def tell_result(result: study.Result, log: FailureLog) -> int:
  """Says what came out; returns the exit code."""
  logging.info("%s", result.verdict)
  for line in result.advice:
    logging.info("- %s", line)
  logging.info("model: %s%s", result.folder, log.describe())
  if not result.is_complete:
    logging.info("stopped; the same call goes on")
    return STOPPED
  return 1 if log else 0


def write_report(
  result: study.Result, found: Sequence[samples.Sample], output: Path
) -> None:
  """Writes report.html.

  Raises:
    OSError: it cannot be written.
  """
  before, after = result.verdicts
  pictures = [
    (
      one.sample.name,
      change_pictures.draw_change(
        one.sample.record.image,
        after.wanted[one.sample.name],
        before.found[one.sample.name],
        after.found[one.sample.name],
      ),
    )
    for one in result.shown[:MAX_PICTURES]
  ]
  details = result.details
  rows = {
    "Images": ", ".join(sample.name for sample in found),
    "Divided": details["way"],
    "Labelled objects": advice.count_labels(found) or NO_VALUE,
    "Steps": details["num_steps"],
    "Weights": "learnt" if details["has_learnt"] else "as before",
    "Settings": ", ".join(
      f"{name} = {value}" for name, value in details["settings"].items()
    ),
    "F1 on simulated tissue": "{:.3f} before, {:.3f} after".format(
      *details["simulated"]
    ),
  }
  page = tune_page.render_tune_page(
    tune_page.TuneReport(
      verdict=result.verdict,
      is_better=result.is_better,
      scores=result.scores,
      advice=result.advice,
      history=details["history"],
      details=rows,
      pictures=pictures,
      what=found[0].kind.replace("maps", "cells"),
    )
  )
  write.write_text(output / "report.html", page)
