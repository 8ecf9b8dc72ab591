"""Pairs strokes with their images: drawings, or an Ilastik project."""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from absl import logging

from dicexmbd_jax.io import pairing
from dicexmbd_jax.io.drawings import list_drawings, read_drawing
from dicexmbd_jax.io.pairing import Failure
from dicexmbd_jax.teach import drawings, ilastik
from dicexmbd_jax.teach.forest import CLASSES
from dicexmbd_jax.teach.ilastik import Project
from dicexmbd_jax.teach.ilastik_lanes import Lane
from dicexmbd_jax.teach.inputs import list_inputs
from dicexmbd_jax.types import ImageSource, Labels

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Annotated:
  """One image and where its strokes are; crosses to the worker processes.

  Attributes:
    source: the image.
    shown: what holds the strokes, for messages.
    strokes: the drawing, or the labels themselves: 0 = none, else the
      class.
    inner: the dataset in an HDF5 file, or None.
    axes: names of its axes, or None.
    is_whole: whether the strokes cover the image, else its upper left part.
  """

  source: ImageSource
  shown: str
  strokes: Path | Labels
  inner: str | None = None
  axes: str | None = None
  is_whole: bool = True


def is_project(path: str | os.PathLike) -> bool:
  """Whether annotations are an Ilastik project."""
  return Path(path).suffix.lower() == ".ilp"


def is_painted(item: Annotated) -> bool:
  """Whether a drawing holds anything; one that cannot be read counts, too."""
  if not isinstance(item.strokes, Path):
    return bool(item.strokes.any())
  try:
    found = read_drawing(item.strokes)
  except ValueError:
    return True  # Reading it again will say what is wrong.
  return bool(found) if isinstance(found, list) else bool(found.any())


def read_strokes(item: Annotated, shape: tuple[int, int]) -> Labels:
  """Returns an image's strokes: int32 (y, x), 0 = none, else the class.

  Args:
    item: what they are.
    shape: of the image, for strokes that are shapes and no pixels.

  Raises:
    ValueError: the file cannot be read, or holds an unknown class or none.
  """
  strokes = item.strokes
  if isinstance(strokes, Path):
    strokes = drawings.read_strokes(strokes, shape)
  if not strokes.any():
    raise ValueError(
      f"{item.shown}: found no annotated pixel, expected 0 none, 1 nucleus, 2 "
      "membrane/cytoplasm, 3 background"
    )
  return strokes


