"""The teacher as a whole: what it sees of an image, and what it makes of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

from dicexmbd_jax.teach import features as features_lib
from dicexmbd_jax.teach import forest as forest_lib
from dicexmbd_jax.teach.features import Feature, Planes
from dicexmbd_jax.teach.forest import Forest
from dicexmbd_jax.types import Probabilities

SCHEMA_VERSION = 1
CHANNELS = ("merged", "all")
# Bytes of features held at once, per process; more does not run faster.
_FEATURE_BYTES = 1 << 26
_MIN_BLOCK_PX = 128  # Below, more is spent on the halo than on the block.


@dataclasses.dataclass(frozen=True)
class View:
  """What a teacher sees of an image.

  Attributes:
    channels: "merged": the nuclear and the membrane/cytoplasm channel, as the
      network sees them; "all": every channel of the file, or every one that
      the panel keeps, as it is.
    names: of the channels, for the check in prediction; empty where unknown.
    num_channels: how many there are; 0 before the first image is read.
    scale: working pixels per pixel of the image, 1 or 2.
    image: the config's section `image`, for "merged".
    pixel_size_um: of the working grid; None where no image tells.
  """

  channels: str
  names: tuple[str, ...] = ()
  num_channels: int = 0
  scale: int = 1
  image: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  pixel_size_um: float | None = None


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A fitted teacher.

  Attributes:
    view: what it sees of an image.
    selection: the features, in the order of the forest's columns.
    forest: the trees.
    record: from what it was made, for people.
  """

  view: View
  selection: tuple[Feature, ...]
  forest: Forest
  record: Mapping[str, Any]


def gather_rows(
  planes: Planes,
  strokes: Int32[np.ndarray, "y x"],
  selection: tuple[Feature, ...],
) -> tuple[Float32[np.ndarray, "n columns"], Int32[np.ndarray, " n"]]:
  """Returns the features and the labels of one image's annotated pixels.

  Args:
    planes: the channels.
    strokes: 0 = none, else the class.
    selection: the features.

  Raises:
    ValueError: planes and strokes differ in size.
  """
  if strokes.shape != planes.shape[:2]:
    raise ValueError(
      f"found an annotation of {strokes.shape}, expected {planes.shape[:2]}"
    )
  columns = features_lib.count_columns(selection, planes.shape[2])
  rows, labels = [np.empty((0, columns), np.float32)], [np.empty(0, np.int32)]
  for inner, values in _iterate_blocks(planes, selection, strokes > 0):
    chosen = strokes[inner] > 0
    rows.append(values[chosen])
    labels.append(strokes[inner][chosen].astype(np.int32))
  return np.concatenate(rows), np.concatenate(labels)


def classify_planes(
  planes: Planes,
  selection: tuple[Feature, ...],
  forest: Forest,
  block_px: int | None = None,
) -> Probabilities:
  """Classifies every pixel, block by block.

  Args:
    planes: the channels.
    selection: the features that the forest was fit on.
    forest: the trees.
    block_px: edge of a block; None: as 64 MiB of features allow. It never
      changes the result: blocks are cut with all that their filters see.

  Raises:
    ValueError: planes of another number of channels than the forest's.
  """
  result = np.empty((*planes.shape[:2], len(forest_lib.CLASSES)), np.float32)
  for inner, values in _iterate_blocks(planes, selection, None, block_px):
    result[inner] = forest_lib.predict_forest(forest, values)
  return result


def _iterate_blocks(
  planes: Planes,
  selection: tuple[Feature, ...],
  wanted: Bool[np.ndarray, "y x"] | None,
  block_px: int | None = None,
):
  """Yields each block's slices and features; only blocks with wanted pixels."""
  features_lib.check_planes(planes)
  edge = block_px or _choose_block(selection, planes.shape[2])
  halo = features_lib.measure_halo(selection)
  height, width = planes.shape[:2]
  for y in range(0, height, edge):
    for x in range(0, width, edge):
      inner = (slice(y, min(y + edge, height)), slice(x, min(x + edge, width)))
      if wanted is not None and not wanted[inner].any():
        continue
      yield inner, compute_part(planes, selection, inner, halo)


def compute_part(
  planes: Planes,
  selection: tuple[Feature, ...],
  inner: tuple[slice, slice],
  halo: int,
) -> features_lib.Features:
  """Computes the features of a part of an image, as of the whole.

  Args:
    planes: the whole image.
    selection: the features.
    inner: rows and columns wanted, within the image.
    halo: how far the features look, of features.measure_halo.
  """
  height, width = planes.shape[:2]
  outer, part = zip(
    features_lib.add_halo(inner[0], halo, height),
    features_lib.add_halo(inner[1], halo, width),
    strict=True,
  )
  return features_lib.compute_features(planes[outer], selection, part)


def _choose_block(selection: tuple[Feature, ...], num_channels: int) -> int:
  columns = features_lib.count_columns(selection, num_channels)
  return max(int((_FEATURE_BYTES / 4 / columns) ** 0.5), _MIN_BLOCK_PX)
