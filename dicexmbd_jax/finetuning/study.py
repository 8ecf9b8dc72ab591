"""A study's model, from labelled images to a model folder, in a given time."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax import magnification, predict, sections
from dicexmbd_jax.finetuning import (
  advice,
  fit,
  judge,
  patches,
  split,
  training,
)
from dicexmbd_jax.finetuning.samples import Sample
from dicexmbd_jax.io import json_file, write
from dicexmbd_jax.model import weights
from dicexmbd_jax.model.unet import UNet
from dicexmbd_jax.train import processes
from dicexmbd_jax.types import Labels, Network

Path = pathlib.Path
WORK, APART, RESULT = "work", "not_better", "finetune.json"
_PLAN = "plan.json"
_SHOWN = "magnification.json"
_SETTINGS = "settings.json"
# Of the time: what simulating, fitting the settings, and trying magnifications
# may take.
_REHEARSAL_SHARE, _FIT_SHARE, _FACTOR_SHARE = 0.05, 0.08, 0.1
_MAX_TRIED = 4  # Images that magnifications are tried on.
_REPORT_S = 12.0  # Simulated tissue, pictures and page, on two cores.
_SLACK = 1.5  # Other work on the machine may slow the end down.


@dataclasses.dataclass(frozen=True)
class TunePlan:
  """What a fine-tuning is asked for.

  Attributes:
    output: the model folder to be.
    start: the model folder to start from.
    minutes: of all the work, from `started_s` on.
    started_s: on time.monotonic's clock.
    seed: of the division, the crops and the augmentation.
  """

  output: Path
  start: Path
  minutes: float
  started_s: float
  seed: int = 0

  @property
  def deadline_s(self) -> float:
    """When all has to be done, on time.monotonic's clock."""
    return self.started_s + 60 * self.minutes


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """A fine-tuned model, and how good it is.

  Attributes:
    folder: its model folder; `not_better/` in the output where it is not
      better than the start.
    is_better: beyond chance, on the images that judge.
    is_complete: whether the time was used up; else the same call goes on.
    verdict: in one line.
    scores: `before` and `after`, see judge.Verdict.summarise.
    advice: in words, one line each.
    details: what else the report tells.
    shown: the images that judge.
    verdicts: on these, before and after.
  """

  folder: Path
  is_better: bool
  is_complete: bool
  verdict: str
  scores: Mapping[str, Mapping[str, float]]
  advice: tuple[str, ...]
  details: Mapping[str, Any]
  shown: tuple[judge.Shown, ...] = ()
  verdicts: tuple[judge.Verdict, ...] = ()


