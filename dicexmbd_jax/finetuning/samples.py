"""An image and what people say of it: all of its cells, or a part."""

import dataclasses

import numpy as np
from jaxtyping import Bool

from dicexmbd_jax.image import resample
from dicexmbd_jax.masks import grid
from dicexmbd_jax.train import targets
from dicexmbd_jax.types import ImageRecord, Labels, Probabilities

# What a label can be. Of several, what comes first is what is judged.
KINDS = ("cells", "nuclei", "membrane", "maps")
WHOLE, RECTANGLE, SOLE = "image", "rectangle", "cells"
LABELLED = (WHOLE, RECTANGLE, SOLE)
# In simulated tissue and in masks alike, as the shipped weights have it.
RIM_FRACTION = 0.7
_RECTANGLE_SHARE = 0.6  # Of the image: labels in less may be all there are.


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
  """One image with its labels, all on the image's own grid.

  Attributes:
    record: the image, with its two channels; its counts may be gone.
    cells: masks of cells, or None.
    nuclei: masks of nuclei, or None.
    membrane: where membrane/cytoplasm is drawn, or None.
    maps: a teacher's probabilities, at the image's scale or twice that; None.
    is_covered: where the labels tell what is there.
    doubts: what looks wrong with image or labels, one line each.
  """

  record: ImageRecord
  cells: Labels | None = None
  nuclei: Labels | None = None
  membrane: Bool[np.ndarray, "y x"] | None = None
  maps: Probabilities | None = None
  is_covered: Bool[np.ndarray, "y x"] = dataclasses.field(
    default_factory=lambda: np.ones((0, 0), bool)
  )
  doubts: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    """The image's name."""
    return self.record.source.stem

  @property
  def kind(self) -> str:
    """What is judged: the first of KINDS that there is."""
    return next(name for name in KINDS if getattr(self, name) is not None)

  @property
  def objects(self) -> Labels:
    """The labelled objects; for maps and membrane none."""
    if self.cells is not None:
      return self.cells
    if self.nuclei is not None:
      return self.nuclei
    return np.zeros(self.is_covered.shape, np.int32)


def check_sample(sample: Sample, labelled: str = WHOLE) -> Sample:
  """Returns the sample with what is covered, and what looks doubtful.

  Args:
    sample: as read; one whose coverage is known already keeps it.
    labelled: what the labels cover: the whole image, the rectangle around
      them, or themselves alone.

  Raises:
    ValueError: labels of another size than the image; it names the image.
  """
  shape = sample.record.image.shape[:2]
  for kind in KINDS[:3]:
    labels = getattr(sample, kind)
    if labels is not None and labels.shape != shape:
      raise ValueError(
        f"{sample.name}: found {kind} of {labels.shape[0]} x "
        f"{labels.shape[1]} px (y, x), expected {shape[0]} x {shape[1]} as the "
        f"image has{_explain_size(labels.shape, shape)}"
      )
  drawn = find_drawn(sample)
  covered = sample.is_covered
  if covered.size == 0:
    covered = cover(drawn, labelled)
  if covered.shape != shape:
    raise ValueError(
      f"{sample.name}: found what is known as {covered.shape}, expected {shape}"
    )
  checked = dataclasses.replace(sample, is_covered=covered)
  return dataclasses.replace(
    checked, doubts=(*sample.doubts, *find_doubts(checked, drawn, labelled))
  )


def find_drawn(sample: Sample) -> Bool[np.ndarray, "y x"]:
  """Returns where any label is; everywhere where there are maps."""
  shape = sample.record.image.shape[:2]
  if sample.maps is not None:
    return np.ones(shape, bool)
  drawn = np.zeros(shape, bool)
  for kind in KINDS[:3]:
    labels = getattr(sample, kind)
    if labels is not None:
      drawn |= labels > 0
  return drawn


def cover(
  drawn: Bool[np.ndarray, "y x"], labelled: str
) -> Bool[np.ndarray, "y x"]:
  """Returns where labels hold; see check_sample."""
  if labelled == SOLE:
    return drawn.copy()
  covered = np.ones(drawn.shape, bool)
  if labelled == RECTANGLE:
    covered[:] = False
    covered[find_rectangle(drawn)] = True
  return covered