def fit_strokes(
  item: Annotated, strokes: Labels, shape: tuple[int, int], scale: int
) -> Labels:
  """Brings strokes to the working grid.

  Args:
    item: what they are.
    strokes: on the working grid, or on that of the image.
    shape: of the working grid.
    scale: working pixels per pixel of the image.

  Raises:
    ValueError: they are of another size.
  """
  missing = np.subtract(shape, strokes.shape)
  if not item.is_whole and missing.min() >= 0:
    strokes = np.pad(strokes, [(0, int(one)) for one in missing])
  if strokes.shape == shape:
    return strokes
  larger = np.repeat(np.repeat(strokes, scale, axis=0), scale, axis=1)
  if larger.shape == shape:
    return larger
  own = (shape[0] // scale, shape[1] // scale)
  raise ValueError(
    f"{item.shown}: found an annotation of {strokes.shape}, expected the "
    f"image's {own}" + (f" or {shape}" if scale > 1 else "")
  )


def pair_labels(
  annotations: str,
  images: str,
  listed: tuple[Sequence[ImageSource], Sequence[tuple[Path, str]]],
) -> tuple[list[Annotated], list[Failure]]:
  """Pairs drawings with images by stem; images without one are left out.

  Args:
    annotations: folder of drawings.
    images: where the images are, for messages.
    listed: the images, as list_inputs gives them.

  Raises:
    ValueError: no drawing is there.
  """
  sources, unlisted = listed
  by_stem = {source.stem: source for source in sources}
  found, lost = list_drawings(annotations)
  labels = pairing.strip_tag({one.stem: one for one in found}, by_stem)
  failures = [("", str(path), line) for path, line in (*unlisted, *lost)]
  for stem in set(labels) - set(by_stem):
    path = str(labels[stem].path)
    line = f"{path}: found no image {stem} in {images}, expected one"
    failures.append((stem, path, line))
  items = [
    Annotated(source, str(labels[stem].path), labels[stem].path)
    for stem, source in by_stem.items()
    if stem in labels
  ]
  return items, sorted(failures)


def pair_lanes(
  project: Project, images: str | None
) -> tuple[list[Annotated], list[Failure]]:
  """Finds the images that a project's strokes were drawn on.

  Args:
    project: the project.
    images: where its images are; None: where the project says.

  Returns:
    The images with strokes in them, in the project's order, and the failures.

  Raises:
    ValueError: nothing is at `images`.
  """
  sources: list[ImageSource] = []
  failures: list[Failure] = []
  if images:
    sources, unlisted = list_inputs(images)
    failures = [("", str(path), message) for path, message in unlisted]
  items = []
  names = {lane.stem for lane in project.lanes}
  for lane in project.lanes:
    if lane.strokes is None:
      continue
    try:
      # Another lane's image is none that merely begins alike.
      others = names - {lane.stem}
      free = [one for one in sources if one.stem not in others]
      items.append(_pair_lane(project, lane, free if images else None))
      logging.info("lane %d: %s", lane.number, items[-1].source.path)
    except ValueError as error:
      failures.append((lane.stem, str(project.path), str(error)))
  return _drop_shared(items, failures) if images else items, failures


def _drop_shared(
  items: Sequence[Annotated], failures: list[Failure]
) -> list[Annotated]:
  """Leaves out lanes that were given one image; adds them to the failures.

  Strokes of all but one of them were drawn on something else.
  """
  lanes = collections.defaultdict(list)
  for item in items:
    lanes[item.source, item.inner].append(item)
  for item in items:
    shared = lanes[item.source, item.inner]
    if len(shared) > 1:
      others = ", ".join(one.shown for one in shared if one is not item)
      line = (
        f"{item.shown}: found {item.source.path} for this lane and for "
        f"{others}, expected an image for each"
      )
      failures.append((item.source.stem, item.shown, line))
  return [item for item in items if len(lanes[item.source, item.inner]) == 1]


def match_name(name: str, sources: Sequence[ImageSource]) -> ImageSource | None:
  """Finds the image of a name: the same stem, or else the longest beginning.

  Projects are often drawn on crops or copies whose names end otherwise. A
  beginning that ends within a number does not count that number, so that
  `a_1_crop` is not `a_10`.

  Returns:
    The one image, or None where there is none or several fit alike.
  """
  for source in sources:
    if source.stem == name:
      return source
  lengths = [_count_common(name, source.stem) for source in sources]
  best = max(lengths, default=0)
  if not best or lengths.count(best) > 1:
    return None
  return sources[lengths.index(best)]


def describe_labels(project: Project) -> str:
  """Says which label of a project is which class, and how that was told."""
  pairs = ", ".join(
    f"{name} = {CLASSES[k - 1]}"
    for name, k in zip(project.label_names, project.classes, strict=True)
  )
  how = "by their names" if project.is_named else "by their order"
  return f"{project.path}: Ilastik {project.version}, labels {how}: {pairs}"


def _pair_lane(
  project: Project, lane: Lane, sources: Sequence[ImageSource] | None
) -> Annotated:
  classes = np.array([0, *project.classes], np.int32)
  strokes = classes[lane.strokes]
  shown = f"{project.path}, lane {lane.number} ({lane.stem})"
  if sources is None or not lane.path:
    path, inner = ilastik.find_image(project, lane)
    stem = lane.stem or f"lane{lane.number}"
    source = ImageSource(stem, path)
    return Annotated(
      source, shown, strokes, inner, lane.axes, lane.shape is not None
    )
  matched = match_name(lane.stem, sources)
  if matched is None:
    raise ValueError(
      f"{shown}: found no image or several that begin alike, expected one of "
      "this name in --images"
    )
  is_whole = lane.shape is not None
  return Annotated(matched, shown, strokes, is_whole=is_whole)


def _count_common(first: str, second: str) -> int:
  length = len(os.path.commonprefix([first, second]))
  following = first[length : length + 1] + second[length : length + 1]
  if re.search(r"\d", following):
    length = len(first[:length].rstrip("0123456789"))
  return length
