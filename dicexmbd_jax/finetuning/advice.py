"""What the numbers of a fine-tuning mean, in words."""

import math
from collections.abc import Mapping, Sequence

from dicexmbd_jax.finetuning import judge
from dicexmbd_jax.finetuning.samples import Sample, count_objects
from dicexmbd_jax.scores import known

FEW_OBJECTS = 100  # Fewer judge to a few hundredths only.
FEW_IMAGES = 8
_LOST = 0.05  # Of F1 on simulated tissue.
_SPREAD = 1.3  # Largest magnification over the smallest.
_COUNT = 0.15
_STEEP = 0.01  # Of F1, in the last third of the training.
_SAME_DOUBTS = 3  # Images and lines of one kind; more are counted.


def is_better(difference: tuple[float, float, float]) -> bool:
  """Returns whether a model is better beyond chance.

  Args:
    difference: of F1, and its 95 % interval.
  """
  mean, low, _ = difference
  # Without an interval (too few labels) nothing is shown.
  return mean > 0 and math.isfinite(low) and low > 0


def say_verdict(
  difference: tuple[float, float, float], before: float, after: float
) -> str:
  """Says in one line whether the model is better than the start."""
  mean, low, high = difference
  scores = f"F1 {before:.3f} before, {after:.3f} after"
  if not math.isfinite(low):
    return f"not shown to be better: too few labels to judge by ({scores})"
  interval = f"difference {mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"
  if is_better(difference):
    return f"better: {scores}; {interval}"
  return f"not better: {scores}; {interval}"


def advise(
  samples: Sequence[Sample],
  verdicts: tuple[judge.Verdict, judge.Verdict],
  notes: Mapping[str, object],
) -> list[str]:
  """Returns advice, most important first, one line each.

  Args:
    samples: all labelled images.
    verdicts: before and after.
    notes: `way` (of the division), `history` ((seconds, F1) of validations),
      `simulated` (F1 on simulated tissue before and after, or None) and
      `factors` (the magnification that each image would get).
  """
  lines = [
    *_judge_number(samples, verdicts[1], str(notes["way"])),
    *_judge_count(verdicts[1], name_unit(samples[0].kind)),
    *_judge_course(notes),
    *_judge_sizes(notes),
  ]
  doubts = [line for sample in samples for line in sample.doubts]
  return [*lines, *_shorten(doubts)]


def _judge_number(
  samples: Sequence[Sample], after: judge.Verdict, way: str
) -> list[str]:
  number, lines = len(samples), []
  if number == 1:
    lines.append(
      "One image only: the model was judged on another part of the same "
      "image, which says nothing of other images; label a second one"
    )
  elif number < FEW_IMAGES:
    lines.append(
      f"{number} images: do not trust the third decimal, and the second only "
      "as far as the interval goes"
    )
  if "slide" not in way and number > 1:
    lines.append(
      "Images that judge may come from slides that were trained on: on a new "
      "slide expect a little less"
    )
  objects = after.num_wanted
  if samples[0].kind != "membrane" and objects < FEW_OBJECTS:
    lines.append(
      f"{objects} labelled objects judge the model: differences of a few "
      "hundredths are chance"
    )
  lines.append(
    "Settings and the best moment of the training were chosen on the images "
    "that judge, so the score after is a little too high"
  )
  return lines


def name_unit(kind: str) -> str:
  """Returns what is counted of labels of a kind, see samples.KINDS."""
  return "pixels" if kind == "membrane" else "objects"


def _judge_count(after: judge.Verdict, unit: str) -> list[str]:
  error = after.summarise()["count_error"]
  if not abs(error) >= _COUNT:  # It may be NaN.
    return []
  more = "more" if error > 0 else "fewer"
  return [
    f"The model finds {abs(error):.0%} {more} {unit} than were labelled: see "
    "the pictures, whether the labels or the model are wrong"
  ]


def _judge_course(notes: Mapping) -> list[str]:
  lines, history = [], notes["history"]
  if len(history) >= 3:
    third = max(len(history) // 3, 1)
    early = max(f1 for _, f1 in history[:-third])
    if history[-1][1] > early + _STEEP:
      lines.append(
        "The score was still rising at the end: the same call with more "
        "--minutes goes on and may gain"
      )
  pair = notes["simulated"]
  if pair and pair[1] < pair[0] - _LOST:
    lines.append(
      f"On simulated tissue the model went from F1 {pair[0]:.2f} to "
      f"{pair[1]:.2f}: use it for this study and the shipped one for others"
    )
  return lines


def _judge_sizes(notes: Mapping) -> list[str]:
  factors = list(notes["factors"])
  if max(factors) < _SPREAD * min(factors):
    return []
  return [
    f"Nuclei differ in size between the images (they would be shown "
    f"{min(factors):g} to {max(factors):g} times as large as they are); all "
    "are shown alike: where these are different tissues, make a model of each"
  ]


def _shorten(doubts: Sequence[str]) -> list[str]:
  """Writes a doubt that images share once, and counts where many are alike."""
  images: dict[str, list[str]] = {}
  for name, _, text in (line.partition(": ") for line in doubts):
    images.setdefault(text, []).append(name)
  kinds: dict[str, list[str]] = {}
  for text, names in images.items():
    line = f"{_list_some(names)}: {text}"
    kinds.setdefault(text[:30], []).append(line)
  lines = []
  for kind, alike in kinds.items():
    lines += alike[:_SAME_DOUBTS]
    if len(alike) > _SAME_DOUBTS:
      lines.append(f"and {len(alike) - _SAME_DOUBTS} times more: {kind} ...")
  return lines


def _list_some(names: Sequence[str]) -> str:
  more = len(names) - _SAME_DOUBTS
  shown = ", ".join(names[:_SAME_DOUBTS])
  return f"{shown} and {more} more" if more > 0 else shown


def count_labels(samples: Sequence[Sample]) -> int:
  """Returns the number of labelled objects where labels count."""
  return sum(
    count_objects(known.keep_known(sample.objects, sample.is_covered))
    for sample in samples
  )