def find_rectangle(drawn: Bool[np.ndarray, "y x"]) -> tuple[slice, slice]:
  """Returns the smallest rectangle around all that is drawn; empty if none."""
  rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
  if not rows.size:
    return slice(0, 0), slice(0, 0)
  return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def find_doubts(
  sample: Sample, drawn: Bool[np.ndarray, "y x"], labelled: str
) -> tuple[str, ...]:
  """Says what is odd about the labels, and what it means for the result."""
  if sample.maps is not None:
    return ()
  if not drawn.any():
    return (
      f"{sample.name}: found no labels, so all of it is trained as background"
      if labelled == WHOLE and sample.is_covered.all()
      else f"{sample.name}: found no labels; it is not used",
    )
  lines = []
  objects = sample.objects
  ids = np.unique(objects[objects > 0])
  if ids.size and ids.size == len(_find_border_ids(objects)):
    lines.append(
      f"{sample.name}: all {ids.size} cells touch the image's edge, so none "
      "shows its whole size; expect cells of the wrong size, and give larger "
      "images"
    )
  part = find_rectangle(drawn)
  share = drawn[part].size / drawn.size
  if sample.is_covered.all() and share < _RECTANGLE_SHARE:
    nuclear = sample.record.image[..., 0].copy()
    inside = nuclear[part].mean()
    nuclear[part] = 0
    outside = nuclear.sum() / max(drawn.size - drawn[part].size, 1)
    if outside > 0.5 * inside:
      lines.append(
        f"{sample.name}: labels lie in a rectangle of {share:.0%} of the "
        "image, and there are nuclei beyond, which are trained as background; "
        "if only this rectangle was labelled, call with --labelled=rectangle"
      )
  return tuple(lines)


def make_sample_target(
  sample: Sample, shape: tuple[int, int], is_used: Bool[np.ndarray, "y x"]
) -> tuple[targets.Target, targets.Known]:
  """Returns the training target on the network's grid, and what is known.

  Args:
    sample: checked.
    shape: rows and columns of the network's grid.
    is_used: the part of the image that may be trained on, on its own grid.
  """

  def sample_grid(labels: np.ndarray) -> np.ndarray:
    return grid.sample_labels(labels, shape)

  known = np.ones((*shape, 3), np.uint8)
  if sample.cells is not None:
    nuclei = None if sample.nuclei is None else sample_grid(sample.nuclei)
    target = targets.make_target(
      sample_grid(sample.cells), RIM_FRACTION, nuclei
    )
  elif sample.nuclei is not None:
    target, known = targets.make_partial_target(sample_grid(sample.nuclei))
  elif sample.membrane is not None:
    target, known = targets.make_membrane_target(sample_grid(sample.membrane))
  else:
    assert sample.maps is not None  # One of KINDS is there.
    target = np.clip(resample.resample_image(sample.maps, shape), 0, 1)
  covered = sample_grid(sample.is_covered & is_used)
  return target, targets.limit_known(target, known, covered)


def _find_border_ids(labels: Labels) -> np.ndarray:
  """Returns the ids of the objects that the image's edge cuts."""
  rim = np.ones(labels.shape, bool)
  rim[1:-1, 1:-1] = False
  return np.unique(labels[rim & (labels > 0)])


def count_objects(labels: Labels) -> int:
  """Returns how many ids there are, background apart."""
  return int(np.count_nonzero(np.bincount(labels.ravel())[1:]))


def _explain_size(found: tuple[int, ...], image: tuple[int, ...]) -> str:
  """Says what may be the matter, from the sizes alone."""
  if found == image[::-1]:
    return ": rows and columns are swapped"
  ratio = found[0] / image[0]
  if abs(ratio - found[1] / image[1]) * min(image) <= 1:
    return f": a mask of {ratio:.3g} times the image"
  return ": a mask of another image, or of a part of this one"
