"""How good a model is on the labelled images that judge."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from dicexmbd_jax import chain
from dicexmbd_jax.finetuning.samples import Sample
from dicexmbd_jax.masks import segment
from dicexmbd_jax.scores import errors, known, match
from dicexmbd_jax.scores.summary import draw_images
from dicexmbd_jax.types import Image, Labels, Network, Probabilities

BLOCK_UM = 64.0  # Cells of such a square are drawn together.
SMALL_BLOCK_UM = 32.0  # Where that leaves fewer than MIN_BLOCKS.
MIN_BLOCKS = 12
# From this many images on, whole images are drawn: cells of one are alike.
MIN_IMAGES = 8
IOU = 0.5
_HALF = 0.5  # A pixel of more is membrane/cytoplasm.


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
  """An image that judges, as the network sees it.

  Attributes:
    sample: the image.
    is_judged: where it judges.
    factor: its magnification.
    image: on the network's grid.
    reference: the labelled objects, on the image's own.
  """

  sample: Sample
  is_judged: Bool[np.ndarray, "y x"]
  factor: float
  image: Image
  reference: Labels


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
  """What a model finds in the images that judge.

  Attributes:
    counts: right, invented, missed objects (pixels for membrane alone) by
      square, or by image where there are many.
    found: labels found by image, where anything is known.
    wanted: those of people.
    splits: cells that were found in several pieces; NaN for membrane alone.
    merges: cells found that cover several; NaN likewise.
  """

  counts: known.Counts
  found: Mapping[str, Labels]
  wanted: Mapping[str, Labels]
  splits: float
  merges: float

  @property
  def f1(self) -> float:
    """F1 at IoU 0.5 over all objects."""
    return float(known.pool_f1(self.counts.sum(0)))

  @property
  def num_wanted(self) -> int:
    """Labelled objects; pixels for membrane alone."""
    right, _, missed = self.counts.sum(0)
    return int(right + missed)

  @property
  def num_found(self) -> int:
    """Objects or pixels found where something is known."""
    right, invented, _ = self.counts.sum(0)
    return int(right + invented)

  def summarise(self) -> dict[str, float]:
    """Returns the scores by name; shares of no label at all are NaN."""
    low, high = bound_f1(self.counts)
    wanted = self.num_wanted or float("nan")
    return {
      "f1": self.f1,
      "f1_low": low,
      "f1_high": high,
      "splits": self.splits / wanted,
      "merges": self.merges / wanted,
      "count_error": self.num_found / wanted - 1,
      "num_labelled": self.num_wanted,
      "num_found": self.num_found,
    }


def predict_maps(
  shown: Sequence[Shown], network: Network
) -> list[Probabilities]:
  """Returns the probabilities of each image."""
  answers = network((i, one.image) for i, one in enumerate(shown))
  return [
    chain.round_probabilities(maps, shown[index].sample.record.image)
    for index, maps in answers
  ]


def judge_maps(
  shown: Sequence[Shown],
  maps: Sequence[Probabilities],
  config: ConfigDict,
) -> Verdict:
  """Turns maps into objects and counts them against the labels.

  Args:
    shown: the images.
    maps: of each.
    config: the whole configuration.
  """
  block_um = choose_block_um(shown)
  counts, found, wanted = [], {}, {}
  splits = merges = 0.0
  for one, probabilities in zip(shown, maps, strict=True):
    sample = one.sample
    is_known = sample.is_covered & one.is_judged
    block_px = max(round(block_um / sample.record.pixel_size_um), 1)
    shape = sample.is_covered.shape
    pair: tuple[Labels, Labels]
    if sample.membrane is not None:
      found_px = _read_membrane(probabilities, shape)
      rows = known.count_pixels(found_px, sample.membrane, is_known, block_px)
      splits = merges = float("nan")
      pair = (
        (found_px & is_known).astype(np.int32),
        (sample.membrane & is_known).astype(np.int32),
      )
    else:
      masks = segment.segment_seen(probabilities, config, shape, one.factor)
      is_nuclear = sample.kind == "nuclei"
      pair = (
        known.keep_known(masks.nuclei if is_nuclear else masks.cells, is_known),
        known.keep_known(one.reference, is_known),
      )
      rows = known.count_blocks(*pair, block_px, IOU)
      events = errors.count_events(match.overlap(*pair))
      splits += events.split
      merges += events.merge
    counts.append(rows)
    found[sample.name], wanted[sample.name] = pair
  if len(shown) >= MIN_IMAGES:
    counts = [rows.sum(0, keepdims=True) for rows in counts]
  return Verdict(np.concatenate(counts), found, wanted, splits, merges)


def find_reference(sample: Sample, config: ConfigDict) -> Labels:
  """Returns the labelled objects; of a teacher's maps the cells in them.

  Args:
    sample: the image.
    config: of the start: settings that are tried must not move what they are
      judged by.
  """
  if sample.maps is None:
    return sample.objects
  shape = sample.is_covered.shape
  seen = config.copy_and_resolve_references()
  size_um = sample.record.pixel_size_um
  seen.image.pixel_size_um = size_um * shape[0] / sample.maps.shape[0]
  return segment.segment_seen(sample.maps, seen, shape).cells


def _read_membrane(
  maps: Probabilities, shape: tuple[int, int]
) -> Bool[np.ndarray, "y x"]:
  rows, columns = (
    np.arange(size) * have // size
    for size, have in zip(shape, maps.shape[:2], strict=True)
  )
  return maps[np.ix_(rows, columns)][..., 1] > _HALF


def choose_block_um(shown: Sequence[Shown]) -> float:
  """Returns the edge of the squares whose cells are drawn together."""
  area_um2 = sum(
    float((one.sample.is_covered & one.is_judged).sum())
    * one.sample.record.pixel_size_um**2
    for one in shown
  )
  has_room = area_um2 >= MIN_BLOCKS * BLOCK_UM**2
  return BLOCK_UM if has_room else SMALL_BLOCK_UM


def bound_f1(counts: known.Counts, seed: int = 0) -> tuple[float, float]:
  """Returns the 95 % bootstrap interval of F1 over the squares.

  NaN with fewer than two squares that hold anything.
  """
  return _bound(lambda drawn: known.pool_f1(drawn @ counts), counts, seed)


def compare(
  after: Verdict, before: Verdict, seed: int = 0
) -> tuple[float, float, float]:
  """Returns the difference of F1, and its 95 % interval, squares paired."""
  pair = np.concatenate([after.counts, before.counts], axis=1)

  def subtract(drawn: np.ndarray) -> np.ndarray:
    sums = drawn @ pair
    return known.pool_f1(sums[:, :3]) - known.pool_f1(sums[:, 3:])

  return (after.f1 - before.f1, *_bound(subtract, pair, seed))


def _bound(score, counts: np.ndarray, seed: int) -> tuple[float, float]:
  num_filled = int(np.count_nonzero(counts.any(axis=1)))
  if num_filled < 2:
    return float("nan"), float("nan")
  values = score(draw_images(len(counts), seed, 2000))
  low, high = np.percentile(values, [2.5, 97.5])
  return float(low), float(high)