class Tuning:
  """One fine-tuning: what its steps share."""

  def __init__(
    self, samples: Sequence[Sample], plan: TunePlan, config: ConfigDict
  ):
    """Reads the start model and divides the images.

    Raises:
      ValueError: no model, or another study's work in the output folder.
    """
    self.samples, self.plan, self.config = samples, plan, config
    self.work = plan.output / WORK
    self.model, _ = weights.read_model(plan.start, config.model.dtype)
    self.division = split.divide(samples, plan.seed)
    self.references: dict[str, Labels] = {}
    check_work(self.work, describe_inputs(samples, plan, config))

  def finish(self) -> Result:
    """Does all of the work; returns what came out.

    Raises:
      FloatingPointError, ValueError, OSError: as training.train.
    """
    first_pass, network = predict.load_passes(
      self.model, self.config.predict, magnification.WINDOW_PX
    )
    factors = self.find_factors(first_pass)
    judged_s = time.monotonic()
    before = self.judge_start(network, factors)
    judged_s = time.monotonic() - judged_s
    logging.info(
      "%s; F1 %.3f before, of %d labelled %s",
      self.division.way, before.f1, before.num_wanted,
      advice.name_unit(self.samples[0].kind),
    )  # fmt: skip
    factor = self.choose_factor(network, tuple(factors.values()))
    config = self.config.copy_and_resolve_references()
    with config.predict.ignore_type():
      config.predict.magnification = factor
    shown = self.show(dict.fromkeys(factors, config.predict.magnification))
    self.write_records(config)
    course, is_complete, config = self.train(config, shown, judged_s)
    with training.restore_handlers():
      return self.conclude(
        config, shown, (before, course, is_complete), tuple(factors.values())
      )  # fmt: skip

  def find_factors(self, first_pass: Network) -> dict[str, float]:
    """Returns the magnification that prediction would give each image."""
    fixed = self.config.predict.magnification
    if fixed != sections.AUTO:
      return {sample.name: float(fixed) for sample in self.samples}
    return {
      sample.name: magnification.choose_magnification(
        patches.show_image(sample, 1.0, self.config), self.config, first_pass
      )
      for sample in self.samples
    }

  def choose_factor(self, network: Network, factors: Sequence[float]) -> float:
    """Returns the magnification that all images are shown at from now on.

    The start's median, or what the labels say is better; a run that goes on
    keeps its own.
    """
    path = self.work / _SHOWN
    if (self.work / training.CLOCK).exists() and path.exists():
      return float(json_file.read_json(path)["magnification"])
    factor = round(float(np.median(factors)), 2)
    if self.config.predict.magnification == sections.AUTO:
      step = -(-len(self.samples) // _MAX_TRIED)
      tried = self.samples[::step]
      deadline_s = time.monotonic() + _FACTOR_SHARE * 60 * self.plan.minutes

      def score(factor: float) -> float:
        shown = [self.show_sample(one, one.is_covered, factor) for one in tried]
        maps = judge.predict_maps(shown, network)
        f1 = judge.judge_maps(shown, maps, self.config).f1
        logging.info("at magnification %g: F1 %.3f", factor, f1)
        return f1

      factor = fit.fit_magnification(score, factor, deadline_s)
    write.write_json(path, {"magnification": factor})
    return factor

  def show_sample(
    self, sample: Sample, is_judged: Bool[np.ndarray, "y x"], factor: float
  ) -> judge.Shown:
    """Returns an image as the network sees it, and where it judges."""
    image = patches.show_image(sample, factor, self.config)
    if sample.name not in self.references:
      found = judge.find_reference(sample, self.config)
      self.references[sample.name] = found
    reference = self.references[sample.name]
    return judge.Shown(sample, is_judged, factor, image, reference)

  def show(self, factors: Mapping[str, float]) -> list[judge.Shown]:
    """Returns the images that judge, at these magnifications."""
    judges = self.division.judges
    return [
      self.show_sample(sample, judges[sample.name], factors[sample.name])
      for sample in self.samples
      if sample.name in judges
    ]

  def judge_start(
    self, network: Network, factors: Mapping[str, float]
  ) -> judge.Verdict:
    """Judges the start as its users have it."""
    shown = self.show(factors)
    maps = judge.predict_maps(shown, network)
    return judge.judge_maps(shown, maps, self.config)

  def write_records(self, config: ConfigDict) -> None:
    """Writes what is trained on, unless a run before has; see patches."""
    if (self.work / training.CLOCK).exists():
      return
    planned = training.plan_training(
      config, self.work, self.plan.seed, find_crop_px(config)
    )
    budget_s = _REHEARSAL_SHARE * 60 * self.plan.minutes
    own, other = (
      self.work / name for name in (training.OWN, training.REHEARSAL)
    )
    for folder in (own, other):
      shutil.rmtree(folder, ignore_errors=True)
    number = patches.write_own(
      own, self.samples, self.division.trains,
      config.predict.magnification, planned,
    )  # fmt: skip
    patches.write_rehearsal(
      other, planned, self.samples[0].kind, (budget_s, self.plan.seed)
    )
    logging.info("%d patches of labelled images", number)

  def train(
    self, config: ConfigDict, shown: Sequence[judge.Shown], judged_s: float
  ) -> tuple[training.Course, bool, ConfigDict]:
    """Trains as long as the plan allows."""
    planned = training.plan_training(
      config, self.work, self.plan.seed, find_crop_px(config)
    )

    def score(model: UNet) -> float:
      maps = judge.predict_maps(shown, load_network(model, config))
      return judge.judge_maps(shown, maps, config).f1

    start_f1 = score(self.model)
    spent_s = training.read_course(self.work, start_f1)[1]
    end_s = _SLACK * (judged_s + _REPORT_S)
    end_s += _FIT_SHARE * 60 * self.plan.minutes
    budget_s = self.plan.deadline_s - time.monotonic() - end_s
    least_s = 0.1 * 60 * self.plan.minutes
    if budget_s < least_s:
      logging.warning(
        "--minutes=%g: found %.0f s left for training after all else, "
        "expected more; training takes %.0f s",
        self.plan.minutes, max(budget_s, 0), least_s,
      )  # fmt: skip
    course, is_complete = training.train(
      self.model, planned, self.work, score,
      (max(budget_s, least_s) + spent_s, start_f1),
    )  # fmt: skip
    return course, is_complete, planned

  def conclude(
    self,
    config: ConfigDict,
    shown: Sequence[judge.Shown],
    course: tuple[judge.Verdict, training.Course, bool],
    factors: tuple[float, ...],
  ) -> Result:
    """Fits the settings of the best network, exports and judges it.

    A signal ends the fit; what was found is exported all the same.
    """
    before, found, is_complete = course
    best = self.work / "best"
    has_learnt = (best / weights.CONFIG).is_file()
    model = self.model
    if has_learnt:
      model, _ = weights.read_model(best, config.model.dtype)
    maps = judge.predict_maps(shown, load_network(model, config))
    # As a run before has fitted them, which may have had more time for it.
    config = self.restore_settings(config)
    if is_complete:
      stop = processes.StopRequest()
      deadline_s = self.plan.deadline_s - _SLACK * _REPORT_S

      def is_over() -> bool:
        return stop.is_due(0) or time.monotonic() > deadline_s

      config = fit.fit_settings(shown, maps, config, is_over, logging.info)
      self.keep_settings(config)
      is_complete = not stop.is_due(0)
    after = judge.judge_maps(shown, maps, config)
    difference = judge.compare(after, before)
    simulated = self.compare_simulated(model, config)
    details = {
      "way": self.division.way,
      "judged_by": advice.name_unit(self.samples[0].kind),
      "history": found.history,
      "num_steps": found.num_steps,
      "simulated": simulated,
      "factors": factors,
      "has_learnt": has_learnt,
      "settings": list_changes(self.config, config),
    }
    result = Result(
      folder=self.plan.output,
      is_better=advice.is_better(difference),
      is_complete=is_complete,
      verdict=advice.say_verdict(difference, before.f1, after.f1),
      scores={"before": before.summarise(), "after": after.summarise()},
      advice=tuple(advice.advise(self.samples, (before, after), details)),
      details=details | {"difference": difference},
      shown=tuple(shown),
      verdicts=(before, after),
    )
    return export(result, model, config)

  def keep_settings(self, config: ConfigDict) -> None:
    """Writes the fitted settings for a call that goes on."""
    values = {name: config.segment[name] for name in fit.GRID}
    write.write_json(self.work / _SETTINGS, values)

  def restore_settings(self, config: ConfigDict) -> ConfigDict:
    """Returns the configuration with the settings that were fitted before."""
    path = self.work / _SETTINGS
    restored = config.copy_and_resolve_references()
    if path.exists():
      for name, value in json_file.read_json(path).items():
        fit.set_value(restored, name, value)
    return restored

  def compare_simulated(
    self, model: UNet, config: ConfigDict
  ) -> tuple[float, float]:
    """Returns F1 on simulated tissue that nothing has seen, before and after.

    Both at the network's own pixel size, judged by cells.
    """
    shown = [
      judge.Shown(
        sample,
        np.ones(sample.is_covered.shape, bool),
        1.0,
        patches.show_image(sample, 1.0, config),
        sample.objects,
      )
      for sample in patches.simulate_judging(
        config, self.samples[0].kind, self.plan.seed
      )
    ]
    pair = []
    for one, settings in ((self.model, self.config), (model, config)):
      network, _ = predict.load_passes(
        one, config.predict, magnification.WINDOW_PX
      )
      maps = judge.predict_maps(shown, network)
      pair.append(judge.judge_maps(shown, maps, settings).f1)
    return pair[0], pair[1]


def load_network(model: UNet, config: ConfigDict) -> Network:
  """Returns a network as prediction uses it: nothing new is compiled."""
  _, network = predict.load_passes(
    model, config.predict, magnification.WINDOW_PX
  )
  return network


def find_crop_px(config: ConfigDict) -> int | None:
  """Returns the crops' edge that the model was trained with, if it is known."""
  crop_px = config.get("train", {}).get("crop_px")
  return None if crop_px is None else int(crop_px)


def list_changes(before: ConfigDict, after: ConfigDict) -> dict[str, Any]:
  """Returns the settings that the new model has and the start has not."""
  return {
    f"{section}.{name}": value
    for section in ("predict", "segment")
    for name, value in after[section].items()
    if before[section].get(name) != value
  }


def export(result: Result, model: UNet, config: ConfigDict) -> Result:
  """Writes the model folder, or not_better/ in it, and the numbers.

  Returns:
    The result, which knows its folder.

  Raises:
    OSError: the folder cannot be written.
  """
  output = result.folder
  folder = output if result.is_better else output / APART
  numbers = {
    name: value
    for name, value in result.scores["after"].items()
    if np.isfinite(value)
  }
  weights.write_model(folder, model, config, numbers=numbers)
  write.write_text(folder / "README.md", describe_model(result, folder))
  if result.is_better:
    shutil.rmtree(output / APART, ignore_errors=True)
  elif result.is_complete:
    # Of a run before that stopped earlier.
    for name in (weights.CONFIG, "params.npz", weights.NUMBERS, "README.md"):
      (output / name).unlink(missing_ok=True)
  result = dataclasses.replace(result, folder=folder)
  write.write_json(output / RESULT, describe_result(result))
  return result


def describe_result(result: Result) -> dict[str, Any]:
  """Returns what finetune.json tells."""
  details = {k: v for k, v in result.details.items() if k != "factors"}
  return {
    "model": str(result.folder),
    "is_better": result.is_better,
    "is_complete": result.is_complete,
    "verdict": result.verdict,
    "scores": {
      name: {word: _fill(value) for word, value in scores.items()}
      for name, scores in result.scores.items()
    },
    "advice": list(result.advice),
    **details,
    "difference": [_fill(value) for value in details["difference"]],
    "magnifications": result.details["factors"],
  }


def _fill(value: float) -> float | None:
  """Returns a number as JSON has it, which knows no NaN."""
  return value if np.isfinite(value) else None


def describe_model(result: Result, folder: Path) -> str:
  """Returns the model card, Markdown."""
  after, unit = result.scores["after"], result.details["judged_by"]
  score = "F1 at IoU 0.5" if unit == "objects" else "F1"
  lines = [
    f"# {folder.resolve().name}",
    "",
    f"Fine-tuned on labelled images; {result.verdict}.",
    "",
    f"- Divided {result.details['way']}",
    f"- {score} of {after['num_labelled']:g} labelled {unit}: "
    f"{after['f1']:.3f} ({after['f1_low']:.3f} to {after['f1_high']:.3f})",
    f"- {result.details['num_steps']} steps",
    *(
      f"- `{name}`: {value}"
      for name, value in result.details["settings"].items()
    ),
    *(f"- {line}" for line in result.advice),
    "",
    f"Use: `python -m dicexmbd_jax predict --checkpoint={folder} ...`",
    "",
  ]
  return "\n".join(lines)


def describe_inputs(
  samples: Sequence[Sample], plan: TunePlan, config: ConfigDict
) -> dict[str, Any]:
  """Returns what tells one fine-tuning from another: not its minutes."""
  digest = hashlib.sha256()
  for sample in sorted(samples, key=lambda sample: sample.name):
    digest.update(sample.name.encode())
    for array in (
      sample.record.image, sample.cells, sample.nuclei, sample.membrane,
      sample.maps, sample.is_covered,
    ):  # fmt: skip
      digest.update(b"-" if array is None else np.ascontiguousarray(array))
  image, segment = (
    json.dumps(config[name].to_dict(), sort_keys=True)
    for name in ("image", "segment")
  )
  sizes_um = {sample.name: sample.record.pixel_size_um for sample in samples}
  return {
    "labelled": digest.hexdigest(),
    "start": config_lib.hash_model(plan.start),
    "image": image,
    "segment": segment,
    "seed": plan.seed,
    "pixel_size_um": sizes_um,
    "magnification": config.predict.magnification,
  }


def has_begun(output: Path) -> bool:
  """Returns whether a folder holds the work of a fine-tuning."""
  return (output / WORK / _PLAN).is_file()


def check_work(work: Path, inputs: Mapping[str, Any]) -> None:
  """Raises a ValueError where another fine-tuning has begun in the folder.

  Else it notes what this one is made of.
  """
  path = work / _PLAN
  if path.exists():
    found = json_file.read_json(path)
    changed = [name for name in inputs if found.get(name) != inputs[name]]
    if changed:
      words = {
        "labelled": "other images or labels",
        "start": "another start",
        "pixel_size_um": "another pixel size",
        "image": "other settings of image",
        "segment": "other settings of segment",
      }
      raise ValueError(
        f"{work.parent}: found the work of a fine-tuning with "
        f"{words.get(changed[0], f'another {changed[0]}')}, expected another "
        "--output, or --overwrite"
      )
  write.write_json(path, inputs)
