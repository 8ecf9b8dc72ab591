"""Which labelled images train, and which judge the model."""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence, Set

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax.finetuning.samples import Sample
from dicexmbd_jax.scores import known

# Fewer images than this are each parted in two.
MIN_IMAGES = 4
JUDGE_SHARE = 0.2  # Of the images; at least one.
REGION_SHARE = 0.25  # Of an image's labels, where each image is parted.
MIN_SLIDES = 3
# What ends the name of one of a slide's images: ROI_003, _s0_a1_ac, -7.
_WORDS = "roi|acq|acquisition|fov|field|image|img|tile|core|crop|pos"
_TAIL = re.compile(
  rf"([_\- .]+({_WORDS}|a|s)?|{_WORDS})[_\- .]*\d+(_ac)?$", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True, eq=False)
class Division:
  """How the images are used.

  Attributes:
    trains: by image, where it may be trained on.
    judges: by image, where it judges; both on the image's grid.
    way: in words.
  """

  trains: Mapping[str, Bool[np.ndarray, "y x"]]
  judges: Mapping[str, Bool[np.ndarray, "y x"]]
  way: str


def divide(samples: Sequence[Sample], seed: int = 0) -> Division:
  """Divides images by slide, by image, or each one in two.

  Args:
    samples: checked, at least one.
    seed: decides which images judge.

  Raises:
    ValueError: one image under two names: a copy would judge what the other
      was trained on.
  """
  check_copies(samples)
  names = [sample.name for sample in samples]
  if len(names) < MIN_IMAGES:
    return divide_regions(samples)
  slides = {name: find_slide(name) for name in names}
  num_slides = len(set(slides.values()))
  by_slide = MIN_SLIDES <= num_slides < len(names)
  groups = slides if by_slide else {name: name for name in names}
  labelled = {sample.name for sample in samples if tells_objects(sample)}
  chosen = choose_judges(groups, labelled, seed)
  shapes = {sample.name: sample.is_covered.shape for sample in samples}
  trains = {n: np.ones(shapes[n], bool) for n in names if n not in chosen}
  judges = {n: np.ones(shapes[n], bool) for n in names if n in chosen}
  word = f"by slide ({num_slides} slides)" if by_slide else "by image"
  if num_slides == len(names) and set(slides.values()) != set(names):
    word = "by image, each of a slide of its own"
  return Division(
    trains,
    judges,
    f"{word}: {len(trains)} train, {len(judges)} judge ("
    f"{', '.join(sorted(judges))})",
  )


def check_copies(samples: Sequence[Sample]) -> None:
  """Raises a ValueError where two images have the same pixels.

  Images without any contrast, such as empty ones, may be alike.
  """
  names: dict[bytes, str] = {}
  for sample in samples:
    image = sample.record.image
    if not np.ptp(image):
      continue
    key = hashlib.sha256(np.ascontiguousarray(image)).digest()
    other = names.setdefault(key, sample.name)
    if other != sample.name:
      raise ValueError(
        f"{sample.name}: found the pixels of {other}, expected different "
        "images: a copy would judge what the other was trained on"
      )


def find_slide(name: str) -> str:
  """Returns an image's name without what numbers it on its slide."""
  slide = _TAIL.sub("", name)
  return slide or name


def tells_objects(sample: Sample) -> bool:
  """Whether an image can judge: it has a labelled object, maps or membrane."""
  if sample.kind in ("membrane", "maps"):
    return True
  return bool(known.keep_known(sample.objects, sample.is_covered).any())


def choose_judges(
  groups: Mapping[str, str], labelled: Set[str], seed: int
) -> set[str]:
  """Returns the images of the groups that judge, JUDGE_SHARE of the images.

  Args:
    groups: of each image.
    labelled: images that can; a group without any judges only where none can.
    seed: decides which.
  """
  wanted = max(round(JUDGE_SHARE * len(groups)), 1)

  def order(group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()

  chosen: set[str] = set()
  able = [groups[name] for name in groups if name in labelled]
  for group in sorted(set(able or groups.values()), key=order):
    members = {name for name, other in groups.items() if other == group}
    # A slide that holds most images would leave nothing to train on.
    if len(chosen | members) <= max(wanted, math.ceil(len(groups) / 3)):
      chosen |= members
    if len(chosen) >= wanted:
      break
  return chosen or {min(labelled or groups, key=order)}


def divide_regions(samples: Sequence[Sample]) -> Division:
  """Divides each image in two, along its longer side.

  The last part, with a quarter of the labels, judges.
  """
  trains, judges = {}, {}
  for sample in samples:
    is_judge = np.zeros(sample.is_covered.shape, bool)
    labelled = sample.is_covered & ((sample.objects > 0) | _is_plain(sample))
    height, width = labelled.shape
    axis = int(width > height)
    share = np.cumsum(labelled.sum(1 - axis), dtype=float)
    start = np.searchsorted(share, (1 - REGION_SHARE) * share[-1])
    part = [slice(None), slice(None)]
    part[axis] = slice(int(start), None)
    is_judge[tuple(part)] = True
    trains[sample.name], judges[sample.name] = ~is_judge, is_judge
  return Division(
    trains,
    judges,
    f"each of the {len(samples)} images in two parts, of which the smaller "
    "judges",
  )


def _is_plain(sample: Sample) -> bool:
  """Whether all that is covered counts alike, since there are no objects."""
  return not (sample.objects > 0).any()
